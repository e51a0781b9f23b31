-- Named queries of the progress service; in braces: the tables, by setting. Locks are taken partitions first, then jobs,
-- each in order, so that no two transactions can wait for each other.

-- make_partitions --
-- In a transaction of its own, before: rows of partitions are never deleted, so `lock_partitions` then finds them all.
insert into {settled_offsets} (pipeline, topic_id, partition)
select %(pipeline)s, topic_id, partition
  from unnest(%(topic_ids)s::text[], %(partitions)s::int[]) as p (topic_id, partition)
 order by topic_id, partition
    on conflict do nothing

-- lock_partitions --
-- Failed items belong to the lock of the partition that they were first read from.
select topic_id, partition
  from {settled_offsets}
 where pipeline = %(pipeline)s
   and (topic_id, partition) in (select * from unnest(%(topic_ids)s::text[], %(partitions)s::int[]))
 order by topic_id, partition
   for update

-- jobs_of_items --
select distinct f.job_id
  from unnest(%(topic_ids)s::text[], %(partitions)s::int[], %(offsets)s::int8[], %(items)s::int[])
       as r (topic_id, partition, "offset", item)
  join {failed_items} f
    on f.pipeline = %(pipeline)s and f.topic_id = r.topic_id and f.partition = r.partition
   and f."offset" = r."offset" and r.item between f.first_item and f.last_item
 where f.job_id is not null

-- lock_jobs --
-- A row is locked whether or not it is written: heard_at is exact to a minute.
with locked as (
    insert into {heard} as h (job_id)
    select distinct job_id from unnest(%(jobs)s::text[]) as j (job_id) order by job_id
        on conflict (job_id) do update set heard_at = now() where h.heard_at < now() - interval '1 minute'
)
select now() as now

-- count_ranges --
-- Of each range what is not covered yet. The cover is cut to what is reported first: however many holes it has
-- elsewhere, each range is compared with a small set; `&&` and `@>` search it, only a range known in part is subtracted.
with reported as materialized (
    select *
      from unnest(%(topic_ids)s::text[], %(partitions)s::int[], %(jobs)s::text[], %(attempts)s::int[],
                  %(firsts)s::int8[], %(lasts)s::int8[],
                  %(succeeded)s::int8[], %(failed)s::int8[], %(skipped)s::int8[])
           with ordinality as r (topic_id, partition, job_id, attempt, first, last, succeeded, failed, skipped, n)
), span as materialized (
    select s.topic_id, s.partition, s.reported,
           c.offsets * int8multirange(int8range(s.first, s.last + 1)) as covered
      from (select topic_id, partition, min(first) as first, max(last) as last,
                   range_agg(int8range(first, last + 1)) as reported
              from reported group by topic_id, partition) s
      join {settled_offsets} c
        on c.pipeline = %(pipeline)s and c.topic_id = s.topic_id and c.partition = s.partition
), fresh as materialized (
    select r.*,
           case when not s.covered && int8range(r.first, r.last + 1) then r.last + 1 - r.first
                when s.covered @> int8range(r.first, r.last + 1) then 0
                else (select sum(upper(piece) - lower(piece))
                        from unnest(int8multirange(int8range(r.first, r.last + 1)) - s.covered) as piece)
           end as length
      from reported r
      join span s on s.topic_id = r.topic_id and s.partition = r.partition
), counted as (
    insert into {counters} as c (job_id, attempt, pipeline, is_first, succeeded, failed, skipped)
    select f.job_id, f.attempt, %(pipeline)s,
           not exists (select from {counters} o
                        where o.job_id = f.job_id and o.attempt = f.attempt and o.pipeline <> ''),
           sum(length * succeeded), sum(length * failed), sum(length * skipped)
      from fresh f
     where job_id is not null and length > 0
     group by f.job_id, f.attempt
        on conflict (job_id, attempt, pipeline) do update
       set succeeded = c.succeeded + excluded.succeeded,
           failed = c.failed + excluded.failed,
           skipped = c.skipped + excluded.skipped
), named as (
    insert into {failed_items}
           (pipeline, topic_id, partition, "offset", first_item, last_item, job_id, attempt, reason)
    select %(pipeline)s, f.topic_id, f.partition, f.first, i.first, i.last, f.job_id, f.attempt, i.reason
      from unnest(%(item_ranges)s::int8[], %(item_firsts)s::int[], %(item_lasts)s::int[], %(item_reasons)s::text[])
           as i (n, first, last, reason)
      join fresh f on f.n = i.n
     where f.length > 0
        on conflict do nothing
), covered as (
    update {settled_offsets} c
       set offsets = c.offsets + s.reported
      from span s
     where c.pipeline = %(pipeline)s and c.topic_id = s.topic_id and c.partition = s.partition
       and not s.covered @> s.reported
)
select coalesce(sum(last - first + 1 - length), 0) as known from fresh

