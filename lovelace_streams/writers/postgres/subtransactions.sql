-- Tries rows in order, in runs that one statement may write, each run in a subtransaction of its own.
-- subtransactions.py says why, and fills in what stands in braces.
#variable_conflict use_column  -- the statements name columns; the variables that they use begin with lovelace_
declare
{column_variables}
  run_ends int[] := current_setting({run_ends})::int[];
  deadline timestamptz := clock_timestamp() + {seconds_max} * interval '1 s';
  lovelace_first int := 1;  -- the rows that are tried, numbered from 1
  lovelace_last int;
  lovelace_from int;  -- the same rows within the windows
  lovelace_to int;
  lovelace_count int;
  window_base int := -{rows_max};  -- how many rows lie before the windows
  run_size int := {first_rows};
  one_by_one_until int := 0;
  tries int := 0;
  written_runs int := 0;
  written int;
  is_partial bool;
  code text;
  rule text;
  column_of_error text;
  outcomes text := '';
begin
  while lovelace_first <= cardinality(run_ends) and written_runs < {runs_max}
        and (clock_timestamp() < deadline or lovelace_first = 1) loop
    -- a slice copies the whole array before it cuts it, an element does not: hence windows, and a form for one row
    if lovelace_first > window_base + {rows_max} then
      window_base := lovelace_first - 1;
{move_windows}
    end if;
    if clock_timestamp() >= deadline then run_size := 1; end if;
    lovelace_last := least(lovelace_first + run_size - 1, run_ends[lovelace_first], window_base + {rows_max});
    if lovelace_first <= one_by_one_until then lovelace_last := lovelace_first; end if;
    lovelace_from := lovelace_first - window_base;
    lovelace_to := lovelace_last - window_base;
    written := 0; code := ''; rule := ''; is_partial := false;
    {reset_held_off};

    begin
      if lovelace_first = lovelace_last then
{write_one_row}
      else
{write_rows}
        -- a stored row or a trigger held some off: undone, and tried row by row to tell what held each off
        if written <= lovelace_last - lovelace_first then
          is_partial := true;
          raise 'some were not written';
        end if;
      end if;
    exception when others then
      get stacked diagnostics code = returned_sqlstate, rule = constraint_name, column_of_error = column_name;
      if not (is_partial or code = any ({tolerated}::text[]) or left(code, 2) = any ({tolerated}::text[])) then raise; end if;
      rule := coalesce(nullif(rule, ''), column_of_error);
    end;

    if code <> '' and lovelace_first < lovelace_last then
      if is_partial then one_by_one_until := lovelace_last;
      else run_size := (lovelace_last - lovelace_first + 4) / 4; end if;
      continue;
    end if;
    exit when code = any ({judged_first}::text[]) and written_runs > 0;
    tries := tries + 1;
    continue when tries = 1 and code = any ({retried}::text[]);
    tries := 0;

    if written > 0 then
      outcomes := outcomes || repeat(',[1,false,"",""]', lovelace_last - lovelace_first + 1);
    else
      outcomes := outcomes || ',' || json_build_array(
        0, code = '' and {held_off} > 0, code, rule)::text;
    end if;
    if code = '' then written_runs := written_runs + 1; end if;
    run_size := least({rows_max}, 2 * run_size);
    lovelace_first := lovelace_last + 1;
  end loop;
  perform set_config({outcomes}, '[' || substr(outcomes, 2) || ']', true);
end
