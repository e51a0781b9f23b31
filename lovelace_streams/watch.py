"""What a worker shows of itself once a second: how far behind it is, what it holds, and for how long.

Counters are moved where things happen, once a list (`metrics`); what has to be looked up is looked up here, by the
clock, so that it costs the same at any rate. It is a service of the source: the gauges move on while a step waits.
"""

import time
from collections import deque
from collections.abc import Callable

from lovelace_streams import metrics
from lovelace_streams.offsets import Assignment, InHand

LOOK_SECONDS = 1.0


class Watch:
    """Keeps the gauges of one worker: lag a partition, items in hand, and how long the oldest has been there.

    `end_of(assignment)` answers the end of its partition as the last fetch told it, None where nothing was fetched yet.
    """

    def __init__(
        self,
        pipeline: str | None,
        in_hand: InHand,
        end_of: Callable[[Assignment], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline = pipeline
        self._in_hand = in_hand
        self._end_of = end_of
        self._clock = clock
        self._next = clock()
        self._read: dict[int, deque[tuple[int, float]]] = {}
        """Assignment → (everything below this offset, was read by this time), one for each look that found more."""
        self._lags: set[tuple[str, int]] = set()

    def serve(self, *, idle: bool, between: bool) -> None:  # noqa: ARG002
        """Look, if a second has passed since the last time."""
        now = self._clock()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            self.look(now)

    def unfinished(self) -> bool:
        """Nothing waits here."""
        return False

    def revoke(self, seconds: float) -> None:
        """The next look finds out."""

    def full(self) -> bool:
        """Nothing waits here."""
        return False

    def close(self) -> None:
        """Nothing to let go of."""

    def look(self, now: float) -> None:
        """Set the gauges."""
        current = self._in_hand.current
        self._show_lags(current)
        metrics.PENDING.labels(self._pipeline).set(sum(a.pending for a in current.values()))
        self._read = {number: self._read.get(number, deque()) for number in current}
        ages = [self._age(assignment, now) for assignment in current.values()]
        metrics.OLDEST.labels(self._pipeline).set(max(ages, default=0.0))

    def _show_lags(self, current: dict[int, Assignment]) -> None:
        ends = {(a.topic, a.partition): (self._end_of(a), a.next) for a in current.values()}
        lags = {place: max(0, end - read) for place, (end, read) in ends.items() if end is not None}
        for place in self._lags - lags.keys():
            metrics.LAG.remove(self._pipeline, *place)
        for place, lag in lags.items():
            metrics.LAG.labels(self._pipeline, *place).set(lag)
        self._lags = set(lags)

    def _age(self, assignment: Assignment, now: float) -> float:
        """How long the oldest record has been in hand, to within one look; 0 where nothing is."""
        read = self._read[assignment.number]
        if not read or read[-1][0] < assignment.next:
            read.append((assignment.next, now))
        oldest = next(iter(assignment.in_hand), assignment.next)  # records come in hand in the order of their offsets
        while read and read[0][0] <= oldest:
            read.popleft()
        return now - read[0][1] if read else 0.0
