"""Whose fault, and then what: waiting for a destination, and finding the record that harms it (law 5).

Two machines without I/O, clock or engine of their own (all of it is handed in), so that a table-driven simulator can
hold them to one rule: *an outage gives no dead letter, a bad record stops nobody.*

- `Breaker`: what to show while a destination is waited for. In one thread that waits anyway, a breaker is the retry
  loop plus a gauge; it is not a second mechanism.
- `BlockRetry`: writes a block until it is written, given up, or shown to hold a record that harms the destination.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.writers import Entry, Refusal, RowResult

FAILURES_BEFORE_DOUBT = 5
"""How often a block fails before one of its rows is suspected."""
TRIES_ALONE = 3
"""How often a row fails alone, with others being writable in between, before it is dead-lettered."""
AT_ONCE = 3
"""How often a deadlock or a serialization failure, ordinary between transactions, is tried again without waiting."""


def may_be_one_rows_fault(code: str) -> bool:
    """Codes that one record can cause as well as an outage: a timeout, memory, an internal error, a lost connection.

    >>> list(map(may_be_one_rows_fault, ("57014", "53200", "XX000", "08006", "timeout")))
    [True, True, True, True, True]
    >>> list(map(may_be_one_rows_fault, ("53100", "57P01", "25006")))
    [False, False, False]

    Of ClickHouse's: TIMEOUT_EXCEEDED, MEMORY_LIMIT_EXCEEDED, LOGICAL_ERROR.

    >>> [may_be_one_rows_fault(code) for code in ("159", "241", "49", "252", "243")]
    [True, True, True, False, False]
    """
    return code in {"57014", "53200", "timeout", "159", "241", "49"} or code.startswith(("XX", "08"))


class Breaker(StrEnum):
    """What the gauge shows: calls go through; nobody calls; one call is being tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BlockRetry:
    """Writes blocks through `call`, waiting out the destination's faults through `wait`.

    `wait(seconds)` answers False when there is no sense in waiting on (drain, the assignment ended): the block is then
    given up and `write` answers None; nothing is known of its rows, which are read and written again. `probe(entries)`
    tells whether one of these rows, or else one written before, could be written now; None where there is neither.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Entry]], list[RowResult]],
        probe: Callable[[Sequence[Entry]], bool | None],
        wait: Callable[[float], bool],
        backoff: Backoff | None = None,
        on_fault: Callable[[DestinationFault, int], None] = lambda _fault, _failures: None,
    ) -> None:
        self._call = call
        self._probe = probe
        self._wait = wait
        self._backoff = backoff or Backoff()
        self._on_fault = on_fault
        self.breaker = Breaker.CLOSED
        self.inconclusive = False
        """Whether a suspected block has no neighbour that could tell an outage from a harmful row."""

    def write(self, block: Sequence[Entry], others: Sequence[Entry] = ()) -> list[RowResult] | None:
        """Results of a block, in its order; None where it was given up. Raises `DeploymentFault`.

        `others` are rows of the same table that may serve as the neighbour that can still be written.
        """
        failures = 0
        self.inconclusive = False
        while True:
            try:
                results = self._promptly(block)
            except DestinationFault as fault:
                failures += 1
                self._on_fault(fault, failures)
                if failures >= FAILURES_BEFORE_DOUBT and may_be_one_rows_fault(fault.code):
                    isolated = self._isolate(block, others)
                    if isolated is not None:
                        self.breaker = Breaker.CLOSED
                        return isolated
                self.breaker = Breaker.OPEN
                if not self._wait(self._backoff.seconds(failures)):
                    return None
                self.breaker = Breaker.HALF_OPEN
            else:
                self.breaker = Breaker.CLOSED
                return results

    def _promptly(self, block: Sequence[Entry]) -> list[RowResult]:
        """One call, with deadlocks and serialization failures tried again at once."""
        for _ in range(AT_ONCE):
            try:
                return self._call(block)
            except DestinationFault as fault:
                if fault.code not in DestinationFault.at_once:
                    raise
        return self._call(block)

    def _isolate(self, block: Sequence[Entry], others: Sequence[Entry]) -> list[RowResult] | None:
        """Write a suspected block in halves, in order; None as soon as it looks like an outage after all."""
        middle = _middle(block)
        if middle is None:
            return self._alone(block, others)
        results: list[RowResult] = []
        for part, rest in ((block[:middle], block[middle:]), (block[middle:], block[:middle])):
            neighbours = [*rest, *others]
            try:
                done: list[RowResult] | None = self._promptly(part)
            except DestinationFault as fault:
                if not may_be_one_rows_fault(fault.code):
                    return None
                done = self._isolate(part, neighbours)
            if done is None:
                return None
            results += done
        return results

    def _alone(self, row: Sequence[Entry], others: Sequence[Entry]) -> list[RowResult] | None:
        """A row that fails each time, with a neighbour that could be written before and after each, harms."""
        code = ""
        for _ in range(TRIES_ALONE):
            accepted = self._probe(others)
            self.inconclusive = accepted is None
            if not accepted:
                return None
            try:
                return self._promptly(row)
            except DestinationFault as fault:
                if not may_be_one_rows_fault(fault.code):
                    return None
                code = fault.code
        if not self._probe(others):
            return None
        return [Refusal(Reason.HARMS_DESTINATION, code)] * len(row)


def _middle(block: Sequence[Entry]) -> int | None:
    """Where the item nearest to the middle begins; None where all is one item."""
    starts = [at for at in range(1, len(block)) if not block[at].same_item]
    return min(starts, key=lambda at: abs(at - len(block) // 2), default=None)
