"""A member of a consumer group: what it polls, holds and commits, and how it gets and loses partitions.

Every call is made from the one thread that polls, and so are librdkafka's callbacks, within a poll. A partition is held
for the time of an assignment (`runtime.in_flight`); what is read is reported only while the broker says that the topic
is still the one that the assignment began with (`topic_ids`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.client import (
    DEPLOYMENT_ERRORS,
    LOG,
    NOT_LET_IN,
    REFUSED_IN_REBALANCE,
    AuthGrace,
    common_config,
    name_of,
)
from lovelace_streams.kafka.headers import records_of
from lovelace_streams.kafka.start_offsets import Covers, StartOffsets
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS, TopicIds
from lovelace_streams.observability import metrics
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.in_flight import Assignment, InFlight
from lovelace_streams.runtime.process import Outside
from lovelace_streams.settings import KafkaSettings

log = structlog.get_logger(__name__)

QUIET_SECONDS = 10.0
"""After so long of empty polls the topics count as silent, even if a partition's end is unknown or not reached."""
REVOKE_SECONDS = 5.0
"""How long giving up a partition may wait for what is in flight; past it the connection is shut, as the group waits."""
FETCH_BYTES = 4 * 1024 * 1024
"""Of one answer of the broker, unless its messages may be larger."""
LIST = 200
"""Messages of one call. They are let go once they are records, while what they hold is still in the cache: in lists of
1,000 making a record costs half as much again."""
PartitionKey = tuple[str, int]
"""Topic and partition."""


