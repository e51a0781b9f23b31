-- Where workers stand, as they said last. Nothing is decided by it; a row may be lost or late.
create table {standings} (
    pipeline             text   not null,
    topic_id             text   not null,
    partition            int    not null,
    topic                text   not null,
    position             bigint not null, -- the end of what was read
    "end"                bigint,
    pending              bigint not null,
    oldest_unsettled_ms  bigint not null,
    heard_at             timestamptz not null,
    primary key (pipeline, topic_id, partition)
);
