"""The gauges of a worker, once a second: how far behind it is, what is in flight, and for how long.

The steps increment the counters, once per list (`observability.metrics`). Gauges are computed here once a second, so
their cost does not grow with throughput. `WorkerGauges` is a service of the worker, so it also runs while a step waits.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from prometheus_client import Gauge

from lovelace_streams.columns import Chunk
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.in_flight import Assignment, InFlight
from lovelace_streams.runtime.service import Service

LOOK_SECONDS = 1.0


class PartitionStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a partition is read: up to `position`, of `end`; `pending` items are in flight.

    `waiting_for` is what a step waits for, if it does; left out otherwise, which older services know nothing of.
    """

    topic: str
    topic_id: str
    partition: int
    position: int
    end: int | None
    pending: int
    oldest_unsettled_ms: int
    waiting_for: str = ""


class WorkerGauges(Service):
    """Keeps the gauges of one worker: end, lag, items in flight and their age, by partition and in total.

    `end_of(assignment)` gives the end of its partition as the broker told it last, None while it is unknown: then there
    is no lag, rather than one that may be wrong. `can_read()` tells whether anything keeps the worker from reading.
    """

    def __init__(
        self,
        pipeline: str | None,
        in_flight: InFlight,
        end_of: Callable[[Assignment], int | None],
        clock: Callable[[], float] = time.monotonic,
        can_read: Callable[[], bool] = lambda: True,
        waiting_for: Mapping[tuple[str, int], str] = MappingProxyType({}),
    ) -> None:
        self._pipeline = pipeline
        self._in_flight = in_flight
        self._end_of = end_of
        self._clock = clock
        self._can_read = can_read
        self._waiting_for = waiting_for
        self._next = clock()
        self._window: Sequence[Envelope[Any] | Chunk] = ()
        self._given_up = 0
        self._read: dict[int, deque[tuple[int, float]]] = {}
        """Assignment → (end of what was read, when it was read), one pair for each look that found more."""
        self._shown: set[tuple[Gauge, str, int]] = set()
        self.partition_statuses: list[PartitionStatus] = []
        """As of the last look; every look makes a new list."""

    def read(self, window: Sequence[Envelope[Any] | Chunk]) -> None:
        """Note a window; its items are counted when every step has seen them."""
        self._window = window
        tracing.window(self._pipeline, [part for part in window if not isinstance(part, Chunk)])  # with it: no chunks

    def alive(self) -> None:
        """Note that the worker's loop runs, also while the broker is away, and whether it can read."""
        metrics.ROUND.labels(self._pipeline).set_to_current_time()
        metrics.CAN_READ.labels(self._pipeline).set(self._can_read())

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Count the items of the last window; look, if a second has passed since the last look."""
        if between_windows:
            metrics.decoded(self._pipeline, self._window)
            self._window = ()
            tracing.settled(self._in_flight.holds)
        self.alive()
        now = self._clock()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            self.look(now)

    def close(self) -> None:
        """Send the last spans of the trace."""
        tracing.close()

    def look(self, now: float) -> None:
        """Set the gauges, and remove those of partitions whose assignment has ended."""
        current = self._in_flight.current
        self._read = {number: self._read.get(number, deque()) for number in current}
        shown: dict[tuple[Gauge, str, int], float] = {}
        statuses = []
        pending, oldest = 0, 0.0
        for a in current.values():
            items, age, end = a.pending, self._age(a, now), self._end_of(a)
            pending, oldest = pending + items, max(oldest, age)
            shown[metrics.PARTITION_PENDING, a.topic, a.partition] = items
            shown[metrics.PARTITION_OLDEST, a.topic, a.partition] = age
            if end is not None:
                shown[metrics.END, a.topic, a.partition] = end
                shown[metrics.LAG, a.topic, a.partition] = max(0, end - a.next)
            waiting = self._waiting_for.get((a.topic, a.partition), "")
            statuses.append(
                PartitionStatus(a.topic, a.topic_id, a.partition, a.next, end, items, int(1000 * age), waiting)
            )
        self.partition_statuses = statuses
        self._show(shown)
        metrics.PENDING.labels(self._pipeline).set(pending)
        metrics.OLDEST.labels(self._pipeline).set(oldest)
        metrics.GIVEN_UP_ITEMS.labels(self._pipeline).inc(self._in_flight.given_up - self._given_up)
        self._given_up = self._in_flight.given_up

    def _show(self, shown: dict[tuple[Gauge, str, int], float]) -> None:
        for gauge, *labels in self._shown - shown.keys():
            gauge.remove(self._pipeline, *labels)
        for (gauge, *labels), value in shown.items():
            gauge.labels(self._pipeline, *labels).set(value)
        self._shown = set(shown)

    def _age(self, assignment: Assignment, now: float) -> float:
        """Give the seconds that the oldest record has been in flight, to within one look; 0 if nothing is in flight."""
        read = self._read[assignment.number]
        if not read or read[-1][0] < assignment.next:
            read.append((assignment.next, now))
        oldest = assignment.oldest
        oldest = assignment.next if oldest is None else oldest
        while read and read[0][0] <= oldest:
            read.popleft()
        return now - read[0][1] if read else 0.0
