"""Whose fault, and then what: waiting for a destination, finding the record that harms it, and failing fast (law 5).

Three machines without I/O, clock or engine of their own (all of it is handed in), so that a table-driven simulator can
hold them to one rule: *an outage gives no dead letter, a bad record stops nobody.*

- `Backoff` and `Breaker`: how long to wait, and what to show meanwhile. In one thread that waits anyway, a breaker is
  the retry loop plus a gauge; it is not a second mechanism.
- `Patience`: writes a block until it is written, given up, or shown to hold a record that harms the destination.
- `FailFast`: which dead letters may go, and when a thousand in a row mean that the deployment is wrong.
"""

import random
from collections.abc import Callable, Hashable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar

from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.writers import Entry, Refusal, Result

FAILURES_BEFORE_DOUBT = 5
"""How often a block fails before one of its rows is suspected."""
TRIES_ALONE = 3
"""How often a row fails alone, with others being writable in between, before it is dead-lettered."""
AT_ONCE = 3
"""How often a deadlock or a serialization failure, ordinary between transactions, is tried again without waiting."""


def harmful(code: str) -> bool:
    """Codes that one record can cause as well as an outage: a timeout, memory, an internal error, a lost connection.

    >>> [harmful(code) for code in ("57014", "53200", "XX000", "08006", "timeout", "53100", "57P01", "25006")]
    [True, True, True, True, True, False, False, False]

    Of ClickHouse's: TIMEOUT_EXCEEDED, MEMORY_LIMIT_EXCEEDED, LOGICAL_ERROR.

    >>> [harmful(code) for code in ("159", "241", "49", "252", "243")]
    [True, True, True, False, False]
    """
    return code in {"57014", "53200", "timeout", "159", "241", "49"} or code.startswith(("XX", "08"))


class Backoff:
    """Exponential with full jitter, in seconds: between half and all of `first * 2**n`, at most `longest`.

    Source of the jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("equal jitter").
    """

    def __init__(self, first: float = 0.1, longest: float = 10.0, chance: Callable[[], float] = random.random) -> None:
        self.first = first
        self.longest = longest
        self._chance = chance

    def seconds(self, failures: int) -> float:
        """How long to wait after this many failures in a row (from 1)."""
        full = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return full * (0.5 + self._chance() / 2)


class Breaker(StrEnum):
    """What the gauge shows: calls go through; nobody calls; one call is being tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Patience:
    """Writes blocks through `call`, waiting out the destination's faults through `wait`.

    `wait(seconds)` answers False when there is no sense in waiting on (drain, the assignment ended): the block is then
    given up and `write` answers None; nothing is known of its rows, which are read and written again. `probe(entries)`
    tells whether one of these rows, or else one written before, could be written now; None where there is neither.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Entry]], list[Result]],
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
        self.lonely = False
        """Whether a suspected block has no neighbour that could tell an outage from a harmful row."""

    def write(self, block: Sequence[Entry], others: Sequence[Entry] = ()) -> list[Result] | None:
        """Results of a block, in its order; None where it was given up. Raises `DeploymentFault`.

        `others` are rows of the same table that may serve as the neighbour that can still be written.
        """
        failures = 0
        self.lonely = False
        while True:
            try:
                results = self._promptly(block)
            except DestinationFault as fault:
                failures += 1
                self._on_fault(fault, failures)
                if failures >= FAILURES_BEFORE_DOUBT and harmful(fault.code):
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

    def _promptly(self, block: Sequence[Entry]) -> list[Result]:
        """One call, with deadlocks and serialization failures tried again at once."""
        for _ in range(AT_ONCE):
            try:
                return self._call(block)
            except DestinationFault as fault:
                if fault.code not in DestinationFault.at_once:
                    raise
        return self._call(block)

    def _isolate(self, block: Sequence[Entry], others: Sequence[Entry]) -> list[Result] | None:
        """Write a suspected block in halves, in order; None as soon as it looks like an outage after all."""
        middle = _middle(block)
        if middle is None:
            return self._alone(block, others)
        results: list[Result] = []
        for part, rest in ((block[:middle], block[middle:]), (block[middle:], block[:middle])):
            neighbours = [*rest, *others]
            try:
                done: list[Result] | None = self._promptly(part)
            except DestinationFault as fault:
                if not harmful(fault.code):
                    return None
                done = self._isolate(part, neighbours)
            if done is None:
                return None
            results += done
        return results

    def _alone(self, row: Sequence[Entry], others: Sequence[Entry]) -> list[Result] | None:
        """A row that fails each time, with a neighbour that could be written before and after each, harms."""
        code = ""
        for _ in range(TRIES_ALONE):
            accepted = self._probe(others)
            self.lonely = accepted is None
            if not accepted:
                return None
            try:
                return self._promptly(row)
            except DestinationFault as fault:
                if not harmful(fault.code):
                    return None
                code = fault.code
        if not self._probe(others):
            return None
        return [Refusal(Reason.HARMS_DESTINATION, code)] * len(row)


