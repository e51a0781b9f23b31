"""Straight into the table by COPY: a bet that a block's rows are new, which merging can't be as fast as.

COPY knows no ON CONFLICT: one key that exists already refuses the block as a whole, and so does one row that breaks a
rule. A refusal is never a verdict (law 5): nothing was written, and the block goes the usual way. What it wins is shown
by `python -m benchmarks members`: *database, copy* beside *database, merge*.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus

REFUSED = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})
LONGEST = 64
"""Blocks that a lost bet is not repeated for, at most: a full picture of rows that exist costs one in so many."""


class Bet:
    """Whether a block's rows will be new, judged by what the last blocks were.

    >>> bet = Bet()
    >>> bet.on(), bet.lost(), bet.on(), bet.on(), bet.lost(), [bet.on() for _ in range(3)]
    (True, None, False, True, None, [False, False, True])
    """

    def __init__(self) -> None:
        self._pause = 0
        self._next = 1

    @property
    def likely(self) -> bool:
        """What `on` will answer next."""
        return self._pause == 0

    def on(self) -> bool:
        """Whether to try it with this block."""
        if self._pause:
            self._pause -= 1
            return False
        return True

    def won(self) -> None:
        """All rows were new."""
        self._next = 1

    def lost(self) -> None:
        """A key existed: the next blocks are merged, twice as many each time."""
        self._pause = self._next
        self._next = min(LONGEST, 2 * self._next)


def copy_in(
    connection: psycopg.Connection[Any], begin: Sequence[bytes], statement: bytes, lines: bytes, end: bytes
) -> None:
    """A transaction of its own that copies these lines, in two network round trips. Raises `psycopg.Error`.

    psycopg's own `copy` takes a trip for each of these statements; at a hundred rows that is most of the time.
    """
    pgconn = connection.pgconn
    with connection.lock:
        pgconn.send_query(b";".join((*begin, statement, end)))
        _raise_refused(connection, connection.wait(generators.execute(pgconn)))
        if pgconn.put_copy_data(lines) == 0:  # libpq could not take it, and would commit nothing
            raise psycopg.OperationalError("no memory for a block")
        pgconn.put_copy_end()
        _raise_refused(connection, connection.wait(generators.execute(pgconn)))


def _raise_refused(connection: psycopg.Connection[Any], results: Sequence[Any]) -> None:
    for result in results:
        if result.status in REFUSED:
            raise errors.error_from_result(result, encoding=connection.info.encoding)
