"""Whose fault, and then what: waiting for a destination, and finding the row that harms it (law 5).

No I/O, clock or engine here (all of it is handed in), so that a table-driven simulator can hold it to one rule: *an
outage gives no dead letter, a bad record stops nobody.*

A block fails ─▶ wait and write it again ─▶ after five failures, if the code may be one row's fault: bisect it. A single
item that fails three times, while another row can be written before and after each try, is refused. If no other row can
be written it is an outage: wait on. If there is no other row, nothing is known (`inconclusive`): the caller parks the
block until there is one.

In one thread that waits anyway, a breaker is the retry loop plus a gauge; it is not a second mechanism.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.writers import Entry, Refusal, RowResult

FAILURES_BEFORE_DOUBT = 5
"""How often a block fails before it is bisected for a harmful row."""
SINGLE_ITEM_TRIES = 3
"""How often an item fails alone, while another row can be written in between, before it is dead-lettered."""
IMMEDIATE_RETRIES = 3
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

    `wait(seconds)` answers False when waiting on makes no sense (a drain, an assignment that ended). Then `write` gives
    the block up and answers None: nothing is known of its rows, which are read and written again. `probe(rows)` tells
    whether one of these rows, or else one written before, could be written now; None where there is neither.
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
        """Whether no other row was there to tell an outage from a harmful row."""

    def write(self, block: Sequence[Entry], probe_rows: Sequence[Entry] = ()) -> list[RowResult] | None:
        """Write a block; its results in order, None where it was given up. Raises `DeploymentFault`.

        `probe_rows` are rows of the same table that may serve to test the destination with.
        """
        failures = 0
        self.inconclusive = False
        while True:
            try:
                results: list[RowResult] | None = self._call_with_immediate_retries(block)
            except DestinationFault as fault:
                failures += 1
                self._on_fault(fault, failures)
                suspected = failures >= FAILURES_BEFORE_DOUBT and may_be_one_rows_fault(fault.code)
                results = self._bisect(block, probe_rows) if suspected else None
            if results is not None:
                self.breaker = Breaker.CLOSED
                return results
            self.breaker = Breaker.OPEN
            if not self._wait(self._backoff.seconds(failures)):
                return None
            self.breaker = Breaker.HALF_OPEN

    def _call_with_immediate_retries(self, block: Sequence[Entry]) -> list[RowResult]:
        """Call once, and again at once after a deadlock or a serialization failure."""
        for _ in range(IMMEDIATE_RETRIES):
            try:
                return self._call(block)
            except DestinationFault as fault:
                if fault.code not in DestinationFault.at_once:
                    raise
        return self._call(block)

    def _bisect(self, block: Sequence[Entry], probe_rows: Sequence[Entry]) -> list[RowResult] | None:
        """Write a suspected block in halves, in order; None as soon as it looks like an outage after all."""
        middle = _middle(block)
        if middle is None:
            return self._judge_single_item(block, probe_rows)
        results: list[RowResult] = []
        for half, rest in ((block[:middle], block[middle:]), (block[middle:], block[:middle])):
            try:
                done: list[RowResult] | None = self._call_with_immediate_retries(half)
            except DestinationFault as fault:
                if not may_be_one_rows_fault(fault.code):
                    return None
                done = self._bisect(half, [*rest, *probe_rows])
            if done is None:
                return None
            results += done
        return results

    def _judge_single_item(self, item: Sequence[Entry], probe_rows: Sequence[Entry]) -> list[RowResult] | None:
        """Refuse an item that fails each time, while another row can be written before and after each; else None."""
        code = ""
        for _ in range(SINGLE_ITEM_TRIES):
            accepted = self._probe(probe_rows)
            self.inconclusive = accepted is None
            if not accepted:
                return None
            try:
                return self._call_with_immediate_retries(item)
            except DestinationFault as fault:
                if not may_be_one_rows_fault(fault.code):
                    return None
                code = fault.code
        if not self._probe(probe_rows):
            return None
        return [Refusal(Reason.HARMS_DESTINATION, code)] * len(item)


def _middle(block: Sequence[Entry]) -> int | None:
    """Where the item nearest to the middle begins; None where all is one item."""
    starts = [index for index in range(1, len(block)) if not block[index].same_item]
    return min(starts, key=lambda index: abs(index - len(block) // 2), default=None)