-- count_sums --
-- Of a report with sums all of it, where its spans touch nothing that is covered; else nothing, and it is answered.
with spans as materialized (
    select topic_id, partition, range_agg(int8range(first, last + 1)) as reported
      from unnest(%(topic_ids)s::text[], %(partitions)s::int[], %(firsts)s::int8[], %(lasts)s::int8[])
           as s (topic_id, partition, first, last)
     group by topic_id, partition
), fresh as materialized (
    select s.*
      from spans s
      join {settled_offsets} c
        on c.pipeline = %(pipeline)s and c.topic_id = s.topic_id and c.partition = s.partition
     where not c.offsets && s.reported
), sums as materialized (
    select r.*
      from unnest(%(sum_topic_ids)s::text[], %(sum_partitions)s::int[], %(jobs)s::text[], %(attempts)s::int[],
                  %(succeeded)s::int8[], %(failed)s::int8[], %(skipped)s::int8[])
           with ordinality as r (topic_id, partition, job_id, attempt, succeeded, failed, skipped, n)
      join fresh f on f.topic_id = r.topic_id and f.partition = r.partition
), counted as (
    insert into {counters} as c (job_id, attempt, pipeline, is_first, succeeded, failed, skipped)
    select s.job_id, s.attempt, %(pipeline)s,
           not exists (select from {counters} o
                        where o.job_id = s.job_id and o.attempt = s.attempt and o.pipeline <> ''),
           sum(succeeded), sum(failed), sum(skipped)
      from sums s
     where job_id is not null
     group by s.job_id, s.attempt
        on conflict (job_id, attempt, pipeline) do update
       set succeeded = c.succeeded + excluded.succeeded,
           failed = c.failed + excluded.failed,
           skipped = c.skipped + excluded.skipped
), named as (
    insert into {failed_items}
           (pipeline, topic_id, partition, "offset", first_item, last_item, job_id, attempt, reason)
    select %(pipeline)s, s.topic_id, s.partition, i."offset", i.first, i.last, s.job_id, s.attempt, i.reason
      from unnest(%(item_sums)s::int8[], %(item_offsets)s::int8[], %(item_firsts)s::int[], %(item_lasts)s::int[],
                  %(item_reasons)s::text[])
           as i (n, "offset", first, last, reason)
      join sums s on s.n = i.n
        on conflict do nothing
), covered as (
    update {settled_offsets} c
       set offsets = c.offsets + f.reported
      from fresh f
     where c.pipeline = %(pipeline)s and c.topic_id = f.topic_id and c.partition = f.partition
)
select topic_id, partition from spans
except
select topic_id, partition from fresh
 order by topic_id, partition