def _middle(block: Sequence[Entry]) -> int | None:
    """Where the item nearest to the middle begins; None where all is one item."""
    starts = [at for at in range(1, len(block)) if not block[at].joined]
    return min(starts, key=lambda at: abs(at - len(block) // 2), default=None)


L = TypeVar("L")
"""A held letter: whatever the caller wants back."""

ROW = 1000
"""This many items refused in a row for one reason mean that the deployment is wrong."""
MESSAGES = 100
"""From at least this many messages: one chunk does not trip it."""
HELD_BYTES = 64 * 1024 * 1024


class FailFast(Generic[L]):
    """Holds dead letters back until it is clear that they are not the deployment's fault (law 5).

    Letters of a step wait until an item has passed that step after them, or the source found nothing to read for one
    poll; a thousand items or 64 MiB wait at most. `trip` names the (step, code, rule) by which a thousand in a row,
    from at least a hundred messages, were refused: by the destination, or by decode or normalize over two jobs or more.
    """

    def __init__(self, destination: frozenset[str], accepted: frozenset[str] = frozenset()) -> None:
        self._destination = destination
        self._accepted = accepted
        self._held: dict[str, _Held[L]] = {}
        self._rows: dict[str, _Row] = {}
        self._released: list[L] = []

    @property
    def held(self) -> int:
        """Letters that wait."""
        return sum(len(held.letters) for held in self._held.values())

    @property
    def steps(self) -> set[str]:
        """Steps that refused something which is not forgiven yet."""
        return {*self._held, *self._rows}

    def refused(
        self, letter: L, *, step: str, cause: tuple[str, ...], message: Hashable, job: str | None, items: int, size: int
    ) -> tuple[str, ...] | None:
        """Hold a letter; answers its cause (step first) when the row of refusals has become too long.

        `cause` is (reason, code, rule); `size` the bytes it keeps in memory.
        """
        row = self._rows.get(step)
        if row is None or row.cause != cause:
            row = self._rows[step] = _Row(cause)
        row.add(message, job, items)
        held = self._held.setdefault(step, _Held())
        held.add(letter, items, size)
        if row.too_long(by_destination=step in self._destination) and cause[0] not in self._accepted:
            return (step, *cause)
        if held.items > ROW or held.size > HELD_BYTES:
            self._release(step, keep_row=True)
        return None

    def passed(self, step: str) -> None:
        """An item passed this step: what was refused before it is the records' own fault."""
        self._rows.pop(step, None)
        self._release(step, keep_row=False)

    def idle(self) -> None:
        """The source found nothing to read for one poll."""
        for step in list(self._held):
            self._release(step, keep_row=True)

    def take(self) -> list[L]:
        """Letters that may go now; each is handed out once."""
        taken, self._released = self._released, []
        return taken

    def drop(self, gone: Callable[[L], bool]) -> None:
        """Forget letters of assignments that have ended."""
        for held in self._held.values():
            held.drop(gone)
        self._released = [letter for letter in self._released if not gone(letter)]

    def _release(self, step: str, *, keep_row: bool) -> None:
        if step in self._held:
            self._released += [letter for letter, _, _ in self._held.pop(step).letters]
        if not keep_row:
            self._rows.pop(step, None)


class _Held(Generic[L]):
    """Letters of a step that wait, with how many items they are and what they keep in memory."""

    def __init__(self) -> None:
        self.letters: list[tuple[L, int, int]] = []
        self.items = self.size = 0

    def add(self, letter: L, items: int, size: int) -> None:
        self.letters.append((letter, items, size))
        self.items += items
        self.size += size

    def drop(self, gone: Callable[[L], bool]) -> None:
        letters, self.letters = self.letters, []
        self.items = self.size = 0
        for letter, items, size in letters:
            if not gone(letter):
                self.add(letter, items, size)


class _Row:
    """Refusals in a row for one cause."""

    def __init__(self, cause: tuple[str, ...]) -> None:
        self.cause = cause
        self.items = 0
        self.messages: set[Hashable] = set()
        self.jobs: set[str | None] = set()

    def add(self, message: Hashable, job: str | None, items: int) -> None:
        self.items += items
        if len(self.messages) <= MESSAGES:
            self.messages.add(message)
        self.jobs.add(job) if len(self.jobs) < 2 else None  # noqa: PLR2004 - two jobs are what is asked for

    def too_long(self, *, by_destination: bool) -> bool:
        jobs = 1 if by_destination else 2
        return self.items >= ROW and len(self.messages) >= MESSAGES and len(self.jobs) >= jobs
