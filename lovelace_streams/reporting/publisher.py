"""Publish the states of jobs to a topic, each with its rate and estimated end.

The progress service answers absolute, versioned states, so nothing is summed here: of each job the highest version
counts, from whichever worker. A flow in a consumer group has no stateful step (no key belongs to one worker), so every
worker keeps the jobs that the service has answered it about, and publishes their states. A job's last states arrive
when its topic is silent already and no step runs; so the worker's context passes them on (`on_states`) and serves the
publishing.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from lovelace_streams.kafka.client import common_config
from lovelace_streams.kafka.faults import name_of
from lovelace_streams.kafka.own_topics import CHOOSES_LESS, progress_topic
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS
from lovelace_streams.observability import metrics
from lovelace_streams.records import JobState
from lovelace_streams.reporting.rates import Rate
from lovelace_streams.runtime.service import Service
from lovelace_streams.runtime.worker import WorkerContext

log = structlog.get_logger(__name__)


EVERY_SECONDS = 1.0
JOBS_MAX = 1000
"""How many jobs a worker keeps; then the one without an answer for longest is dropped."""
RETRY_SECONDS = 5.0
"""How long after a refusal publishing, or making the topic, is tried again."""
MAY_BE_THERE = {
    KafkaError.NO_ERROR,
    KafkaError.TOPIC_ALREADY_EXISTS,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
"""Errors of making the topic with which it may exist nevertheless: publishing will show."""
FINAL_STATUSES = {"completed", "closed"}
"""Statuses after which a job does not change."""


class JobProgress(JobState, frozen=True):
    """A job's state with its rate and estimated end; published as JSON."""

    done: int
    """`succeeded + failed + skipped`."""
    items_per_second: float | None
    """The rate over the last minute, of all workers together; None while it is unknown."""
    estimated_end: datetime | None
    """When `total_items` are done at that rate; None if it is unknown, and in a final state."""
    at: datetime
    """When this worker got the answer, in UTC."""


class Job:
    """One job: its newest state, its rate, and which version was published."""

    __slots__ = ("due", "in_flight", "latest", "published", "rate", "repeats")

    def __init__(self) -> None:
        self.rate = Rate()
        self.latest: JobProgress | None = None
        self.published = -1
        """The highest version that was published."""
        self.due = 0.0
        """When the next message may be sent."""
        self.repeats = 1
        self.in_flight = False

    @property
    def version(self) -> int:
        """The version of the newest state, -1 before the first."""
        return -1 if self.latest is None else self.latest.version

    @property
    def final(self) -> bool:
        """Whether the job does not change any more."""
        return self.latest is not None and self.latest.status in FINAL_STATUSES

    @property
    def unpublished(self) -> bool:
        """Whether its newest state was not published yet."""
        return self.version > self.published


class Jobs:
    """The newest states of jobs, and which are due to be published; no clock and no Kafka here."""

    def __init__(self, every: float = EVERY_SECONDS, jobs_max: int = JOBS_MAX) -> None:
        self._every = every
        self._jobs_max = jobs_max
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def hear(self, states: Iterable[JobState], now: float, at: datetime) -> list[JobProgress]:
        """Note the states of an answer; returns those that are newer than the known ones, with rate and end."""
        newer = []
        for state in states:
            job = self._job(state.job_id)
            if state.version <= job.version:
                continue
            done = state.succeeded + state.failed + state.skipped
            job.rate.add(now, done)
            rate, left = job.rate.per_second(now), job.rate.seconds_left(now, state.total_items)
            job.latest = JobProgress(
                **msgspec.structs.asdict(state),
                done=done,
                items_per_second=None if rate is None else round(rate, 3),
                estimated_end=None if state.status in FINAL_STATUSES else _end(at, left),
                at=at,
            )
            job.repeats = 1
            if job.final:
                job.due = now
            newer.append(job.latest)
        return newer

    def due(self, now: float, *, ending: bool = False) -> list[JobProgress]:
        """Take the states to publish now, each handed out once; with `ending` all that were not published."""
        due = []
        for job in self._jobs.values():
            if job.latest is None or job.in_flight or not (now >= job.due or (ending and job.unpublished)):
                continue
            if job.unpublished or job.final:
                job.in_flight = True
                job.due = now + self._every
                due.append(job.latest)
        return due

    def delivered(self, progress: JobProgress, now: float) -> None:
        """Note that the broker has acknowledged a state; a final one is published twice before the job is dropped.

        Another worker may have held back an older state meanwhile, for `every` seconds at most, and compaction keeps
        the message that was written last.
        """
        if (job := self._jobs.get(progress.job_id)) is None:
            return
        job.in_flight = False
        job.published = max(job.published, progress.version)
        if job.final and not job.unpublished:
            if not job.repeats:
                del self._jobs[progress.job_id]
            job.repeats -= 1
            job.due = now + 2 * self._every

    def refused(self, progress: JobProgress, now: float) -> None:
        """Note that a state was not published: the newest one is tried again after `RETRY_SECONDS`."""
        if job := self._jobs.get(progress.job_id):
            job.in_flight = False
            job.due = now + RETRY_SECONDS

    @property
    def unpublished(self) -> bool:
        """Whether a job's newest state was not published yet."""
        return any(job.unpublished for job in self._jobs.values())

    def _job(self, job_id: str) -> Job:
        job = self._jobs.setdefault(job_id, Job())
        self._jobs.move_to_end(job_id)
        if len(self._jobs) > self._jobs_max:
            quiet = next((name for name, other in self._jobs.items() if not other.unpublished and name != job_id), None)
            self._jobs.pop(quiet or next(iter(self._jobs)))
        return job


