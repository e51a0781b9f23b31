"""Reports what is settled to the progress service, and lets commits follow what it has accepted.

One report is in flight a worker, from a thread with its own clock, so that a range leaves within 100 ms of being
settled whether or not anything more is read. What settles meanwhile goes with the next one, which begins
`REQUEST_INTERVAL_SECONDS` after this one. The service is idempotent (a set of offsets), so a report is repeated until
it is accepted.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable

import httpx
import msgspec
import structlog

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.records import JobState, Settled
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
from lovelace_streams.runtime.offsets import Offsets
from lovelace_streams.settings import ProgressSettings
from lovelace_streams.sources.kafka import KafkaSource

log = structlog.get_logger(__name__)


REQUEST_INTERVAL_SECONDS = 0.09
"""Seconds from the beginning of a request to that of the next: what settles in between goes together. The first after
a silence leaves at once. A request costs 0.7 ms of the worker's CPU by httpx (0.15 by http.client; median of 300, 2 kB)
and several of the service's, so their number is kept as low as the 100 ms allow."""
UNAUTHORIZED, FORBIDDEN, UNPROCESSABLE, TOO_LARGE = 401, 403, 422, 413


class Committer:
    """Without a progress service, what is settled is accounted for."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    def take(self, settled: Iterable[Settled]) -> list[JobState]:
        """Note what is durable."""
        for each in settled:
            self._source.settle(each)
        return []

    def serve(self, *, idle: bool, between: bool) -> None:  # noqa: ARG002
        """Extend the cover; the source commits."""
        for assignment, ranges in self._source.in_flight.take_ranges():
            self._source.in_flight.accept(assignment.number, ranges)

    def unfinished(self) -> bool:
        """Nothing waits here."""
        return False

    def revoke(self, seconds: float) -> None:  # noqa: ARG002
        """What is settled may be committed."""
        self.serve(idle=False, between=False)

    def full(self) -> bool:
        """What is not accepted yet is the source's to bound."""
        return False

    def close(self) -> None:
        """Nothing to let go of."""


