"""Report settled ranges to the progress service; what it has accepted may be committed (law 3).

A worker has one request in flight, sent by a thread with its own clock, so that a range leaves within 100 ms after it
was settled, also if nothing more is read. Ranges that settle meanwhile go with the next request, which starts
`REQUEST_INTERVAL_SECONDS` after this one. The service keeps a set of offsets, so a request is repeated until it is
accepted.

    take, serve ─▶ queue ─▶ the thread: gather, send, split or send again ─▶ answers ─▶ serve ─▶ InFlight.accept
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from enum import Enum

import msgspec
import structlog

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.observability.outages import OutageLog
from lovelace_streams.records import JobState, Settled
from lovelace_streams.reporting.client import TOO_LARGE, UNPROCESSABLE, ProgressClient
from lovelace_streams.reporting.requests import (
    RANGES_MAX,
    Answer,
    Report,
    answer_of,
    group_by_size,
    request_of,
    split_in_half,
)
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.runtime.offsets import Offsets
from lovelace_streams.runtime.ranges import Range
from lovelace_streams.runtime.service import Service
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import ProgressSettings

log = structlog.get_logger(__name__)

REQUEST_INTERVAL_SECONDS = 0.09
"""From the start of a request to the start of the next: ranges that settle in between go together. The first after a
silence leaves at once. A request costs 0.7 ms of the worker's CPU by httpx (0.15 by http.client; median of 300, 2 kB)
and several of the service's, so their number is kept as low as the 100 ms allow."""
STATES_MAX = 1000
"""How many states are kept until the step's next call takes them."""


class Unanswered(Enum):
    """Why a request was not accepted."""

    TRY_AGAIN = "try again"
    TOO_LARGE = "too large"


class Cover(msgspec.Struct):
    """The covered offsets of a topic: partition → ranges, both ends inclusive."""

    partitions: dict[int, list[tuple[int, int]]]


class Committer(Service):
    """The end of a flow without a progress service: settled ranges may be committed at once."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def take(self, settled: Iterable[Settled]) -> list[JobState]:
        """Settle items; returns no states."""
        for items in settled:
            self._context.settle(items)
        return []

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Add settled ranges to the covered offsets; the worker commits them."""
        for assignment, ranges in self._context.in_flight.take_ranges():
            self._context.in_flight.accept(assignment.number, ranges)

    def revoke(self, seconds: float) -> None:  # noqa: ARG002
        """Add settled ranges to the covered offsets, before the partition is given up."""
        self.serve(idle=False, between_windows=False)


class WithoutService(Committer):
    """The end of a flow that would report and has no progress service: it commits, and says so once a minute."""

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        self._missing = OutageLog(log, "no progress service, so no job is counted")

    def serve(self, *, idle: bool, between_windows: bool) -> None:
        """Add settled ranges to the covered offsets, and say what is missing."""
        super().serve(idle=idle, between_windows=between_windows)
        self._missing.away(
            "PROGRESS_API_URL is not set: set it (`lovelace api` serves it, and `lovelace up --api` beside the local "
            "servers), or end the flow in `commit`"
        )