class Publisher(Service):
    """Publishes states that are due. The worker never waits for it, except for acknowledgements while it drains."""

    def __init__(
        self, context: WorkerContext, topic: str | None, every: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._context = context
        self._named = topic
        self._clock = clock
        self._jobs = Jobs(every)
        self._heard: list[JobProgress] = []
        self._producer: Producer | None = None
        self._admin: AdminClient | None = None
        self._making: Future[Any] | None = None
        self._made = False
        self._chooses_less = False
        """Whether the broker does not let us choose all settings of the topic."""
        self._make_after = 0.0
        self._refused = False
        self._is_dead = False
        """Whether the producer has met a fatal error, which it does not get over: the next try makes another one."""

    @property
    def topic(self) -> str:
        """The topic that states are published to."""
        return self._named or f"{self._context.pipeline}.progress"

    def hear(self, states: Iterable[JobState]) -> None:
        """Note the states of an answer of the progress service."""
        heard = self._jobs.hear(states, self._clock(), datetime.now(UTC))
        self._heard = [*self._heard[-JOBS_MAX:], *heard]

    def take(self, states: list[JobState]) -> list[JobProgress]:  # noqa: ARG002
        """Take the newer states since the last call; `hear` has noted them before they flow."""
        heard, self._heard = self._heard, []
        return heard

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Make the topic, publish the states that are due, take the acknowledgements; without waiting."""
        if self._context.ledger_cover is None:  # no progress service: there are no states
            return
        if not self._made:
            self._make_topic()
            return
        if self._producer is None or self._is_dead:
            self._is_dead = False
            more = {"enable.idempotence": True, "acks": "all", "delivery.timeout.ms": 30_000}
            self._producer = self._context.clients.producer(common_config(self._context.settings, **more))
        self._producer.poll(0)
        for progress in self._jobs.due(self._clock(), ending=self._context.ending and not self._refused):
            self._publish(progress)

    def unfinished(self) -> bool:
        """Whether states are not acknowledged yet; the worker does not wait for them if publishing fails."""
        return self._jobs.unpublished and not self._refused

    def close(self) -> None:
        """Wait a second for the last acknowledgements."""
        if self._producer is not None and self.unfinished():
            self._producer.flush(1.0)

    def _publish(self, progress: JobProgress) -> None:
        assert self._producer is not None

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self._jobs.delivered(progress, self._clock())
                self._refused = False
                metrics.PUBLISHED.labels(self._context.pipeline, "delivered").inc()
            else:
                self._refuse(progress, error)

        try:
            self._producer.produce(
                self.topic, msgspec.json.encode(progress), progress.job_id.encode(), on_delivery=delivered
            )
        except KafkaException as error:
            self._refuse(progress, error.args[0])
        except BufferError:
            self._jobs.refused(progress, self._clock())

    def _refuse(self, progress: JobProgress, error: KafkaError) -> None:
        self._jobs.refused(progress, self._clock())
        metrics.PUBLISHED.labels(self._context.pipeline, "refused").inc()
        self._complain(error)
        self._is_dead = self._is_dead or error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001

    def _complain(self, error: KafkaError) -> None:
        if not self._refused:
            complaint = "progress can't be published; records are not held up"
            log.warning(complaint, topic=self.topic, error=name_of(error))
        self._refused = True

    def _make_topic(self) -> None:
        """Make the topic in the background; a broker that is away is asked again, one that refuses is not."""
        if self._making is None:
            if self._clock() < self._make_after:
                return
            self._admin = self._admin or self._context.clients.admin(common_config(self._context.settings))
            topic = progress_topic(self.topic)
            config = topic.essential if self._chooses_less else topic.config
            new = NewTopic(self.topic, num_partitions=1, config=config)
            self._making = self._admin.create_topics([new], request_timeout=REQUEST_SECONDS)[self.topic]
        if not self._making.done():
            return
        answer, self._making = self._making.exception(), None
        code = answer.args[0].code() if isinstance(answer, KafkaException) else KafkaError.NO_ERROR
        if code in CHOOSES_LESS and not self._chooses_less:
            self._chooses_less = True
            return
        self._made = code >= 0 and not KafkaError(code).retriable()
        if code not in MAY_BE_THERE:
            self._complain(KafkaError(code))
        if self._made:
            self._admin = None
        else:
            self._make_after = self._clock() + RETRY_SECONDS


def _end(at: datetime, seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else at + timedelta(seconds=round(seconds))
    except OverflowError:  # at that rate, never
        return None
