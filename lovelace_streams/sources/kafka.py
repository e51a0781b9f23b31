"""1. Kafka → `Envelope[bytes]`, and the worker's context that later steps lean on; the reading is done by `member`.

Theory of this file. Everything that happens without a record happens here, in `next_batch`, because no step downstream
runs while a topic is silent: held letters go out, reports are answered, offsets are committed. Those who have such work
`register` a `Service`. In one `next_batch`: serve, commit, then gather a window of at most `poll_size` messages for at
most `linger`. The list then goes through every step before the next call, so a window is all that is in hand.

Whoever must wait (a destination that is down) waits through `keep_alive`: it pauses the assignment and polls, so that
an outage of any length costs neither the membership nor memory, and never holds up a rebalance.
"""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import bytewax.operators as op
import structlog
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.inputs import DynamicSource, StatelessSourcePartition

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.consumer import GroupConsumer
from lovelace_streams.observability import metrics
from lovelace_streams.records import DeadLetter, Envelope, JobState, Record, Settled
from lovelace_streams.runtime.gauges import PartitionStatus, WorkerGauges
from lovelace_streams.runtime.in_flight import Assignment, InFlight
from lovelace_streams.runtime.offsets import Offsets
from lovelace_streams.runtime.process import Outside
from lovelace_streams.settings import KafkaSettings

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
"""How often a waiting worker polls: far below any `max.poll.interval.ms`."""


class Service(Protocol):
    """What has to happen although nothing is read."""

    def serve(self, *, idle: bool, between: bool) -> None:
        """Do what is due, without waiting.

        `idle`: there is nothing to read. `between`: everything of the last window has been through every step
        (not so when called from within a step that waits).
        """

    def unfinished(self) -> bool:
        """Whether the worker must not end yet."""

    def revoke(self, seconds: float) -> None:
        """Partitions are about to be given up: finish what is in flight within this time."""

    def full(self) -> bool:
        """Whether nothing more should be read for now."""

    def close(self) -> None:
        """The worker ends."""


