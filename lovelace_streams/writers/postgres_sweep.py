"""Rows one by one within the server: each in a subtransaction of its own, so that a refused one hurts no other.

What no catalogue tells (triggers, policies, other unique keys) can only be found by trying. Trying from here costs a
round trip and a commit a try; a loop in PL/pgSQL tries a row in about a tenth of that time, however many are bad.
At most `ROWS` go in one transaction: past 64 subtransactions other sessions are slowed down (Postgres keeps so many of
a transaction's in shared memory, `PGPROC_MAX_CACHED_SUBXIDS`, src/include/storage/proc.h).

`DO` takes no parameters and gives no rows: both travel in settings that end with the transaction.
"""

from collections.abc import Sequence

import msgspec
from psycopg import sql

ROWS = 64
OUT = "lovelace.outcomes"


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
    """The query whose parameters are the columns, as array literals.

    Planned once: by its own estimate the server would plan every row's statement anew, which costs more than the row.
    """
    settings = [f"set_config('{column(place)}', %s, true)" for place in range(columns)]
    return f"select set_config('plan_cache_mode', 'force_generic_plan', true), {', '.join(settings)}".encode()


ANSWER = f"select current_setting('{OUT}')".encode()


def script(
    *,
    statements: Sequence[bytes],
    newer: bytes | None,
    newer_places: Sequence[int],
    returning: bool,
    types: Sequence[str],
    record: Sequence[str],
    again: Sequence[str],
) -> bytes:
    """The loop over all rows, with these statements for each (`returning` rows, or not).

    Where a name is a column's and a variable's, the column is meant; what statements refer to has names of our own.
    Codes of classes that are not the record's (`record`, classes and codes) end the whole; those in `again` are
    believed only after one more try, with everything earlier written.
    """
    declared = "".join(
        f"  {_array(place)} {kind}[] := current_setting('{column(place)}')::{kind}[];\n"
        for place, kind in enumerate(types)
    )
    counted = "{}; get diagnostics lovelace_n = row_count"
    if returning:
        counted = "with w as ({}) select count(*) into lovelace_n from w"
    writes = "".join(
        f"        {counted.format(_of_row(each, range(len(types))))}; written := written + lovelace_n;\n"
        for each in statements
    )
    held = "false" if newer is None else f"exists ({_of_row(newer, newer_places)})"
    body = f"""
#variable_conflict use_column
declare
{declared}  outcomes text[] := '{{}}'; code text; rule text; col text; lovelace_n int; written int; tries int;
begin
  for lovelace_i in 1 .. coalesce(array_length({_array(0)}, 1), 0) loop
    tries := 0;
    loop
      written := 0; code := ''; rule := ''; tries := tries + 1;
      begin
{writes}      exception when others then
        get stacked diagnostics code = returned_sqlstate, rule = constraint_name, col = column_name;
        if not (code = any ({_texts(record)}) or left(code, 2) = any ({_texts(record)})) then raise; end if;
        rule := coalesce(nullif(rule, ''), col);
      end;
      exit when tries > 1 or code <> all ({_texts(again)});
    end loop;
    outcomes := outcomes || json_build_array(
      written, case when code = '' and written = 0 then {held} else false end, code, rule)::text;
  end loop;
  perform set_config('{OUT}', '[' || array_to_string(outcomes, ',') || ']', true);
end
"""
    return b"do " + sql.Literal(body).as_bytes()


def _array(place: int) -> str:
    return f"lovelace_{place}"


def _of_row(statement: bytes, places: Sequence[int]) -> str:
    """A statement over array parameters as one over the row `lovelace_i` of the columns at these places."""
    first, *rest = statement.decode().split("%s")
    row = "".join(f"{_array(place)}[lovelace_i:lovelace_i]{text}" for place, text in zip(places, rest, strict=True))
    return (first + row).replace("%%", "%")


def _texts(values: Sequence[str]) -> str:
    return "'{" + ",".join(values) + "}'::text[]"