class Reporter(Service):
    """Sends ranges in a background thread; everything but the sending happens in the worker's thread."""

    def __init__(
        self, context: WorkerContext, settings: ProgressSettings, interval: float = REQUEST_INTERVAL_SECONDS
    ) -> None:
        self._settings = settings
        self._interval = interval
        self._context = context
        self.client = ProgressClient(settings)
        self._outage = OutageLog(log, "waiting for the progress service", url=self.client.url)
        """Of the background thread alone."""
        self._queue: deque[Report] = deque()
        self._answers: deque[tuple[list[Report], list[JobState]]] = deque()
        self._fault: DeploymentFault | None = None
        self._changed = threading.Condition()
        self._queued_ranges = 0
        self._takes_sums = True
        self._saw_duplicates = False
        """Whether the service knew some of the offsets reported last: sums are for new offsets only."""
        self._in_flight = False
        self._request_began_at = float("-inf")
        self._flush_now = False
        """Whether the next request is sent at once, because partitions are given up or the worker ends."""
        self._ended = False
        self._states: list[JobState] = []
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def take(self, settled: Iterable[Settled]) -> list[JobState]:
        """Settle items and queue their ranges at once; returns the states answered since the last call."""
        for items in settled:
            self._context.settle(items)
        self._enqueue()
        states, self._states = self._states, []
        return states

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Queue ready ranges, take the answers."""
        self._check_settings()
        self._enqueue()
        if self._context.ending and not self._flush_now:
            self._flush()
        self._accept()
        metrics.UNREPORTED.labels(self._context.pipeline).set(self._context.in_flight.unaccepted)

    def unfinished(self) -> bool:
        """Whether reports are not answered yet."""
        return bool(self._queue or self._in_flight or self._answers)

    def revoke(self, seconds: float) -> None:
        """Wait until settled ranges are accepted, before the partition is given up."""
        self._enqueue()
        self._flush()
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not (self._queue or self._in_flight), timeout=seconds)
            self._flush_now = False
        self._accept()

    def close(self) -> None:
        """End the thread; the next owner reads and reports again what was not accepted."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self.client.close()

    def cover(self, topic_id: str) -> dict[int, Offsets]:
        """Ask for a topic's covered offsets: partition → offsets; empty if the ledger is away.

        They are needed where nothing was committed (`kafka.start_offsets`).
        """
        try:
            cover = self.client.get(f"/progress/{self._context.pipeline}/{topic_id}", kind=Cover)
        except (DestinationFault, DeploymentFault) as fault:
            log.warning("the ledger can't be asked for a start; beginning at the earliest", error=str(fault))
            return {}
        return {partition: Offsets(ranges) for partition, ranges in cover.partitions.items()}

    def _check_settings(self) -> None:
        try:
            self._settings.check()
        except DeploymentFault as fault:
            self._context.note(fault)

    # -- the worker's thread --------------------------------------------------------------------------------------

    def _enqueue(self) -> None:
        if not (taken := self._context.in_flight.take_ranges()):
            return
        with self._changed:
            thread_knows = bool(self._queue)  # it sends queued reports when their time comes
            for assignment, ranges in taken:
                for start in range(0, len(ranges), RANGES_MAX):
                    self._queue.append(_report(assignment, ranges[start : start + RANGES_MAX]))
                self._queued_ranges += len(ranges)
            if self._thread.ident is None and not self._ended:  # a thread that has ended has noted why
                self._thread.start()
            if not thread_knows or self._queued_ranges >= RANGES_MAX:
                self._changed.notify_all()

    def _flush(self) -> None:
        with self._changed:
            self._flush_now = True
            self._changed.notify_all()

    def _accept(self) -> None:
        while self._answers:
            reports, states = self._answers.popleft()
            for report in reports:
                self._context.in_flight.accept(report.number, report.ranges)
            self._states = [*self._states[-STATES_MAX:], *states]
            self._context.notify_states(states)
        if self._fault is not None:
            self._context.note(self._fault)

    # -- the background thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while reports := self._next():
                self._deliver(reports)
                with self._changed:
                    self._in_flight = False
                    self._changed.notify_all()
        except _StoppedError:
            pass
        except Exception as error:  # noqa: BLE001 - if the thread ended silently, the worker would wait for ever
            text = f"reporting to {self.client.url} ended by {type(error).__name__}: a bug, please tell us"
            self._fault = DeploymentFault(text)

    def _next(self) -> list[Report]:
        """Wait for queued reports; gather as many as one request takes."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            left = self._request_began_at + self._interval - time.monotonic()
            self._changed.wait_for(self._is_due, timeout=left)
            if self._ended:
                return []
            self._request_began_at = time.monotonic()
            gathered: list[Report] = []
            ranges_left = RANGES_MAX
            while self._queue and len(self._queue[0].ranges) <= ranges_left:
                ranges_left -= len(self._queue[0].ranges)
                gathered.append(self._queue.popleft())
            self._queued_ranges -= RANGES_MAX - ranges_left
            self._in_flight = True
            return gathered

    def _is_due(self) -> bool:
        """Whether a request is sent before the interval is over."""
        return self._flush_now or self._ended or self._queued_ranges >= RANGES_MAX

    def _deliver(self, reports: list[Report], *, allow_sums: bool = True) -> None:
        """Send reports until they are accepted, however long that takes; in halves if the service finds them too large.

        Reports that overlap covered offsets are sent again as ranges. While the service reports known offsets, ranges
        are sent first.
        """
        answer = self._answer(reports, allow_sums=allow_sums and not self._saw_duplicates)
        if answer is Unanswered.TOO_LARGE:
            for half in split_in_half(reports):
                self._deliver(half, allow_sums=allow_sums)
            return
        assert isinstance(answer, Answer)
        self._saw_duplicates = bool(answer.known or answer.overlaps)
        overlapping = [report for report in reports if answer.overlaps_with(report)]
        accepted = [report for report in reports if not answer.overlaps_with(report)] if overlapping else reports
        self._answers.append((accepted, answer.jobs))
        for group in group_by_size(overlapping, RANGES_MAX):
            self._deliver(group, allow_sums=False)

    def _answer(self, reports: list[Report], *, allow_sums: bool) -> Answer | Unanswered:
        """Repeat a request until the service answers it. Raises `_StoppedError` when the worker ends."""
        backoff, failures = Backoff(0.1, 5.0), 0
        while (answer := self._post(reports, allow_sums=allow_sums)) is Unanswered.TRY_AGAIN:
            if self._fault is not None or self._ended:
                raise _StoppedError
            failures += 1
            with self._changed:
                self._changed.wait_for(lambda: self._ended, timeout=backoff.seconds(failures))
        return answer

    def _post(self, reports: list[Report], *, allow_sums: bool) -> Answer | Unanswered:
        """Send one request and judge its answer; a refusal that waiting does not change is noted as a fault."""
        body, has_sums = request_of(self._context.pipeline, reports, allow_sums=allow_sums and self._takes_sums)
        ranges = sum(len(report.ranges) for report in reports)
        try:
            with tracing.request("report", (report.window for report in reports), ranges=ranges) as span:
                response = self.client.send("POST", "/progress", body=body, headers=span.headers)
                span.set(status=response.status)
            self.client.judge(response)
        except DestinationFault as fault:
            self._outage.away(fault)
            return Unanswered.TRY_AGAIN
        except DeploymentFault as fault:
            self._fault = fault
            return Unanswered.TRY_AGAIN
        if response.status == TOO_LARGE and ranges > 1:
            return Unanswered.TOO_LARGE
        if response.status == UNPROCESSABLE and has_sums:
            log.warning("the progress service takes no sums, an older one: sending ranges", url=self.client.url)
            self._takes_sums = False
            return self._post(reports, allow_sums=False)
        if response.status in {UNPROCESSABLE, TOO_LARGE}:
            self._fault = self._refused(reports, response.status)
        elif response.is_success and (accepted := answer_of(response.body)) is not None:
            self._outage.back()
            return accepted
        else:
            self._outage.away(f"it answers {response.status}, which is no answer of the progress service")
        return Unanswered.TRY_AGAIN

    def _refused(self, reports: list[Report], status: int) -> DeploymentFault:
        spans = ", ".join(f"{r.topic}-{r.partition}:{r.ranges[0].first}…{r.ranges[-1].last}" for r in reports)
        return DeploymentFault(
            f"the progress service {self.client.url} answers {status} to a report of {spans}: a bug, please tell us"
        )


class _StoppedError(Exception):
    """The worker ends, or has a fault."""


def _report(assignment: Assignment, ranges: list[Range]) -> Report:
    window = tracing.context(assignment.number, ranges[-1].last)
    return Report(assignment.number, assignment.topic, assignment.topic_id, assignment.partition, ranges, window)
