"""Wait for a destination that fails, and find the row that makes it fail (law 5).

No I/O, clock or engine here: the caller passes them in. So a table-driven simulator can test the one rule: *an outage
gives no dead letter, and a bad record stops no other.*

    a block fails ─▶ wait, write it again ─▶ five failures, and the code may be one row's fault ─▶ bisect it
    a single item fails three times ─┬─ another row could be written before and after each try ─▶ refuse the item
                                     ├─ no other row could be written: an outage ─▶ wait, write it again
                                     └─ there is no other row: `inconclusive` ─▶ the caller parks the block

In one thread that waits anyway, a breaker is the retry loop plus a gauge; it is not a second mechanism.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.writers import Entry, Refusal, RowOutcome, RowResult

FAILURES_BEFORE_DOUBT = 5
"""How often a block fails before it is bisected for a harmful row."""
SINGLE_ITEM_TRIES = 3
"""How often an item fails alone, while another row can be written in between, before it is refused."""
IMMEDIATE_RETRIES = 3
"""How often a deadlock or serialization failure is tried again without waiting: both are ordinary."""


def may_be_one_rows_fault(code: str) -> bool:
    """Whether one record can cause this code as an outage can: timeout, memory, internal error, lost connection.

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
    """What the gauge shows: blocks are written; the destination is waited for; a block is tried again."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BlockRetry:
    """Writes blocks by `call`, and waits out the destination's faults by `wait`.

    `wait(seconds)` returns False when the block must not wait any longer (a drain, an assignment that ended). Then
    `write` returns None: nothing is known of the block's rows, which are read and written again. `probe(rows)` returns
    whether one of these rows, or else a row written before, could be written now; None if there is no such row.
    `stored(item)` returns whether a failed item is written all the same, or raises `DestinationFault`.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Entry]], list[RowResult]],
        probe: Callable[[Sequence[Entry]], bool | None],
        wait: Callable[[float], bool],
        backoff: Backoff | None = None,
        on_fault: Callable[[DestinationFault, int], None] = lambda _fault, _failures: None,
        stored: Callable[[Sequence[Entry]], bool] = lambda _item: False,
    ) -> None:
        self._call = call
        self._probe = probe
        self._wait = wait
        self._backoff = backoff or Backoff()
        self._on_fault = on_fault
        self._stored = stored
        self.breaker = Breaker.CLOSED
        self.inconclusive = False
        """Whether the last block was given up because no other row was there to test the destination with."""

    def write(self, block: Sequence[Entry], probe_rows: Sequence[Entry] = ()) -> list[RowResult] | None:
        """Write a block; returns its results in order, None if it was given up. Raises `DeploymentFault`.

        `probe_rows` are rows of the same table that may be used to test the destination.
        """
        failures = 0
        self.inconclusive = False
        while True:
            try:
                results: list[RowResult] | None = self._call_with_immediate_retries(block)
            except DestinationFault as fault:
                failures += 1
                self._on_fault(fault, failures)
                suspected = fault.unproven or (failures >= FAILURES_BEFORE_DOUBT and _may_be_one_rows(fault))
                results = self._bisect(block, probe_rows) if suspected else None
            if results is not None:
                self.breaker = Breaker.CLOSED
                return results
            self.breaker = Breaker.OPEN
            if not self._wait(self._backoff.seconds(failures)):
                return None
            self.breaker = Breaker.HALF_OPEN

    def _call_with_immediate_retries(self, block: Sequence[Entry]) -> list[RowResult]:
        """Call, and again without waiting after a deadlock or a serialization failure."""
        for _ in range(IMMEDIATE_RETRIES):
            try:
                return self._call(block)
            except DestinationFault as fault:
                if fault.code not in DestinationFault.at_once:
                    raise
        return self._call(block)

    def _bisect(self, block: Sequence[Entry], probe_rows: Sequence[Entry]) -> list[RowResult] | None:
        """Write a suspected block in halves, in order; returns None as soon as it looks like an outage after all."""
        middle = _middle(block)
        if middle is None:
            return self._judge_single_item(block, probe_rows)
        results: list[RowResult] = []
        for half, rest in ((block[:middle], block[middle:]), (block[middle:], block[:middle])):
            try:
                part: list[RowResult] | None = self._call_with_immediate_retries(half)
            except DestinationFault as fault:
                if not _may_be_one_rows(fault):
                    return None
                part = self._bisect(half, [*rest, *probe_rows])
            if part is None:
                return None
            results += part
        return results

    def _judge_single_item(self, item: Sequence[Entry], probe_rows: Sequence[Entry]) -> list[RowResult] | None:
        """Refuse an item that fails each time while another row can be written before and after each try; else None."""
        code, unproven = "", False
        for _ in range(SINGLE_ITEM_TRIES):
            accepted = self._probe(probe_rows)
            self.inconclusive = accepted is None
            if not accepted:
                return None
            try:
                return self._call_with_immediate_retries(item)
            except DestinationFault as fault:
                if not _may_be_one_rows(fault):
                    return None
                code, unproven = fault.code, fault.unproven
        if not self._probe(probe_rows):
            return None
        return self._verdict(item, Reason.REFUSED if unproven else Reason.HARMS_DESTINATION, code)

    def _verdict(self, item: Sequence[Entry], reason: Reason, code: str) -> list[RowResult] | None:
        """Refuse an item, unless it is stored: then what came after it failed each time. None if that is not known."""
        try:
            if self._stored(item):
                return [RowOutcome.WRITTEN] * len(item)
        except DestinationFault:
            return None
        return [Refusal(reason, code)] * len(item)


def _may_be_one_rows(fault: DestinationFault) -> bool:
    return fault.unproven or may_be_one_rows_fault(fault.code)


def _middle(block: Sequence[Entry]) -> int | None:
    """Find the start of the item nearest to the middle; None if the block is one item."""
    starts = [index for index in range(1, len(block)) if not block[index].same_item]
    return min(starts, key=lambda index: abs(index - len(block) // 2), default=None)
