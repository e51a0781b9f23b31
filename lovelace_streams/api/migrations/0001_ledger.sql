-- What is settled. Rows are never deleted: a range that was forgotten would be counted again.
create table {settled_offsets} (
    pipeline   text not null,
    topic_id   text not null, -- a topic that is deleted and made again is another topic
    partition  int  not null,
    offsets    int8multirange not null default '{{}}',
    primary key (pipeline, topic_id, partition)
);

-- Every job that anybody named, opened or not. Its row is the job's lock, taken in order of id; it is what lets a report
-- for a job that nobody opened yet and the opening of that job see each other.
create table {heard} (
    job_id    text primary key,
    heard_at  timestamptz not null default now()
);

-- One row a job: its current attempt, as `JobState` answers it.
create table {jobs} (
    job_id         text primary key references {heard},
    attempt        int    not null,
    version        bigint not null,
    source         text   not null,
    workflow_id    text,
    total_items    bigint,
    succeeded      bigint not null default 0,
    failed         bigint not null default 0,
    skipped        bigint not null default 0,
    status         text   not null check (status in ('open', 'completed', 'stalled', 'closed')),
    created_at     timestamptz not null,
    completed_at   timestamptz,
    signalled_at   timestamptz,
    pipelines      text[], -- those that count; null: the first that reports
    closed_reason  text,
    changed_at     timestamptz not null -- `stalled` is judged by it
);
create index on {jobs} (created_at desc, job_id desc);
create index on {jobs} (changed_at) where status = 'open';

-- Counts by what reported them, also before the job is opened; the job's own counts are the sum of those that count.
create table {counters} (
    job_id     text   not null references {heard},
    attempt    int    not null,
    pipeline   text   not null, -- '' for inputs that do not stream
    is_first   boolean not null, -- of the attempt's pipelines
    succeeded  bigint not null default 0,
    failed     bigint not null default 0,
    skipped    bigint not null default 0,
    primary key (job_id, attempt, pipeline)
);

-- Failed items by name, first to last of one message, and those of them that a replayed letter has written since.
create table {failed_items} (
    pipeline    text   not null,
    topic_id    text   not null,
    partition   int    not null,
    "offset"    bigint not null,
    first_item  int    not null,
    last_item   int    not null,
    job_id      text,
    attempt     int    not null,
    reason      text   not null,
    resolved    int4multirange not null default '{{}}',
    created_at  timestamptz not null default now(),
    primary key (pipeline, topic_id, partition, "offset", first_item)
);
create index on {failed_items} (job_id, attempt);
create index on {failed_items} (created_at);

create table {inputs} (
    job_id    text not null references {heard},
    attempt   int  not null,
    input_id  text not null,
    primary key (job_id, attempt, input_id)
);

create table {idempotency_keys} (
    job_id   text not null references {heard},
    key      text not null,
    attempt  int  not null,
    primary key (job_id, key)
);

-- Signals to send: one a (job, attempt), put there by the transaction that ended it.
create table {outbox} (
    job_id         text not null references {heard},
    attempt        int  not null,
    workflow_id    text not null,
    payload        jsonb not null,
    state          text not null default 'pending' check (state in ('pending', 'sent', 'undeliverable')),
    tries          int  not null default 0,
    due_at         timestamptz not null default now(),
    unknown_since  timestamptz, -- when Temporal first said that there is no such workflow
    sent_at        timestamptz,
    primary key (job_id, attempt)
);
create index on {outbox} (due_at) where state = 'pending';