-- resolve_items --
-- One count from failed to succeeded for each item named that is not resolved yet.
with named as (
    select f.topic_id, f.partition, f."offset", f.first_item, f.job_id, f.attempt, f.resolved,
           range_agg(int4range(r.item, r.item + 1)) as items
      from unnest(%(topic_ids)s::text[], %(partitions)s::int[], %(offsets)s::int8[], %(items)s::int[])
           as r (topic_id, partition, "offset", item)
      join {failed_items} f
        on f.pipeline = %(pipeline)s and f.topic_id = r.topic_id and f.partition = r.partition
       and f."offset" = r."offset" and r.item between f.first_item and f.last_item
     group by f.topic_id, f.partition, f."offset", f.first_item, f.job_id, f.attempt, f.resolved
), resolved as (
    update {failed_items} f
       set resolved = f.resolved + n.items
      from named n
     where f.pipeline = %(pipeline)s and f.topic_id = n.topic_id and f.partition = n.partition
       and f."offset" = n."offset" and f.first_item = n.first_item and not f.resolved @> n.items
), moved as (
    select job_id, attempt, sum(upper(piece) - lower(piece)) as items
      from named, unnest(named.items - named.resolved) as piece
     where job_id is not null
     group by job_id, attempt
)
update {counters} c
   set succeeded = c.succeeded + m.items, failed = c.failed - m.items
  from moved m
 where c.job_id = m.job_id and c.attempt = m.attempt and c.pipeline = %(pipeline)s

-- judge --
-- Bring the jobs' counts up to date, decide which are complete (the only place that does), queue their signals.
with counted as (
    select c.job_id, sum(c.succeeded) as succeeded, sum(c.failed) as failed, sum(c.skipped) as skipped
      from {jobs} j
      join {counters} c on c.job_id = j.job_id and c.attempt = j.attempt
     where j.job_id = any (%(jobs)s::text[])
       and (c.pipeline = '' or case when j.pipelines is null then c.is_first else c.pipeline = any (j.pipelines) end)
     group by c.job_id
), judged as (
    select j.job_id, coalesce(c.succeeded, 0) as succeeded, coalesce(c.failed, 0) as failed,
           coalesce(c.skipped, 0) as skipped,
           j.status in ('open', 'stalled')
           and coalesce(c.succeeded + c.failed + c.skipped, 0) >= j.total_items as completes
      from {jobs} j
      left join counted c on c.job_id = j.job_id
     where j.job_id = any (%(jobs)s::text[])
), changed as (
    update {jobs} j
       set succeeded = d.succeeded, failed = d.failed, skipped = d.skipped,
           version = j.version + 1,
           changed_at = now(),
           completed_at = case when d.completes then now() else j.completed_at end,
           status = case when d.completes then 'completed' when j.status = 'stalled' then 'open' else j.status end
      from judged d
     where j.job_id = d.job_id
       and (d.completes or (j.succeeded, j.failed, j.skipped) is distinct from (d.succeeded, d.failed, d.skipped))
    returning j.*, d.completes
), queued as (
    insert into {outbox} (job_id, attempt, workflow_id, payload)
    select job_id, attempt, workflow_id,
           jsonb_build_object('signal_id', job_id || '#' || attempt, 'job_id', job_id, 'source', source,
                              'succeeded', succeeded, 'failed', failed, 'skipped', skipped)
      from changed
     where completes and workflow_id is not null
        on conflict do nothing
)
select pg_notify(%(channel)s, job_id) from changed

-- states --
select * from {jobs} where job_id = any (%(jobs)s::text[]) order by job_id

-- lock_state --
-- Under the job's lock; its row is locked too, because marking a job stalled or signalled takes only that.
select * from {jobs} where job_id = %(job_id)s for update

-- changed_since --
select * from {jobs} where changed_at >= %(since)s or signalled_at >= %(since)s or status = 'stalled' order by changed_at

-- detail --
select j.*, o.state as signal
  from {jobs} j
  left join {outbox} o on o.job_id = j.job_id and o.attempt = j.attempt
 where j.job_id = %(job_id)s

