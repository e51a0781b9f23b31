"""Rows tried within the server, in order, in subtransactions of their own: a refused one hurts no other.

What no catalogue tells (triggers, policies, other unique keys) can only be found by trying. Trying from here costs a
round trip and a commit a try; a loop in PL/pgSQL costs a tenth of that. Rows that one statement may write are tried
together, so many at a time as lately passed: twice as many after a run that was written, a quarter of it where it was
refused, one at last, whose refusal is the verdict. So the neighbours of a bad row cost little more than other rows, and
where most are bad each is tried alone.

At most `PIECES` are written in one transaction: past 64 subtransactions other sessions are slowed down (Postgres keeps
so many of a transaction's in shared memory, `PGPROC_MAX_CACHED_SUBXIDS`, src/include/storage/proc.h; it forgets those
that were rolled back). Past that, or after `SECONDS`, the loop ends, and the next one goes on; a first run that
was refused and took so long is followed by its first row alone.

`DO` takes no parameters and gives no rows: both travel in settings that end with the transaction.
"""

from collections.abc import Sequence
from itertools import accumulate, chain, repeat

import msgspec
from psycopg import sql

ROWS = 512
"""What is sent at a time: making a script's plans takes the server as long as fifty rows."""
PIECES = 64
LONGEST = 32
"""Rows of one try, at most: half of them are written in vain where one is refused."""
FIRST = 8
"""Rows of a call's first try: where each takes long, all that follows has to fit the server's timeout."""
SECONDS = 1.0
OUT = "lovelace.outcomes"
ENDS = "lovelace.ends"


class Outcome(msgspec.Struct, array_like=True):
    """What became of a row: rows written, whether a stored one held it off, else the error's code and rule."""

    written: int
    newer: bool
    code: str
    rule: str


OUTCOMES = msgspec.json.Decoder(list[Outcome])


def column(place: int) -> str:
    """The setting that carries a column."""
    return f"lovelace.column_{place}"


def carry(columns: int) -> bytes:
    """The query whose parameters are the columns, as array literals, and for each row the last that may be with it.

    Planned once: by its own estimate the server would plan every row's statement anew, which costs more than the row.
    """
    names = [*map(column, range(columns)), ENDS]
    settings = [f"set_config('{name}', %s, true)" for name in names]
    return f"select set_config('plan_cache_mode', 'force_generic_plan', true), {', '.join(settings)}".encode()


def ends(runs: Sequence[int]) -> str:
    """For each row the last that may be written with it, from 1, by how many consecutive ones may.

    >>> ends([2, 1])
    '{2,2,3}'
    """
    last = accumulate(runs)
    return "{" + ",".join(chain.from_iterable(repeat(str(end), run) for run, end in zip(runs, last, strict=True))) + "}"


ANSWER = f"select current_setting('{OUT}')".encode()


