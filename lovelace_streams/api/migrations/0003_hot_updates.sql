-- A report changes `changed_at` of each job that it names. With an index on it, each change wrote to all indexes of the
-- table, which was half of what judging thousands of jobs cost the database; open jobs are few beside ended ones, so the
-- sweep reads those. Room in each page lets a change stay in it.
do $$
declare
    indexed regclass;
begin
    for indexed in
        select i.indexrelid
          from pg_index i
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
         where i.indrelid = '{jobs}'::regclass and a.attname = 'changed_at'
    loop
        execute format('drop index %s', indexed);
    end loop;
end $$;
create index on {jobs} (job_id) where status = 'open';
alter table {jobs} set (fillfactor = 70);
alter table {counters} set (fillfactor = 70);
