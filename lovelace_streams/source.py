"""1. Kafka → `Envelope[bytes]`: a member of a consumer group, and the worker's context that later steps lean on.

Theory of this file. Everything that happens without a record happens here, in `next_batch`, because no step downstream
runs while a topic is silent: held letters go out, reports are answered, offsets are committed. Those who have such work
`register` a `Service`. In one `next_batch`: serve, commit, then gather a window of at most `poll_size` messages for at
most `linger`. The list then goes through every step before the next call, so a window is all that is in hand.

Whoever must wait (a destination that is down) waits through `keep_alive`: it pauses the assignment and polls, so that
an outage of any length costs neither the membership nor memory, and never holds up a rebalance (H25).
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import Protocol, cast

import bytewax.operators as op
import structlog
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from lovelace_streams import metrics
from lovelace_streams.clients import (
    DEPLOYMENT_ERRORS,
    LOG,
    NOT_LET_IN,
    REFUSED_IN_REBALANCE,
    Door,
    common_config,
    name_of,
)
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.offsets import Assignment, InHand, Offsets
from lovelace_streams.outside import Outside
from lovelace_streams.records import ITEMS_MAX, DeadLetter, Envelope, JobState, Origin, Record, Settled
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.starts import Starts
from lovelace_streams.topics import REQUEST_SECONDS, TopicIds
from lovelace_streams.watch import Standing, Watch

log = structlog.get_logger(__name__)

JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
POLL_SECONDS = 0.1
"""How often a waiting worker polls: far below any `max.poll.interval.ms`."""
QUIET_SECONDS = 10.0
"""After so long of polls without a record the topics count as silent, although an end is not known or not reached."""
REVOKE_SECONDS = 5.0
"""How long giving up a partition may wait for what is in flight; past it the connection is shut (H1, S10)."""

Headers = list[tuple[str, bytes | None]]


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
        self.in_hand = InHand()
        self.fault: DeploymentFault | None = None
        self.draining_since: float | None = None
        self.ledger_cover: Callable[[str], dict[int, Offsets]] | None = None
        """Topic id → partition → what the ledger has settled: where to start if nothing was committed (H12)."""
        self.services: list[Service] = []
        self._listeners: list[Callable[[list[JobState]], None]] = []
        self._watch: Watch | None = None
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None
        self._waiting = False
        self._paused = False
        self._serving = False
        self._stash: list[Message] = []
        self._idle = False
        self._empty_since: float | None = None
        self._committing = False
        self._closed = False
        self._reading = False
        self._failed: list[DeadLetter] = []
        self._topic_ids: dict[str, str] = {}
        self._ids: TopicIds | None = None
        self._asked: dict[int, int] = {}
        """Assignment → the end of what was read when its topic's id was last asked for."""
        self._reset: set[tuple[str, int]] = set()
        self._door = Door()
        self._starts: Starts | None = None
        self._unstarted: list[TopicPartition] = []
        self._begun: set[tuple[str, int]] = set()

    # -- what later steps ask and tell ---------------------------------------------------------------------------

    def register(self, service: Service) -> None:
        """Have something served in every `next_batch`, in the order registered."""
        self.services.append(service)

    @property
    def standings(self) -> list[Standing]:
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
        """Whether the record's partition is still ours: asked before every effect (H1)."""
        return record.assignment in self.in_hand.current

    def topic_id(self, topic: str) -> str:
        """Kafka's id of a topic: another one means that it was deleted and made again."""
        return self._topic_ids.get(topic, "")

    def settle(self, settled: Settled) -> None:
        """Note items whose effect is durable."""
        metrics.items(self.pipeline, settled, self.in_hand.settle(settled))

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
        to_begin = bool(self._unstarted) and not self.ending
        return to_begin or self.in_hand.unfinished or any(service.unfinished() for service in self.services)

    def keep_alive(self, seconds: float, records: Iterable[Record] = ()) -> bool:
        """Wait without reading; False at once when the worker ends or one of the records is not ours any more."""
        records = list(records)
        deadline = time.monotonic() + seconds
        self._pause()
        try:
            while True:
                left = deadline - time.monotonic()
                arrived = self._consume(1, max(0.0, min(POLL_SECONDS, left)))
                self._stash += arrived  # after the callbacks, which may have dropped some of it
                self._confirm()
                self._serve(idle=False, between=False)
                if self.fault or (self.draining_since is not None and self.drain_left <= 0):
                    return False
                if self.draining_since is not None and left > 0:
                    return False
                if not all(map(self.is_current, records)):
                    return False
                if left <= 0:
                    return True
        finally:
            self._waiting = False

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
        except DeploymentFault as fault:  # through Bytewax it would be ninety lines and exit code 1 (S8)
            self.note(fault)
        self._watch = Watch(self.pipeline, self.in_hand, self._known_end)
        self.register(self._watch)
        return _Worker(self)

    def window(self) -> list[Envelope[bytes]]:
        """Serve, commit, and gather the next window; raises `StopIteration` when the worker has ended."""
        if self._watch is not None:
            self._watch.alive()
        if self._consumer is None and (self.fault or not self._open()):
            if self.ending:
                raise StopIteration
            return []
        self._confirm()
        self._serve(idle=self._idle, between=True)
        self._commit()
        if self.fault:
            raise StopIteration
        if self.draining_since is not None:
            return self._drained()
        if self._full():
            self._pause()
            arrived = self._consume(1, POLL_SECONDS)
            self._stash += arrived
            self._idle = True  # nothing passes while nothing is read: letters that are held have to go
            return []
        if self._unstarted:
            self._start_assigned()
        self._resume()
        messages, self._stash = self._stash, []
        began = time.monotonic()
        messages += self._consume(max(1, self.settings.poll_size - len(messages)), self.settings.linger)
        window = self._records(messages)
        self._empty_since = None if window else self._empty_since or began
        self._idle = not window and self._silent()
        if window and not self._reading:
            self._reading = True
            log.info("reading", pipeline=self.pipeline)
        if self._watch is not None:
            self._watch.read(window)
        return window

    def close(self) -> None:
        """Leave the group; where a fault was noted, print its line and leave with 78 (S8)."""
        if self._closed:
            return
        self._closed = True
        for service in self.services:
            service.close()
        if self._consumer is not None:
            self._consumer.close()
        if self.fault:
            self.outside.stop(f"{self.pipeline}: {self.fault}")

    # -- within --------------------------------------------------------------------------------------------------

    def _full(self) -> bool:
        return self.in_hand.unaccepted >= self.settings.max_unreported or any(s.full() for s in self.services)

    def _drained(self) -> list[Envelope[bytes]]:
        if not self.unfinished or self.drain_left <= 0:
            log.info("drained", pipeline=self.pipeline, left_for_the_next=self.in_hand.unaccepted)
            raise StopIteration
        self._pause()
        self._consume(1, 0.02)
        self._idle = True
        return []

    def _serve(self, *, idle: bool, between: bool) -> None:
        if self._serving:  # a service that waits through keep_alive is not entered again
            return
        self._serving = True
        try:
            for service in self.services:
                service.serve(idle=idle, between=between)
        finally:
            self._serving = False

    def _open(self) -> bool:
        """Connect, check topics and make ours; False while the broker is away."""
        try:
            self._connect()
        except KafkaException as error:
            if self._admin is not None:
                self._admin.poll(0)  # what keeps us out is told to its `error_cb`, and only from here
            self._on_error(error.args[0])
            self._knock(answered=False)
            return False
        except DeploymentFault as fault:
            self.note(fault)
            return False
        self._door.opened()
        return True

    def _connect(self) -> None:
        if self._admin is None:
            self._admin = self.outside.admin(common_config(self.settings, error_cb=self._on_error))
        replay = f"{self.pipeline}.replay"
        topics = [*self.topics, replay]
        listed = self._admin.list_topics(timeout=REQUEST_SECONDS).topics
        for topic in self.topics:
            if topic not in listed:
                raise DeploymentFault(
                    f"the flow reads topic {topic!r}, which the broker {self.settings.brokers} does not have: "
                    f"create it, or set the topic that it should read"
                )
        if replay not in listed and not self._make_topic(replay):
            topics.remove(replay)
        self._ids = TopicIds(self._admin)
        self._topic_ids = self._ids.now(topics)
        self._consumer = self.outside.consumer(
            {
                # The default back-off, 1 s, leaves the fetcher asleep whenever the queue was full: 250k against
                # 1.2M messages/s on one core, 432-byte messages, librdkafka 2.x.
                "fetch.queue.backoff.ms": 5,
                "fetch.message.max.bytes": 67_108_864,
                "partition.assignment.strategy": "cooperative-sticky",
                "topic.metadata.refresh.interval.ms": 30_000,  # how soon partitions that were added are found
                "bootstrap.servers": self.settings.brokers,
                "logger": LOG,
                **self.settings.extra,
                "group.id": self.pipeline,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,  # what lies behind the last record is known by nothing else (H32)
                "auto.offset.reset": "error",
                "on_commit": self._on_commit,
                "error_cb": self._on_error,
            }
        )
        self._starts = Starts(self._consumer, self.ledger_cover, self.topics)
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _make_topic(self, name: str) -> bool:
        assert self._admin is not None
        try:
            self._admin.create_topics([NewTopic(name, num_partitions=1)])[name].result(REQUEST_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return True
            log.warning("no replay topic; replays are off", topic=name, error=name_of(error))
            return False
        return True

    def _consume(self, count: int, seconds: float) -> list[Message]:
        assert self._consumer is not None
        messages = []
        for message in self._consumer.consume(count, seconds):
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                messages.append(message)  # an end stays in its place: it is reached when what lies before it was read
            else:
                self._on_message_error(message, error)
        if self._reset:
            self._restart_reset()
        return messages

    def _silent(self) -> bool:
        """Whether a poll found nothing because there is nothing, not because a fetch was slow.

        On a busy machine a fetch takes longer than one poll; letters that were let go meanwhile would be those of a
        wrong deployment. An open transaction keeps an end from being reached, and a partition whose broker is away
        keeps it from being known: hence the bound in time, of polls only, however long the steps between them take.
        """
        if self._empty_since is not None and time.monotonic() - self._empty_since > QUIET_SECONDS:
            return True
        ends = ((a, self._known_end(a)) for a in self.in_hand.current.values())
        return all(end is not None and end <= a.next for a, end in ends)

    def _known_end(self, assignment: Assignment) -> int | None:
        """The end of a partition as the last fetch told it; None where nothing was fetched yet."""
        assert self._consumer is not None
        try:
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(assignment.topic, assignment.partition), cached=True
            )
        except KafkaException:
            return None
        return int(end) if end >= 0 else None

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in NOT_LET_IN:
            self._door.refused(time.monotonic())
        elif error.fatal() or error.code() in DEPLOYMENT_ERRORS:
            self.note(DeploymentFault(f"the broker {self.settings.brokers} refuses us: {name_of(error)}"))
        elif error.code() == KafkaError._INVALID_ARG:  # noqa: SLF001 - from a client's construction
            self.note(DeploymentFault(f"the KAFKA_… settings can't be: {error.str()}"))
        log.warning("waiting for the broker", brokers=self.settings.brokers, error=name_of(error))

    def _knock(self, *, answered: bool) -> None:
        """Whether we are let in shows in what is answered; a refusal that lasts is the deployment's fault."""
        if answered:
            self._door.opened()
        elif self._door.shut(time.monotonic()):
            self.note(
                DeploymentFault(
                    f"the broker {self.settings.brokers} does not let us in: check KAFKA_SECURITY_PROTOCOL, "
                    f"KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
                )
            )

    def _on_message_error(self, message: Message, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._reset.add(cast("tuple[str, int]", (message.topic(), message.partition())))
        else:
            self._on_error(error)

    def _restart_reset(self) -> None:
        """An offset that is not there: made anew under us (another topic id) means start again, else it expired."""
        assert self._consumer is not None
        assert self._ids is not None
        waiting, self._reset = self._reset, set()
        try:
            ids = self._ids.now({topic for topic, _ in waiting})
            for topic, partition in waiting:
                held = self.in_hand.of(topic, partition)
                if held is None:
                    continue
                if topic not in ids:  # deleted, and not there again yet
                    self._reset.add((topic, partition))
                elif held.topic_id == ids[topic]:
                    at = TopicPartition(topic, partition)
                    low, high = self._consumer.get_watermark_offsets(at, REQUEST_SECONDS)
                    self.note(_expired(self.pipeline, topic, partition, held.next, low, high))
                else:
                    self._begin_anew(topic, ids[topic])
        except KafkaException:
            self._reset |= waiting

    def _confirm(self) -> None:
        """Ask, after each read, whether the topics are still the ones that the assignments began with."""
        assert self._ids is not None
        current = self.in_hand.current
        ids = self._ids.answer()
        self._knock(answered=bool(ids))
        if ids is not None:
            asked, self._asked = self._asked, {}
            for number, upto in asked.items():
                held = current.get(number)
                if held is not None and ids.get(held.topic) == held.topic_id:
                    held.confirmed = upto
            for topic in {a.topic for a in current.values() if ids.get(a.topic, a.topic_id) != a.topic_id}:
                self._begin_anew(topic, ids[topic])
        busy = any(a.next > a.confirmed for a in current.values())
        topics = {a.topic for a in current.values()} or (set(self.topics) if self._door.suspected else set())
        if topics and self._ids.begin(topics, busy=busy):
            self._asked = {number: a.next for number, a in current.items()}

    def _confirm_now(self) -> None:
        """The same, waiting for the answer: partitions are about to be given up."""
        assert self._ids is not None
        current = self.in_hand.current
        try:
            ids = self._ids.now({a.topic for a in current.values()})
        except KafkaException:
            return
        for held in current.values():
            if ids.get(held.topic) == held.topic_id:
                held.confirmed = held.next

    def _begin_anew(self, topic: str, topic_id: str) -> None:
        """The topic was made again: what was read of the new one under the old id is read again, from the beginning."""
        assert self._consumer is not None
        log.warning("the topic was made again; reading it from its beginning", topic=topic)
        self._topic_ids[topic] = topic_id
        for held in [a for a in self.in_hand.current.values() if a.topic == topic]:
            self._drop(topic, held.partition)
            self._unassign(self._consumer, [TopicPartition(topic, held.partition)])
            self._unstarted.append(TopicPartition(topic, held.partition))

    # -- rebalances ----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The rebalance is over; where to begin is asked for in the next window, where it holds up nobody."""
        consumer.incremental_assign([])
        self._unstarted += partitions

    def _start_assigned(self) -> None:
        """Begin what was assigned; while the broker or the ledger can't say where, they are asked in every window."""
        assert self._consumer is not None
        assert self._ids is not None
        assert self._starts is not None
        try:
            self._topic_ids |= self._ids.now({p.topic for p in self._unstarted})
            starts, self._unstarted = self._starts.find(self._unstarted, self._topic_ids)
        except KafkaException as error:
            log.warning("waiting for the broker to say where to begin", error=name_of(error))
            return
        for start in starts:
            self.in_hand.assign(start.topic, start.topic_id, start.partition, start.offset).confirmed = start.offset
            log.info("assigned", topic=start.topic, partition=start.partition, start=start.offset, by=start.by)
        if starts:
            begun = [TopicPartition(start.topic, start.partition, start.offset) for start in starts]
            self._consumer.incremental_assign(begun)
            self._begun |= {(start.topic, start.partition) for start in starts}
            self._consumer.resume(begun)  # librdkafka's pause outlives an assignment: it would come back mute

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight, report, commit, and only then let go (H1)."""
        deadline = time.monotonic() + REVOKE_SECONDS
        self._confirm_now()
        for service in self.services:
            service.revoke(max(0.0, deadline - time.monotonic()))
        self._commit_now()
        for p in partitions:
            self._drop(p.topic, p.partition)
        log.info("revoked", partitions=[f"{p.topic}-{p.partition}" for p in partitions])
        self._unassign(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They are others' already: nothing may be written, reported or committed for them."""
        for p in partitions:
            self._drop(p.topic, p.partition)
        log.warning("lost", partitions=[f"{p.topic}-{p.partition}" for p in partitions])
        self._unassign(consumer, partitions)

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Let go of those that were begun: for others librdkafka raises what is no exception (a bare KafkaError).

        Remembered, not asked for: `assignment()` raises while the consumer closes, which is when this is called too.
        """
        consumer.incremental_unassign([p for p in partitions if (p.topic, p.partition) in self._begun])
        self._begun -= {(p.topic, p.partition) for p in partitions}

    def _drop(self, topic: str, partition: int) -> None:
        self.in_hand.end(topic, partition)
        self._unstarted = [p for p in self._unstarted if (p.topic, p.partition) != (topic, partition)]
        self._stash = [m for m in self._stash if (m.topic(), m.partition()) != (topic, partition)]

    def _pause(self) -> None:
        assert self._consumer is not None
        self._waiting = self._paused = True
        self._consumer.pause(self._consumer.assignment())

    def _resume(self) -> None:
        assert self._consumer is not None
        self._waiting = False
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())

    # -- commits -------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Move the group offset, one request at a time; refusals in a rebalance are tried again by the next call."""
        assert self._consumer is not None
        if self._committing:
            return
        if due := self.in_hand.committable():
            self._committing = True
            try:
                self._consumer.commit(offsets=[_position(a) for a in due], asynchronous=True)
            except KafkaException as error:
                self._committing = False
                log.info("commit put off", error=name_of(error))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._committing = False
        if error is not None and error.code() not in REFUSED_IN_REBALANCE:
            log.info("commit put off", error=name_of(error))
        for p in partitions:
            if error is None and p.error is None:
                self._committed(p)

    def _committed(self, p: TopicPartition) -> None:
        held = self.in_hand.of(p.topic, p.partition)
        if held is not None and p.offset <= held.position:
            held.committed = max(held.committed, p.offset)

    def _commit_now(self) -> None:
        assert self._consumer is not None
        if not (due := self.in_hand.committable()):
            return
        try:
            for p in self._consumer.commit(offsets=[_position(a) for a in due], asynchronous=False) or ():
                if p.error is None:
                    self._committed(p)
        except KafkaException as error:
            log.info("commit put off", error=name_of(error))

    # -- records -------------------------------------------------------------------------------------------------

    def _records(self, messages: Iterable[Message]) -> list[Envelope[bytes]]:
        """Messages of current assignments, as records in hand."""
        held: dict[tuple[str, int], Assignment] = {(a.topic, a.partition): a for a in self.in_hand.current.values()}
        envelopes = []
        for message in messages:
            assignment = held.get(cast("tuple[str, int]", (message.topic(), message.partition())))
            offset = cast("int", message.offset())
            if assignment is None or offset < assignment.next:
                continue
            if message.error() is not None:
                self.in_hand.pass_over(assignment.number, offset)
                continue
            record = record_of(message, assignment)
            self.in_hand.read(record)
            envelopes.append(Envelope(record, 0, record.value))
        return envelopes  # type: ignore[return-value]


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


def record_of(message: Message, assignment: Assignment) -> Record:
    headers = headers_of(message)
    record = Record(
        assignment.topic,
        assignment.partition,
        cast("int", message.offset()),
        assignment.next,
        assignment.number,
        message.key(),
        message.value(),
        headers,
        message.timestamp()[1],
    )
    if headers:
        _read_headers(record, headers)
    return record


def headers_of(message: Message) -> Headers:
    """The headers in their order; the client's type allows more than it ever gives."""
    try:
        return cast("Headers", message.headers() or [])
    except UnicodeDecodeError:  # a name that is not UTF-8: the client gives all or nothing
        metrics.BAD_HEADERS.labels("name").inc()
        return []


def _read_headers(record: Record, headers: Headers) -> None:
    """Job, attempt, number of items and origin; the last of a name wins, what is not valid is no header (H23)."""
    named = {name: value for name, value in headers if name.startswith("lovelace-") and value is not None}
    if (job := named.get("lovelace-job-id")) is not None:
        text = job.decode("ascii", "replace")
        if JOB_ID.match(text):
            record.job = text
            record.attempt = _number(named.get("lovelace-job-attempt"), 1, 2**31 - 1) or 1
        else:
            metrics.BAD_HEADERS.labels("lovelace-job-id").inc()
    record.declared = _number(named.get("lovelace-items"), 0, ITEMS_MAX)
    if record.topic.endswith(".replay") and (origin := named.get("lovelace-origin")) is not None:
        record.origin = parse_origin(origin, named.get("lovelace-origin-timestamp"), named.get("lovelace-failed-items"))


def _number(text: bytes | None, low: int, high: int) -> int | None:
    if text is None or not text.isdigit() or len(text) > 10:  # noqa: PLR2004 - digits of the largest one
        return None
    number = int(text)
    return number if low <= number <= high else None


def parse_origin(origin: bytes, timestamp: bytes | None, items: bytes | None) -> Origin | None:
    """The headers of a letter, as `dead_letter` wrote them; None where they are not ours.

    >>> parse_origin(b"id/topic/3/42", b"1700000000000", b"0-1:check, 7:null").items
    (0, 1, 7)
    """
    try:
        topic_id, rest = origin.decode().split("/", 1)
        topic, partition, offset = rest.rsplit("/", 2)
        if not (topic_id and topic and 0 <= int(partition) < 2**31 and 0 <= int(offset) < 2**63 - 1):
            return None
        numbers: list[int] = []
        for part in filter(None, (items or b"").decode().split(",")):
            if part.startswith(" …"):  # the list was too long for a header
                break
            first, _, last = part.strip().split(":", 1)[0].partition("-")
            least = numbers[-1] + 1 if numbers else 0  # ascending, so that no header names more than ITEMS_MAX
            if not least <= int(first) <= int(last or first) < ITEMS_MAX:  # anybody may write to a replay topic
                return None
            numbers.extend(range(int(first), int(last or first) + 1))
        return Origin(topic_id, topic, int(partition), int(offset), int(timestamp or -1), tuple(numbers))
    except ValueError:
        return None


def _position(assignment: Assignment) -> TopicPartition:
    """The topic's id goes along: a commit with another id is not a position (H12)."""
    return TopicPartition(assignment.topic, assignment.partition, assignment.position, metadata=assignment.topic_id)


def _expired(pipeline: str | None, topic: str, partition: int, wanted: int, low: int, high: int) -> DeploymentFault:
    return DeploymentFault(
        f"offset {wanted} of {topic}-{partition} is gone: the topic holds {low}…{high - 1}. Records were deleted "
        f"before they were read; to go on with what is there: kafka-consumer-groups --group {pipeline} "
        f"--topic {topic}:{partition} --reset-offsets --to-earliest --execute"
    )