-- page --
select *
  from {jobs}
 where (%(status)s::text is null or status = %(status)s)
   and (%(source)s::text is null or source = %(source)s)
   and (%(before)s::text is null
        or (created_at, job_id) < (select b.created_at, b.job_id from {jobs} b where b.job_id = %(before)s))
 order by created_at desc, job_id desc
 limit %(limit)s

-- save --
insert into {jobs} as j (job_id, attempt, version, source, workflow_id, total_items, succeeded, failed, skipped, status,
                         created_at, completed_at, signalled_at, pipelines, closed_reason, changed_at)
values (%(job_id)s, %(attempt)s, %(version)s, %(source)s, %(workflow_id)s, %(total_items)s, %(succeeded)s, %(failed)s,
        %(skipped)s, %(status)s, %(created_at)s, %(completed_at)s, %(signalled_at)s, %(pipelines)s, %(closed_reason)s,
        %(changed_at)s)
    on conflict (job_id) do update
   set attempt = excluded.attempt, version = excluded.version, source = excluded.source,
       workflow_id = excluded.workflow_id, total_items = excluded.total_items, succeeded = excluded.succeeded,
       failed = excluded.failed, skipped = excluded.skipped, status = excluded.status,
       completed_at = excluded.completed_at, signalled_at = excluded.signalled_at, pipelines = excluded.pipelines,
       closed_reason = excluded.closed_reason, changed_at = excluded.changed_at
returning pg_notify(%(channel)s, job_id)

-- find_key --
select attempt from {idempotency_keys} where job_id = %(job_id)s and key = %(key)s

-- keep_key --
insert into {idempotency_keys} (job_id, key, attempt) values (%(job_id)s, %(key)s, %(attempt)s) on conflict do nothing

-- receive_input --
with received as (
    insert into {inputs} (job_id, attempt, input_id) values (%(job_id)s, %(attempt)s, %(input_id)s)
        on conflict do nothing returning job_id
)
insert into {counters} as c (job_id, attempt, pipeline, is_first, succeeded, failed, skipped)
select job_id, %(attempt)s, '', false, %(succeeded)s, %(failed)s, %(skipped)s from received
    on conflict (job_id, attempt, pipeline) do update
   set succeeded = c.succeeded + excluded.succeeded,
       failed = c.failed + excluded.failed,
       skipped = c.skipped + excluded.skipped

-- queue_signal --
insert into {outbox} (job_id, attempt, workflow_id, payload)
values (%(job_id)s, %(attempt)s, %(workflow_id)s, %(payload)s) on conflict do nothing

-- cover --
select partition, array(select array[lower(piece), upper(piece) - 1] from unnest(offsets) as piece) as ranges
  from {settled_offsets}
 where pipeline = %(pipeline)s and topic_id = %(topic_id)s
 order by partition

-- failures --
-- In the order of the primary key, so that a page begins where the one before ended.
select pipeline, topic_id, partition, "offset", first_item as first, last_item as last, reason, job_id, attempt,
       array(select array[lower(piece), upper(piece) - 1] from unnest(resolved) as piece) as resolved, created_at
  from {failed_items}
 where (%(pipeline)s::text is null or pipeline = %(pipeline)s)
   and (%(job_id)s::text is null or job_id = %(job_id)s)
   and (%(attempt)s::int is null or attempt = %(attempt)s)
   and (%(reason)s::text is null or reason = %(reason)s)
   and (%(seconds)s::float8 is null or created_at >= now() - make_interval(secs => %(seconds)s))
   and (%(open)s::bool is null or (resolved @> int4range(first_item, last_item + 1)) <> %(open)s)
   and (%(after_pipeline)s::text is null
        or (pipeline, topic_id, partition, "offset", first_item)
           > (%(after_pipeline)s, %(after_topic_id)s, %(after_partition)s::int, %(after_offset)s::int8,
              %(after_first)s::int))
 order by pipeline, topic_id, partition, "offset", first_item
 limit %(limit)s

