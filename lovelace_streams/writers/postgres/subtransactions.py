"""Try rows within the server, in order, in subtransactions of their own: a refused row costs no other row anything.

The catalogue does not tell what triggers, policies and other unique keys refuse: only a try does. A try from here costs
a round trip and a commit; a loop in PL/pgSQL (`subtransactions.sql`) costs a tenth of that. The loop tries rows
together if one statement may write them. It doubles their number after a run that was written, and takes a quarter of
it after a run that was refused, down to one row, whose refusal is the verdict. So the neighbours of a refused row cost
little more than other rows, and where most rows are refused each is tried alone.

One transaction writes at most `RUNS_MAX` runs. Past 64 subtransactions it would slow other sessions down: Postgres
keeps that many of a transaction's in shared memory (`PGPROC_MAX_CACHED_SUBXIDS`, src/include/storage/proc.h), and
forgets those that were rolled back. The loop ends there, or after `SECONDS_MAX`, and the next call goes on. If the
first run was refused and took that long, only its first row is tried after it.

`DO` takes no parameters and returns no rows: both travel in settings that end with the transaction.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import accumulate, chain, repeat

import msgspec
from psycopg import sql

CALL_ROWS = 512
"""Rows of one call, at most: the server takes as long to plan a script's statements as to write fifty rows."""
RUNS_MAX = 64
ROWS_MAX = 32
"""Rows of one try, at most: if one is refused, half of them on average are written in vain."""
FIRST_ROWS = 8
"""Rows of a call's first try. Slow rows must leave time for the following tries before the server's timeout."""
SECONDS_MAX = 1.0
_LOOP = sql.SQL((files(__package__) / "subtransactions.sql").read_text(encoding="utf-8"))
OUTCOMES = "lovelace.outcomes"
RUN_ENDS = "lovelace.run_ends"


class Outcome(msgspec.Struct, array_like=True):
    """The outcome of a row: rows written, whether a stored row held it off, and the error's code and rule."""

    written: int
    held_off: bool
    code: str
    rule: str

    @property
    def is_suppressed(self) -> bool:
        """Whether neither an error nor a stored row kept it from being written: a trigger did."""
        return not (self.written or self.held_off or self.code)


OUTCOMES_DECODER = msgspec.json.Decoder(list[Outcome])


def set_parameters(columns: int) -> bytes:
    """Return the query whose parameters are the columns, as array literals, and the end of each row's run.

    It also has the server plan each statement once: by its own estimate it would plan every row's statement again,
    which costs more than the row.
    """
    names = [*map(_setting, range(columns)), RUN_ENDS]
    settings = [f"set_config('{name}', %s, true)" for name in names]
    return f"select set_config('plan_cache_mode', 'force_generic_plan', true), {', '.join(settings)}".encode()


def run_ends(runs: Sequence[int]) -> str:
    """Return for each row the number of the last row of its run, from the lengths of the runs.

    >>> run_ends([2, 1])
    '{2,2,3}'
    """
    last = accumulate(runs)
    return "{" + ",".join(chain.from_iterable(repeat(str(end), run) for run, end in zip(runs, last, strict=True))) + "}"


FETCH_OUTCOMES = f"select current_setting('{OUTCOMES}')".encode()


def script(
    *,
    statements: Sequence[bytes],
    one_row_statements: Sequence[bytes],
    held_off: bytes,
    reset_held_off: bytes,
    types: Sequence[str],
    tolerated: Sequence[str],
    retried: Sequence[str],
    judged_first: Sequence[str],
) -> bytes:
    """Return the loop over rows with columns of these types.

    `statements` write several rows, `one_row_statements` one; `held_off` is the query that tells how many rows stored
    ones held off since `reset_held_off`. An error whose code or class is in `tolerated` is the row's outcome; any other
    one ends the whole. A code in `retried` is believed after one more try, with all earlier rows written. One in
    `judged_first` is believed only while the transaction has written nothing: else the loop ends before the row, and
    the next call begins with it.
    """
    columns = range(len(types))
    one_row = [f"lovelace_{n}[lovelace_from]" for n in columns]
    rows = [f"lovelace_{n}[lovelace_from:lovelace_to]" for n in columns]
    body = _LOOP.format(
        column_variables=_lines(
            f"  all_{n} {kind}[] := current_setting('{_setting(n)}')::{kind}[];\n  lovelace_{n} {kind}[];"
            for n, kind in enumerate(types)
        ),
        move_windows=_lines(
            f"      lovelace_{n} := all_{n}[lovelace_first:lovelace_first + {ROWS_MAX - 1}];" for n in columns
        ),
        write_one_row=_lines(_counted(_bound(each, one_row)) for each in one_row_statements),
        write_rows=_lines(_counted(_bound(each, rows)) for each in statements),
        reset_held_off=sql.SQL(reset_held_off.decode().replace("select", "perform", 1)),
        held_off=sql.SQL(f"({held_off.decode()})"),
        tolerated=sql.Literal(list(tolerated)),
        retried=sql.Literal(list(retried)),
        judged_first=sql.Literal(list(judged_first)),
        run_ends=sql.Literal(RUN_ENDS),
        outcomes=sql.Literal(OUTCOMES),
        seconds_max=sql.Literal(SECONDS_MAX),
        first_rows=sql.Literal(FIRST_ROWS),
        rows_max=sql.Literal(ROWS_MAX),
        runs_max=sql.Literal(RUNS_MAX),
    )
    return b"do " + sql.Literal(body.as_string()).as_bytes()


def _setting(column: int) -> str:
    """Name the setting that carries a column."""
    return f"lovelace.column_{column}"


def _lines(lines: Iterable[str]) -> sql.SQL:
    return sql.SQL("\n".join(lines))


def _bound(statement: bytes, values: Sequence[str]) -> str:
    """Return a statement with these expressions for its parameters."""
    remaining = iter(values)
    return re.sub("%[s%]", lambda found: "%" if found[0] == "%%" else next(remaining), statement.decode())


def _counted(statement: str) -> str:
    """Return a statement followed by what adds the rows that it wrote."""
    count = "get diagnostics lovelace_count = row_count; written := written + lovelace_count;"
    return f"        {statement}; {count}"