class KafkaSource(DynamicSource[Envelope[bytes]]):
    """The topics a flow reads, as one member of its consumer group, and the worker's context at run time.

    Gives `Envelope[bytes]` in the order of each partition, in lists of at most `poll_size` gathered for at most
    `linger` seconds. A restart reads again from the committed offset: what was settled but not committed is repeated,
    and every effect is idempotent. A broker that is away is waited for; what can't be right (no such topic, no access,
    an expired offset) stops the worker with one line and exit code 78.

    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> source.pipeline is None  # the flow that it is used in names it
    True
    """

    def __init__(self, settings: KafkaSettings, topics: Iterable[str]) -> None:
        self.settings = settings
        self.topics = tuple(topics)
        self.pipeline: str | None = settings.group
        self.outside = Outside()
        self.in_flight = InFlight()
        self.fault: DeploymentFault | None = None
        self.draining_since: float | None = None
        self.reached = 0
        """Items that came to a writer, whatever it makes of them: they passed all steps before it."""
        self.ledger_cover: Callable[[str], dict[int, Offsets]] | None = None
        """Topic id → partition → what the ledger has settled: where to start if nothing was committed.

        Why not simply at its end: docs/decisions/0005-where-a-partition-begins.md.
        """
        self.services: list[Service] = []
        self._carriers: list[Service] = []
        self._listeners: list[Callable[[list[JobState]], None]] = []
        self._watch: WorkerGauges | None = None
        self._member: GroupConsumer | None = None
        self._serving: list[Service] = []
        self._idle = False
        self._closed = False
        self._reading = False
        self._failed: list[DeadLetter] = []

    # -- what later steps ask and tell ---------------------------------------------------------------------------

    def register(self, service: Service, *, carries: bool = False) -> None:
        """Have something served in every `next_batch`, in the order registered.

        `carries`: it keeps items from one window to the next, of which any may still be refused.
        """
        self.services.append(service)
        if carries:
            self._carriers.append(service)

    @property
    def behind(self) -> bool:
        """Whether more had arrived than the last window holds: the next one will be there at once."""
        return self._member is not None and self._member.behind

    @property
    def carrying(self) -> bool:
        """Whether items of earlier windows are still on their way: that nothing is read does not mean it is over."""
        return any(service.unfinished() for service in self._carriers)

    @property
    def standings(self) -> list[PartitionStatus]:
        """Where each partition that is ours stood a second ago."""
        return self._watch.standings if self._watch is not None else []

    def listen(self, listener: Callable[[list[JobState]], None]) -> None:
        """Have every answer of the progress service told at once: as a stream it comes with the next list only."""
        self._listeners.append(listener)

    def tell(self, states: list[JobState]) -> None:
        """The progress service has answered."""
        for listener in self._listeners:
            listener(states)

    def is_current(self, record: Record) -> bool:
        """Whether the record's partition is still ours.

        Asked before every effect: the next owner may have written newer rows, which ours would overwrite.
        """
        return record.assignment in self.in_flight.current

    def topic_id(self, topic: str) -> str:
        """Kafka's id of a topic that is held: another one means that it was deleted and made again."""
        return next((held.topic_id for held in self.in_flight.current.values() if held.topic == topic), "")

    def settle(self, settled: Settled) -> None:
        """Note items whose effect is durable."""
        metrics.items(self.pipeline, settled, self.in_flight.settle(settled))

    def failed(self, letters: Iterable[DeadLetter]) -> None:
        """Hand over what failed outside of a step's call; `dead_letter` takes it."""
        self._failed += letters

    def take_failed(self) -> list[DeadLetter]:
        """What was handed over since the last call."""
        taken, self._failed = self._failed, []
        return taken

    def note(self, fault: DeploymentFault) -> None:
        """Stop the worker for this reason: one line, exit code 78. The first one counts."""
        self.fault = self.fault or fault

    @property
    def ending(self) -> bool:
        """Whether the worker drains or stops: nothing new is to be begun."""
        return self.fault is not None or self.draining_since is not None

    def drain(self, *_: object) -> None:
        """Stop reading, finish what is in hand within `drain_seconds`, commit, end (SIGTERM)."""
        if self.draining_since is None:
            self.draining_since = time.monotonic()

    @property
    def drain_left(self) -> float:
        """Seconds left to finish; endless while nobody asked to end."""
        if self.draining_since is None:
            return float("inf")
        return self.draining_since + self.settings.drain_seconds - time.monotonic()

    @property
    def unfinished(self) -> bool:
        """Whether something is yet to be begun, or was read and is not settled, accounted for and committed."""
        to_begin = self._member is not None and self._member.to_begin and not self.ending
        return to_begin or self.in_flight.unfinished or any(service.unfinished() for service in self.services)

    def keep_alive(self, seconds: float, records: Iterable[Record] = ()) -> bool:
        """Wait without reading; False at once when the worker ends or one of the records is not ours any more."""
        assert self._member is not None
        records = list(records)
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            self._member.hold(max(0.0, min(POLL_SECONDS, left)))
            self._member.confirm()
            self._serve(idle=False, between=False)
            if self.fault or (self.draining_since is not None and (left > 0 or self.drain_left <= 0)):
                return False
            if not all(map(self.is_current, records)):
                return False
            if left <= 0:
                return True

    # -- one window ----------------------------------------------------------------------------------------------

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Worker":  # noqa: ARG002
        """One worker thread a process: partitions are shared out by starting more processes."""
        if worker_count > 1:
            self.note(
                DeploymentFault(
                    f"{step_id}: a flow in a consumer group runs one worker a process, not {worker_count}; "
                    f"start `python -m bytewax.run` again instead, and the partitions are shared out"
                )
            )
        try:
            self.outside.begin(self.drain)
        except DeploymentFault as fault:  # through Bytewax it would be ninety lines and exit code 1
            self.note(fault)
        self._watch = WorkerGauges(self.pipeline, self.in_flight, self._known_end)
        self.register(self._watch)
        return _Worker(self)

    def window(self) -> list[Envelope[bytes]]:
        """Serve, commit, and gather the next window; raises `StopIteration` when the worker has ended."""
        if self._watch is not None:
            self._watch.alive()
        if (member := self._joined()) is None:
            if self.ending:
                raise StopIteration
            return []
        member.confirm()
        self._serve(idle=self._idle, between=True)
        member.commit()
        if self.fault:
            raise StopIteration
        if self.draining_since is not None:
            return self._drained(member)
        if self._full():
            member.hold(POLL_SECONDS)
            self._idle = True  # nothing passes while nothing is read: letters that are held have to go
            return []
        window = member.read(self.settings.poll_size, self.settings.linger)
        self._idle = not window and member.silent()
        if window and not self._reading:
            self._reading = True
            self.outside.started()
            log.info("reading", pipeline=self.pipeline)
        if self._watch is not None:
            self._watch.read(window)
        return window

    def close(self) -> None:
        """Leave the group; where a fault was noted, print its line and leave with 78."""
        if self._closed:
            return
        self._closed = True
        for service in self.services:
            service.close()
        if self._member is not None:
            self._member.close()
        if self.fault:
            self.outside.stop(f"{self.pipeline}: {self.fault}")

    # -- within --------------------------------------------------------------------------------------------------

    def _joined(self) -> GroupConsumer | None:
        """The member of the group; None while the broker is away, or where a fault was noted before."""
        if self._member is None:
            self._member = GroupConsumer(
                self.pipeline,
                self.topics,
                self.settings,
                self.in_flight,
                self.outside,
                note=self.note,
                finish=self._finish,
                ledger=self.ledger_cover,
            )
        return self._member if self._member.is_open or (not self.fault and self._member.open()) else None

    def _finish(self, seconds: float) -> None:
        """Partitions are about to be given up."""
        deadline = time.monotonic() + seconds
        for service in self.services:
            service.revoke(max(0.0, deadline - time.monotonic()))

    def _known_end(self, assignment: Assignment) -> int | None:
        return self._member.known_end(assignment) if self._member else None

    def _full(self) -> bool:
        return self.in_flight.unaccepted >= self.settings.max_unreported or any(s.full() for s in self.services)

    def _drained(self, member: GroupConsumer) -> list[Envelope[bytes]]:
        if not self.unfinished or self.drain_left <= 0:
            log.info("drained", pipeline=self.pipeline, left_for_the_next=self.in_flight.unaccepted)
            raise StopIteration
        member.hold(0.02)
        self._idle = True
        return []

    def _serve(self, *, idle: bool, between: bool) -> None:
        for service in self.services:
            if service in self._serving:  # it waits through keep_alive: the others are served meanwhile
                continue
            self._serving.append(service)
            try:
                service.serve(idle=idle, between=between)
            finally:
                self._serving.remove(service)


class _Worker(StatelessSourcePartition[Envelope[bytes]]):
    """The engine's end of a source: nothing but the two calls."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    def next_batch(self) -> list[Envelope[bytes]]:
        return self._source.window()

    def close(self) -> None:
        self._source.close()


@operator
def kafka_source(step_id: str, flow: Dataflow, source: KafkaSource) -> Stream[Envelope[bytes]]:
    """Read the source's topics as the consumer group named like the flow, unless the settings name another."""
    source.pipeline = source.pipeline or flow.flow_id
    return op.input("input", flow, source)