class GroupConsumer:
    """One consumer of the group and what it has been assigned.

    `note` takes a fault of the deployment; `finish(seconds)` ends what is in flight before partitions are given up;
    `ledger(topic_id)` answers what is settled of a topic, and may take its time.
    """

    def __init__(
        self,
        group: str | None,
        topics: tuple[str, ...],
        settings: KafkaSettings,
        in_flight: InFlight,
        outside: Outside,
        *,
        note: Callable[[DeploymentFault], None],
        finish: Callable[[float], None],
        ledger: Callable[[str], Covers] | None,
    ) -> None:
        self._group = group
        self._topics = topics
        self._settings = settings
        self._in_hand = in_flight
        self._outside = outside
        self._note = note
        self._finish = finish
        self._ledger = ledger
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None
        self._ids: TopicIds | None = None
        self._starts: StartOffsets | None = None
        self._door = AuthGrace()
        self._topic_ids: dict[str, str] = {}
        self._asked: dict[int, int] = {}
        """Assignment → the end of what was read when its topic's id was last asked for."""
        self._reset: set[tuple[str, int]] = set()
        self._unstarted: list[TopicPartition] = []
        self._begun: set[tuple[str, int]] = set()
        self._stash: list[Message] = []
        self._paused = False
        self.behind = False
        """Whether all of the last window, or more, had arrived when it was asked for."""
        self._ended = float("-inf")
        """When reading the last window ended."""
        self._empty_since: float | None = None
        self._committing = False

    @property
    def is_open(self) -> bool:
        """Whether it has joined the group."""
        return self._consumer is not None

    @property
    def to_begin(self) -> bool:
        """Whether it was assigned what it has not begun to read."""
        return bool(self._unstarted)

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, count: int, seconds: float) -> list[Envelope[bytes]]:
        """Gather at most so many messages, as records in hand, for at most so long after the last window.

        What has arrived while that one was on its way has waited already.
        """
        if self._unstarted:
            self._begin()
        self._resume()
        stash, self._stash = self._stash, []
        began = time.monotonic()
        held = set(self._in_hand.current)
        window = self._records(stash)
        self._fill(window, count, began)
        self.behind = len(window) >= count
        self._fill(window, count, max(began, self._ended + seconds))
        self._ended = time.monotonic()
        if not held <= self._in_hand.current.keys():  # given up between two lists: nothing of it goes on its way
            window = [envelope for envelope in window if envelope.record.assignment in self._in_hand.current]
        self._empty_since = None if window else self._empty_since or began
        return window

    def _fill(self, window: list[Envelope[bytes]], count: int, deadline: float) -> None:
        """Read on until the window is full or this is over; what has arrived already is taken in any case."""
        while (wanted := min(LIST, count - len(window))) > 0:
            messages = self._consume(wanted, max(0.0, deadline - time.monotonic()))
            window += self._records(messages)
            if len(messages) < wanted:
                return

    def hold(self, seconds: float) -> None:
        """Poll without reading: the membership lives on, and what arrives all the same is kept for later."""
        self._pause()
        self.behind = False
        arrived = self._consume(1, seconds)
        self._stash += arrived  # after the callbacks, which may have dropped some of it

    def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            self._consumer.close()

    def silent(self) -> bool:
        """Whether a poll found nothing because there is nothing, not because a fetch was slow.

        On a busy machine a fetch takes longer than one poll; letters that were let go meanwhile would be those of a
        wrong deployment. An open transaction keeps an end from being reached, and a partition whose broker is away
        keeps it from being known: hence the bound in time, of polls only, however long the steps between them take.
        """
        if self._empty_since is not None and time.monotonic() - self._empty_since > QUIET_SECONDS:
            return True
        ends = ((a, self.known_end(a)) for a in self._in_hand.current.values())
        return all(end is not None and end <= a.next for a, end in ends)

    def known_end(self, assignment: Assignment) -> int | None:
        """The end of a partition as the last fetch told it; None where nothing was fetched yet."""
        assert self._consumer is not None
        try:
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(assignment.topic, assignment.partition), cached=True
            )
        except KafkaException:
            return None
        return int(end) if end >= 0 else None

    def _records(self, messages: Iterable[Message]) -> list[Envelope[bytes]]:
        """Messages of current assignments, as records in hand."""
        held: dict[PartitionKey, Assignment] = {(a.topic, a.partition): a for a in self._in_hand.current.values()}
        envelopes: list[Envelope[bytes]] = []
        for run in _runs(messages):
            assignment = held.get(_place(run[0]))
            if assignment is None:
                continue
            if run[0].error() is not None:
                self._in_hand.pass_over(assignment.number, cast("int", run[0].offset()))
            elif records := records_of(run, assignment):
                self._in_hand.read(*records)
                metrics.read(self._group, records)
                envelopes += [Envelope(record, 0, cast("bytes", record.value)) for record in records]
        return envelopes

    def _consume(self, count: int, seconds: float) -> list[Message]:
        assert self._consumer is not None
        messages = self._consumer.consume(count, seconds)
        refused = [message for message in messages if message.error() is not None and not _is_end(message)]
        for message in refused:
            self._on_message_error(message, cast("KafkaError", message.error()))
        if self._reset:
            self._restart_reset()
        return [message for message in messages if message not in refused] if refused else messages

    # -- joining --------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Connect, check topics, make ours and join; False while the broker is away."""
        try:
            self._connect()
        except KafkaException as error:
            if self._admin is not None:
                self._admin.poll(0)  # what keeps us out is told to its `error_cb`, and only from here
            self._on_error(error.args[0])
            self._knock(answered=False)
            return False
        except DeploymentFault as fault:
            self._note(fault)
            return False
        self._door.opened()
        return True

    def _connect(self) -> None:
        if self._admin is None:
            self._admin = self._outside.admin(common_config(self._settings, error_cb=self._on_error))
        replay = f"{self._group}.replay"
        topics = [*self._topics, replay]
        listed = self._admin.list_topics(timeout=REQUEST_SECONDS).topics
        for topic in self._topics:
            if topic not in listed:
                raise DeploymentFault(
                    f"the flow reads topic {topic!r}, which the broker {self._settings.brokers} does not have: "
                    f"create it, or set the topic that it should read"
                )
        if replay not in listed and not self._make_topic(replay):
            topics.remove(replay)
        self._ids = TopicIds(self._admin)
        self._topic_ids = self._ids.now(topics)
        self._consumer = self._outside.consumer(
            {
                # The default back-off, 1 s, leaves the fetcher asleep whenever the queue was full: 250k against
                # 1.2M messages/s on one core, 432-byte messages, librdkafka 2.x.
                "fetch.queue.backoff.ms": 5,
                # By default up to 64 MiB wait for each partition: too much for a worker that has many of them.
                "queued.max.messages.kbytes": 8_192,
                "fetch.max.bytes": _fetch_bytes(self._settings.extra),
                "partition.assignment.strategy": "cooperative-sticky",
                "topic.metadata.refresh.interval.ms": 30_000,  # how soon partitions that were added are found
                "bootstrap.servers": self._settings.brokers,
                "logger": LOG,
                **self._settings.extra,
                "group.id": self._group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,  # what lies behind the last record is known by nothing else
                "auto.offset.reset": "error",
                "on_commit": self._on_commit,
                "error_cb": self._on_error,
            }
        )
        self._starts = StartOffsets(self._consumer, self._admin, self._ledger, self._topics)
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

    # -- whose fault ---------------------------------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in NOT_LET_IN:
            self._door.refused(time.monotonic())
        elif error.fatal() or error.code() in DEPLOYMENT_ERRORS:
            self._note(DeploymentFault(f"the broker {self._settings.brokers} refuses us: {name_of(error)}"))
        elif error.code() == KafkaError._INVALID_ARG:  # noqa: SLF001 - from a client's construction
            self._note(DeploymentFault(f"librdkafka rejects the KAFKA_… settings: {error.str()}"))
        log.warning("waiting for the broker", brokers=self._settings.brokers, error=name_of(error))

    def _knock(self, *, answered: bool) -> None:
        """Whether we are let in shows in what is answered; a refusal that lasts is the deployment's fault."""
        if answered:
            self._door.opened()
        elif self._door.shut(time.monotonic()):
            self._note(
                DeploymentFault(
                    f"the broker {self._settings.brokers} rejects our login: check KAFKA_SECURITY_PROTOCOL, "
                    f"KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
                )
            )

    def _on_message_error(self, message: Message, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._reset.add(cast("tuple[str, int]", (message.topic(), message.partition())))
        else:
            self._on_error(error)

    # -- which topic is it ---------------------------------------------------------------------------------------

    def confirm(self) -> None:
        """Ask, after each read, whether the topics are still the ones that the assignments began with."""
        assert self._ids is not None
        current = self._in_hand.current
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
        topics = {a.topic for a in current.values()} or (set(self._topics) if self._door.suspected else set())
        if topics and self._ids.begin(topics, busy=busy):
            self._asked = {number: a.next for number, a in current.items()}

    def _confirm_now(self) -> None:
        """The same, waiting for the answer: partitions are about to be given up."""
        assert self._ids is not None
        current = self._in_hand.current
        try:
            ids = self._ids.now({a.topic for a in current.values()})
        except KafkaException:
            return
        for held in current.values():
            if ids.get(held.topic) == held.topic_id:
                held.confirmed = held.next

    def _restart_reset(self) -> None:
        """An offset that is not there: made anew under us (another topic id) means start again, else it expired."""
        assert self._consumer is not None
        assert self._ids is not None
        waiting, self._reset = self._reset, set()
        try:
            ids = self._ids.now({topic for topic, _ in waiting})
            for topic, partition in waiting:
                held = self._in_hand.of(topic, partition)
                if held is None:
                    continue
                if topic not in ids:  # deleted, and not there again yet
                    self._reset.add((topic, partition))
                elif held.topic_id == ids[topic]:
                    at = TopicPartition(topic, partition)
                    low, high = self._consumer.get_watermark_offsets(at, REQUEST_SECONDS)
                    self._note(_expired(self._group, topic, partition, held.next, low, high))
                else:
                    self._begin_anew(topic, ids[topic])
        except KafkaException:
            self._reset |= waiting

    def _begin_anew(self, topic: str, topic_id: str) -> None:
        """The topic was made again: what was read of the new one under the old id is read again, from the beginning."""
        assert self._consumer is not None
        log.warning("the topic was made again; reading it from its beginning", topic=topic)
        self._topic_ids[topic] = topic_id
        for held in [a for a in self._in_hand.current.values() if a.topic == topic]:
            self._drop(topic, held.partition)
            self._unassign(self._consumer, [TopicPartition(topic, held.partition)])
            self._unstarted.append(TopicPartition(topic, held.partition))

    # -- rebalances ----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The rebalance is over; where to begin is asked for in the next window, where it holds up nobody."""
        consumer.incremental_assign([])
        self._unstarted += partitions

    def _begin(self) -> None:
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
            self._in_hand.assign(start.topic, start.topic_id, start.partition, start.offset).confirmed = start.offset
            log.info("assigned", topic=start.topic, partition=start.partition, start=start.offset, by=start.by)
        if starts:
            begun = [TopicPartition(start.topic, start.partition, start.offset) for start in starts]
            self._consumer.incremental_assign(begun)
            self._begun |= {(start.topic, start.partition) for start in starts}
            self._consumer.resume(begun)  # librdkafka's pause outlives an assignment: it would come back mute

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight, report, commit, and only then let go: the next owner writes newer rows at once."""
        deadline = time.monotonic() + REVOKE_SECONDS
        self._confirm_now()
        self._finish(deadline - time.monotonic())
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
        self._in_hand.end(topic, partition)
        self._unstarted = [p for p in self._unstarted if (p.topic, p.partition) != (topic, partition)]
        self._stash = [m for m in self._stash if (m.topic(), m.partition()) != (topic, partition)]

    def _pause(self) -> None:
        assert self._consumer is not None
        self._paused = True
        self._consumer.pause(self._consumer.assignment())

    def _resume(self) -> None:
        assert self._consumer is not None
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())

    # -- commits -------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Move the group offset, one request at a time; refusals in a rebalance are tried again by the next call."""
        assert self._consumer is not None
        if self._committing:
            return
        if due := self._in_hand.committable():
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
        held = self._in_hand.of(p.topic, p.partition)
        if held is not None and p.offset <= held.position:
            held.committed = max(held.committed, p.offset)

    def _commit_now(self) -> None:
        assert self._consumer is not None
        if not (due := self._in_hand.committable()):
            return
        try:
            for p in self._consumer.commit(offsets=[_position(a) for a in due], asynchronous=False) or ():
                if p.error is None:
                    self._committed(p)
        except KafkaException as error:
            log.info("commit put off", error=name_of(error))


def _place(message: Message) -> PartitionKey:
    return cast("PartitionKey", (message.topic(), message.partition()))


def _is_end(message: Message) -> bool:
    """Whether it only says that its partition ends here; it stays in its place, behind what is to be read before."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001


def _runs(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Consecutive messages of one partition; what is no record is a run of its own."""
    run: list[Message] = []
    topic, partition, add = "", -1, run.append
    for message in messages:
        if message.partition() == partition and message.topic() == topic and message.error() is None:
            add(message)
            continue
        if run:
            yield run
        run = [message]
        topic, partition = _place(message) if message.error() is None else ("", -1)
        add = run.append
    if run:
        yield run


def _position(assignment: Assignment) -> TopicPartition:
    """The topic's id goes along: a commit with another id is of a topic that is gone, and no position in this one."""
    return TopicPartition(assignment.topic, assignment.partition, assignment.position, metadata=assignment.topic_id)


def _fetch_bytes(told: Mapping[str, str]) -> int:
    """Of one answer; librdkafka refuses a bound that is less than the largest message that it was told.

    >>> _fetch_bytes({}), _fetch_bytes({"message.max.bytes": "10000000"})
    (4194304, 10000000)
    """
    largest = told.get("message.max.bytes", "")
    return max(FETCH_BYTES, int(largest) if largest.isdecimal() else 0)


def _expired(pipeline: str | None, topic: str, partition: int, wanted: int, low: int, high: int) -> DeploymentFault:
    return DeploymentFault(
        f"offset {wanted} of {topic}-{partition} is gone: the topic holds {low}…{high - 1}. Records were deleted "
        f"before they were read; to go on with what is there: kafka-consumer-groups --group {pipeline} "
        f"--topic {topic}:{partition} --reset-offsets --to-earliest --execute"
    )