-- find_failures --
select f.pipeline, f.topic_id, f.partition, f."offset", f.first_item as first, f.last_item as last, f.reason, f.job_id,
       f.attempt, array(select array[lower(piece), upper(piece) - 1] from unnest(f.resolved) as piece) as resolved,
       f.created_at
  from (select distinct * from unnest(%(topic_ids)s::text[], %(partitions)s::int[], %(offsets)s::int8[]))
       as o (topic_id, partition, "offset")
  join {failed_items} f
    on f.pipeline = %(pipeline)s and f.topic_id = o.topic_id and f.partition = o.partition and f."offset" = o."offset"
 order by f.topic_id, f.partition, f."offset", f.first_item

-- failure_reasons --
select pipeline, reason, sum(last_item + 1 - first_item)::int8 as failed,
       sum((select coalesce(sum(upper(piece) - lower(piece)), 0) from unnest(resolved) as piece))::int8 as resolved
  from {failed_items}
 where (%(pipeline)s::text is null or pipeline = %(pipeline)s)
   and (%(job_id)s::text is null or job_id = %(job_id)s)
   and (%(attempt)s::int is null or attempt = %(attempt)s)
   and (%(reason)s::text is null or reason = %(reason)s)
   and (%(seconds)s::float8 is null or created_at >= now() - make_interval(secs => %(seconds)s))
 group by pipeline, reason
 order by failed desc, pipeline, reason

-- save_partition_status --
insert into {standings} as s
       (pipeline, topic_id, partition, topic, position, "end", pending, oldest_unsettled_ms, waiting_for,
        heard_at)
select %(pipeline)s, topic_id, partition, topic, position, "end", pending, oldest_unsettled_ms, waiting_for, now()
  from unnest(%(topic_id)s::text[], %(partition)s::int[], %(topic)s::text[], %(position)s::int8[], %(end)s::int8[],
              %(pending)s::int8[], %(oldest_unsettled_ms)s::int8[], %(waiting_for)s::text[])
       as t (topic_id, partition, topic, position, "end", pending, oldest_unsettled_ms, waiting_for)
 order by topic_id, partition
    on conflict (pipeline, topic_id, partition) do update
   set topic = excluded.topic, position = excluded.position, "end" = excluded."end", pending = excluded.pending,
       oldest_unsettled_ms = excluded.oldest_unsettled_ms, waiting_for = excluded.waiting_for,
       heard_at = excluded.heard_at

-- partitions --
select pipeline, topic, topic_id, partition, position, "end", greatest("end" - position, 0) as lag, pending,
       oldest_unsettled_ms, waiting_for, heard_at, heard_at < now() - make_interval(secs => %(stale)s) as stale
  from {standings}
 where %(pipeline)s::text is null or pipeline = %(pipeline)s
 order by pipeline, topic, partition, heard_at desc
 limit %(limit)s

-- topic_names --
select distinct topic_id, topic from {standings} where topic_id = any (%(topic_ids)s::text[])

-- prune_partition_status --
delete from {standings} where heard_at < now() - make_interval(secs => %(seconds)s)

-- stall --
-- Takes no job's lock: a job that another transaction has locked is being changed, so it is not stalled.
with quiet as (
    select job_id from {jobs}
     where status = 'open' and changed_at < now() - make_interval(secs => %(seconds)s)
       for update skip locked
), stalled as (
    update {jobs} j set status = 'stalled', version = j.version + 1
      from quiet q where j.job_id = q.job_id
    returning j.job_id
)
select job_id, pg_notify(%(channel)s, job_id) from stalled