def script(
    *,
    statements: Sequence[bytes],
    alone: Sequence[bytes],
    newer: bytes | None,
    newer_places: Sequence[int],
    types: Sequence[str],
    record: Sequence[str],
    again: Sequence[str],
) -> bytes:
    """The loop over the rows, with these statements for a run of them, and those for one `alone`.

    Where a name is a column's and a variable's, the column is meant; what statements refer to has names of our own.
    Codes of classes that are not the record's (`record`, classes and codes) end the whole; those in `again` are
    believed only after one more try, with everything earlier written. A run that was written in part (a stored row is
    newer, a trigger suppressed one) is undone and goes row by row, which tells what held each off.
    """
    places = range(len(types))
    body = f"""
#variable_conflict use_column
declare
{_each(_COLUMN, types)}  ends int[] := current_setting('{ENDS}')::int[];
  due timestamptz := clock_timestamp() + interval '{SECONDS} s';
  lovelace_i int := 1;  -- the run that is tried, and where it lies in the short arrays
  lovelace_j int;
  lovelace_a int;
  lovelace_z int;
  lovelace_n int;
  base int := -{LONGEST};
  size int := {FIRST};
  single int := 0;
  tries int := 0;
  pieces int := 0;
  written int;
  part bool;
  code text;
  rule text;
  col text;
  outcomes text := '';
begin
  while lovelace_i <= cardinality(ends) and pieces < {PIECES} and (clock_timestamp() < due or lovelace_i = 1) loop
    if lovelace_i > base + {LONGEST} then
      base := lovelace_i - 1;
{_each(_NEAR, types)}    end if;
    if clock_timestamp() >= due then size := 1; end if;
    lovelace_j := least(lovelace_i + size - 1, ends[lovelace_i], base + {LONGEST});
    if lovelace_i <= single then lovelace_j := lovelace_i; end if;
    lovelace_a := lovelace_i - base;
    lovelace_z := lovelace_j - base;
    written := 0; code := ''; rule := ''; part := false;
    begin
      if lovelace_i = lovelace_j then
{_counted(alone, _ONE, places)}      else
{_counted(statements, _SEVERAL, places)}        if written <= lovelace_j - lovelace_i then
          part := true;
          raise 'some were not written';
        end if;
      end if;
    exception when others then
      get stacked diagnostics code = returned_sqlstate, rule = constraint_name, col = column_name;
      if not (part or code = any ({_texts(record)}) or left(code, 2) = any ({_texts(record)})) then raise; end if;
      rule := coalesce(nullif(rule, ''), col);
    end;
    if code <> '' and lovelace_i < lovelace_j then
      if part then single := lovelace_j; else size := (lovelace_j - lovelace_i + 4) / 4; end if;
      continue;
    end if;
    tries := tries + 1;
    continue when tries = 1 and code = any ({_texts(again)});
    tries := 0;
    if written > 0 then
      outcomes := outcomes || repeat(',[1,false,"",""]', lovelace_j - lovelace_i + 1);
    else
      outcomes := outcomes || ',' || json_build_array(
        0, case when code = '' then {_held(newer, newer_places)} else false end, code, rule)::text;
    end if;
    if code = '' then pieces := pieces + 1; end if;
    size := least({LONGEST}, 2 * size);
    lovelace_i := lovelace_j + 1;
  end loop;
  perform set_config('{OUT}', '[' || substr(outcomes, 2) || ']', true);
end
"""
    return b"do " + sql.Literal(body).as_bytes()


# a slice copies the whole array before it cuts it, an element does not: hence the short arrays, and a form for one row
_COLUMN = "  {all} {kind}[] := current_setting('{column}')::{kind}[];\n  {near} {kind}[];\n"
_NEAR = f"      {{near}} := {{all}}[lovelace_i:lovelace_i + {LONGEST - 1}];\n"
_SEVERAL = "{near}[lovelace_a:lovelace_z]"
_ONE = "{near}[lovelace_a]"


def _each(form: str, types: Sequence[str]) -> str:
    return "".join(
        form.format(all=f"all_{place}", near=f"lovelace_{place}", kind=kind, column=column(place))
        for place, kind in enumerate(types)
    )


def _counted(statements: Sequence[bytes], form: str, places: Sequence[int]) -> str:
    count = "get diagnostics lovelace_n = row_count; written := written + lovelace_n;"
    return "".join(f"        {_of_rows(each, form, places)}; {count}\n" for each in statements)


def _held(newer: bytes | None, places: Sequence[int]) -> str:
    return "false" if newer is None else f"exists ({_of_rows(newer, _ONE, places)})"


def _of_rows(statement: bytes, form: str, places: Sequence[int]) -> str:
    """A statement over parameters as one over the run of rows, or the row, of the columns at these places."""
    first, *rest = statement.decode().split("%s")
    rows = "".join(form.format(near=f"lovelace_{place}") + text for place, text in zip(places, rest, strict=True))
    return (first + rows).replace("%%", "%")


def _texts(values: Sequence[str]) -> str:
    return "'{" + ",".join(values) + "}'::text[]"