class Reporter:
    """Sends ranges in the background and brings back what was accepted; all else happens in the source's thread."""

    def __init__(self, source: KafkaSource, settings: ProgressSettings, pace: float = REQUEST_INTERVAL_SECONDS) -> None:
        assert settings.url is not None
        self._settings = settings
        self._pace = pace
        self._source = source
        self._url = settings.url.rstrip("/")
        self.client = httpx.Client(
            headers={"authorization": f"Bearer {settings.token}"}, timeout=settings.timeout, trust_env=False
        )
        self._queue: deque[Report] = deque()
        self._answers: deque[tuple[list[Report], list[JobState]]] = deque()
        self._fault: DeploymentFault | None = None
        self._changed = threading.Condition()
        self._queued = 0
        """Ranges in the queue."""
        self._takes_sums = True
        self._fresh = True
        """Whether nothing was known already of what was reported last: sums are for what is new."""
        self._flight = 0
        self._began = float("-inf")
        """When the last request was begun."""
        self._hurry = False
        """Whether a report leaves at once, because partitions are given up or the worker ends."""
        self._ended = False
        self._states: list[JobState] = []
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def take(self, settled: Iterable[Settled]) -> list[JobState]:
        """Note what is durable and hand its ranges over at once; give the states that came back since."""
        for each in settled:
            self._source.settle(each)
        self._offer()
        states, self._states = self._states, []
        return states

    def serve(self, *, idle: bool, between: bool) -> None:  # noqa: ARG002
        """Hand over what is ready, take the answers."""
        self._check()
        self._offer()
        if self._source.ending and not self._hurry:
            self._hurry_up()
        self._accept()
        metrics.UNREPORTED.labels(self._source.pipeline).set(self._source.in_flight.unaccepted)

    def unfinished(self) -> bool:
        """Reports that are not answered yet."""
        return bool(self._queue or self._flight or self._answers)

    def revoke(self, seconds: float) -> None:
        """Have what is settled accepted before the partition goes."""
        self._offer()
        self._hurry_up()
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not (self._queue or self._flight), timeout=seconds)
            self._hurry = False
        self._accept()

    def full(self) -> bool:
        """What is not accepted yet is the source's to bound."""
        return False

    def close(self) -> None:
        """End the thread; what was not accepted is reported again by whoever reads it again."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self.client.close()

    def cover(self, topic_id: str) -> dict[int, Offsets]:
        """Partition → what the ledger has settled: asked at a start without committed offsets; empty if it is away."""
        try:
            answer = self.client.get(f"{self._url}/progress/{self._source.pipeline}/{topic_id}")
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:  # closed under us, the last
            log.warning("the ledger can't be asked for a start; beginning at the earliest", error=type(error).__name__)
            return {}
        try:
            partitions = msgspec.convert(answer.json()["partitions"], dict[int, list[tuple[int, int]]], strict=False)
        except (ValueError, KeyError, TypeError):
            log.warning("the ledger answers something else; beginning at the earliest")
            return {}
        return {partition: Offsets(ranges) for partition, ranges in partitions.items()}

    def _check(self) -> None:
        try:
            self._settings.check()
        except DeploymentFault as fault:
            self._source.note(fault)

    # -- the source's thread ---------------------------------------------------------------------------------------

    def _offer(self) -> None:
        if not (taken := self._source.in_flight.take_ranges()):
            return
        with self._changed:
            waited = bool(self._queue)  # then the thread knows, and sends it in time
            for a, ranges in taken:
                for at in range(0, len(ranges), RANGES_MAX):
                    part = ranges[at : at + RANGES_MAX]
                    window = tracing.context(a.number, part[-1].last)
                    self._queue.append(Report(a.number, a.topic, a.topic_id, a.partition, part, window))
                self._queued += len(ranges)
            if self._thread.ident is None and not self._ended:  # one that has ended has noted why
                self._thread.start()
            if not waited or self._queued >= RANGES_MAX:
                self._changed.notify_all()

    def _hurry_up(self) -> None:
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    def _accept(self) -> None:
        while self._answers:
            reports, states = self._answers.popleft()
            for report in reports:
                self._source.in_flight.accept(report.number, report.ranges)
            self._states = [*self._states[-1000:], *states]
            self._source.tell(states)
        if self._fault is not None:
            self._source.note(self._fault)

    # -- the background thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while reports := self._next():
                self._deliver(reports)
                with self._changed:
                    self._flight = 0
                    self._changed.notify_all()
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - a thread that ends unseen would leave the worker waiting for ever
            self._fault = DeploymentFault(f"reporting to {self._url} ended by {type(error).__name__}: a bug, tell us")

    def _deliver(self, reports: list[Report], *, short: bool = True) -> None:
        """Send until it is accepted, however long that takes; in halves where the service finds it too large.

        Reports that overlap covered offsets are sent again as ranges. While the service says that it knew some offsets
        already, ranges are sent first.
        """
        answer = self._answer(reports, short=short and self._fresh)
        if answer is TOO_LARGE_TO_TAKE:
            for half in split_in_half(reports):
                self._deliver(half, short=short)
            return
        self._fresh = not (answer.known or answer.overlaps)
        overlapping = [report for report in reports if answer.overlaps_with(report)]
        accepted = [report for report in reports if not answer.overlaps_with(report)] if overlapping else reports
        self._answers.append((accepted, answer.jobs))
        for part in group_by_size(overlapping, RANGES_MAX):
            self._deliver(part, short=False)

    def _answer(self, reports: list[Report], *, short: bool) -> Answer:
        """What the service says, as soon as it says something."""
        backoff, failures = Backoff(0.1, 5.0), 0
        while (answer := self._post(reports, short=short)) is None:
            if self._fault is not None or self._ended:
                raise _Stopped
            failures += 1
            with self._changed:
                self._changed.wait_for(lambda: self._ended, timeout=backoff.seconds(failures))
        return answer

    def _next(self) -> list[Report]:
        """Wait for something to report; gather what is there, one request's worth, one report a partition."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            left = self._began + self._pace - time.monotonic()
            self._changed.wait_for(lambda: self._hurry or self._ended or self._queued >= RANGES_MAX, timeout=left)
            if self._ended:
                return []
            self._began = time.monotonic()
            gathered: list[Report] = []
            room = RANGES_MAX
            while self._queue and len(self._queue[0].ranges) <= room:
                room -= len(self._queue[0].ranges)
                gathered.append(self._queue.popleft())
            self._queued -= RANGES_MAX - room
            self._flight = 1
            return gathered

    def _post(self, reports: list[Report], *, short: bool) -> Answer | None:
        """What the service answered; None means try again."""
        body, has_sums = request_of(self._source.pipeline, reports, short=short and self._takes_sums)
        ranges = sum(len(report.ranges) for report in reports)
        try:
            with tracing.request("report", (report.window for report in reports), ranges=ranges) as span:
                headers = {"content-type": "application/json", **span.headers}
                answer = self.client.post(f"{self._url}/progress", content=body, headers=headers)
                span.set(status=answer.status_code)
        except httpx.HTTPError as error:
            log.warning("waiting for the progress service", url=self._url, error=type(error).__name__)
            return None
        if answer.status_code in {UNAUTHORIZED, FORBIDDEN}:
            self._fault = DeploymentFault(
                f"the progress service {self._url} refuses our token ({answer.status_code}): "
                f"set PROGRESS_API_TOKEN to its own"
            )
        elif answer.status_code == TOO_LARGE and ranges > 1:
            return TOO_LARGE_TO_TAKE
        elif answer.status_code == UNPROCESSABLE and has_sums:
            log.warning("the progress service takes no sums, an older one: sending ranges", url=self._url)
            self._takes_sums = False
            return self._post(reports, short=False)
        elif answer.status_code in {UNPROCESSABLE, TOO_LARGE}:
            spans = ", ".join(f"{r.topic}-{r.partition}:{r.ranges[0].first}…{r.ranges[-1].last}" for r in reports)
            self._fault = DeploymentFault(
                f"the progress service {self._url} answers {answer.status_code} to a report of {spans}: "
                f"a bug, please tell us"
            )
        elif answer.is_success and (accepted := answer_of(answer.content)) is not None:
            return accepted
        else:
            log.warning("waiting for the progress service", url=self._url, status=answer.status_code)
        return None


class _Stopped(Exception):  # noqa: N818 - an end, not an accident
    """The worker ends, or has noted why it must."""


TOO_LARGE_TO_TAKE = Answer([], 0)
"""What `_post` answers to a 413: told apart by identity."""