-- prune_unknown --
-- Jobs that were reported and never opened (a mistyped or a spoofed id): counters and failed items go, the cover stays.
with unknown as (
    select h.job_id from {heard} h
     where h.heard_at < now() - make_interval(secs => %(seconds)s)
       and not exists (select from {jobs} j where j.job_id = h.job_id)
     order by h.job_id
     limit 1000
       for update skip locked
), counted as (
    delete from {counters} c using unknown u where c.job_id = u.job_id
), named as (
    delete from {failed_items} f using unknown u where f.job_id = u.job_id
)
delete from {heard} h using unknown u where h.job_id = u.job_id

-- prune_failed_items --
delete from {failed_items} f
 where f.created_at < now() - make_interval(secs => %(seconds)s)
   and not exists (select from {jobs} j where j.job_id = f.job_id and j.status in ('open', 'stalled'))
   and not exists (select from {jobs} j where j.job_id = f.job_id
                      and j.completed_at >= now() - make_interval(secs => %(seconds)s))

-- take_signals --
-- A lease, so that no transaction stays open while Temporal is asked; when it ends, another service takes the signal.
with due as (
    select job_id, attempt from {outbox}
     where state = 'pending' and due_at <= now()
     order by due_at
     limit %(limit)s
       for update skip locked
)
update {outbox} o
   set due_at = now() + make_interval(secs => %(lease)s), tries = o.tries + 1
  from due d
 where o.job_id = d.job_id and o.attempt = d.attempt
returning o.job_id, o.attempt, o.workflow_id, o.payload, o.tries

-- signal_sent --
with sent as (
    update {outbox} set state = 'sent', sent_at = now()
     where job_id = %(job_id)s and attempt = %(attempt)s and state <> 'sent'
    returning job_id, attempt
), marked as (
    update {jobs} j set signalled_at = now(), version = j.version + 1
      from sent s where j.job_id = s.job_id and j.attempt = s.attempt
    returning j.job_id
)
select pg_notify(%(channel)s, job_id) from marked

-- signal_later --
-- A workflow that is unknown for `grace` makes its signal undeliverable. Any other answer ends that count.
update {outbox}
   set due_at = now() + make_interval(secs => %(delay)s),
       unknown_since = case when %(unknown)s then coalesce(unknown_since, now()) end,
       state = case when %(unknown)s and unknown_since <= now() - make_interval(secs => %(grace)s)
                    then 'undeliverable' else state end
 where job_id = %(job_id)s and attempt = %(attempt)s and state = 'pending'
returning state

-- signal_again --
update {outbox} o
   set state = 'pending', due_at = now(), unknown_since = null, tries = 0
  from {jobs} j
 where o.job_id = %(job_id)s and j.job_id = o.job_id and o.attempt = j.attempt and o.state <> 'sent'
returning pg_notify(%(channel)s, o.job_id)

-- ping --
select 1 from {jobs} limit 1

-- gauges --
select 'jobs' as gauge, status as label, count(*) as value from {jobs} group by status
union all select 'signals', state, count(*) from {outbox} group by state
union all select 'items', item, value
  from (select coalesce(sum(succeeded), 0) as succeeded, coalesce(sum(failed), 0) as failed,
               coalesce(sum(skipped), 0) as skipped,
               coalesce(sum(greatest(total_items - succeeded - failed - skipped, 0)), 0) as outstanding
          from {jobs} where status in ('open', 'stalled')) s,
       lateral (values ('succeeded', succeeded), ('failed', failed), ('skipped', skipped), ('outstanding', outstanding))
       as v (item, value)
union all select 'unknown_jobs', '', count(*) from {heard} h
 where not exists (select from {jobs} j where j.job_id = h.job_id)

-- counters --
select c.attempt, c.pipeline, c.succeeded, c.failed, c.skipped,
       c.pipeline = '' or case when j.pipelines is null then c.is_first else c.pipeline = any (j.pipelines) end as counts
  from {counters} c
  join {jobs} j on j.job_id = c.job_id
 where c.job_id = %(job_id)s
 order by c.attempt desc, c.pipeline
