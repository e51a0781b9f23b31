"""COPY a block straight into the table, in the expectation that its keys are new: merging can't be as fast.

COPY knows no ON CONFLICT: one key that exists refuses the whole block, and so does one row that breaks a rule. Such a
refusal is never a verdict (law 5): nothing was written, and the writer goes on with its next way. `python -m benchmarks
members` shows the gain: *database, copy* beside *database, merge*.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import generators
from psycopg.abc import PQGen

from lovelace_streams.writers.postgres.trip import raise_refused

PAUSE_BLOCKS_MAX = 64
"""Blocks without a COPY after one that failed, at most: where all keys exist, one block in 65 costs a COPY in vain."""


class CopyHeuristic:
    """Predicts whether a block's keys are new from what the last blocks were.

    >>> heuristic = CopyHeuristic()
    >>> heuristic.should_try(), heuristic.failed(), heuristic.should_try(), heuristic.should_try()
    (True, None, False, True)
    >>> heuristic.failed(), [heuristic.should_try() for _ in range(3)]
    (None, [False, False, True])
    """

    def __init__(self) -> None:
        self._pause_blocks = 0
        self._next_pause_blocks = 1
        self.is_usual = True
        """Whether the last block was copied: then the next one's rows are encoded as lines, and as nothing else."""

    @property
    def is_likely(self) -> bool:
        """The next answer of `should_try`."""
        return self._pause_blocks == 0

    def should_try(self) -> bool:
        """Whether to try COPY with this block; count it as one block of the pause if not."""
        if self._pause_blocks:
            self._pause_blocks -= 1
            return False
        return True

    def succeeded(self) -> None:
        """Note that all keys were new."""
        self.is_usual = True
        self._next_pause_blocks = 1

    def failed(self) -> None:
        """Note that a key existed: pause twice as long as the last time."""
        self.is_usual = False
        self._pause_blocks = self._next_pause_blocks
        self._next_pause_blocks = min(PAUSE_BLOCKS_MAX, 2 * self._next_pause_blocks)


def copy_in(
    connection: psycopg.Connection[Any], begin: Sequence[bytes], statement: bytes, lines: bytes, end: bytes
) -> PQGen[int]:
    """Copy these lines in a transaction of their own, in two network round trips; return how many rows were written.

    The server does not count a row for which a trigger returned nothing. Raises `psycopg.Error`.

    psycopg's own `copy` takes a round trip for each of these statements, which is most of the time at a hundred rows.
    """
    pgconn = connection.pgconn
    pgconn.send_query(b";".join((*begin, statement, end)))
    raise_refused(connection, (yield from generators.execute(pgconn)))
    if pgconn.put_copy_data(lines) == 0:  # libpq could not take it, and would commit nothing
        raise psycopg.OperationalError("no memory for a block")
    pgconn.put_copy_end()
    results = yield from generators.execute(pgconn)
    raise_refused(connection, results)
    return next(int(result.command_tuples or 0) for result in results if (result.command_status or b"")[:4] == b"COPY")
