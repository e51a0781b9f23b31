"""A member of a consumer group: it polls, gets and loses partitions, and commits positions.

Every call comes from the worker's one thread, and librdkafka runs its callbacks within a poll. The consumer holds a
partition for the time of an assignment (`runtime.in_flight`). Records are reported only while the broker says that the
topic is still the one that the assignment began with (`topic_ids`).

    group assigns ─▶ ASSIGNED ─ start offset known ─▶ READING ─ the broker has no such offset ─▶ RESETTING
                        ▲                                ▲                                          │
                        └────── the topic was made again ┴──────── (expired: the worker stops) ─────┘
"""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from lovelace_streams.columns import Chunk, assignment_of
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.admin import max_message_bytes
from lovelace_streams.kafka.client import LIBRDKAFKA_LOG, REFUSED_IN_REBALANCE, common_config
from lovelace_streams.kafka.end_offsets import EndOffsets
from lovelace_streams.kafka.faults import ErrorKind, Refusals, name_of
from lovelace_streams.kafka.headers import chunk_of, has_replays, records_of
from lovelace_streams.kafka.own_topics import replay_topic
from lovelace_streams.kafka.start_offsets import StartOffsets
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS, TopicIds
from lovelace_streams.observability import metrics
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.in_flight import Assignment
from lovelace_streams.runtime.worker import WorkerContext

log = structlog.get_logger(__name__)

QUIET_SECONDS = 10.0
"""Treat the topics as silent after this time of empty polls, even if a partition's end is unknown or not reached."""
REVOKE_SECONDS = 5.0
"""How long giving up a partition may wait for what is in flight; then the destination's connection is closed."""
FETCH_BYTES_MAX = 1024 * 1024
"""Bytes of one answer of the broker, unless its messages may be larger. An answer is one buffer: with 4 MiB, and 8 MiB
that wait for each partition, nearly every buffer was of fresh pages, which the kernel clears and no cache holds. So to
read cost a fifth more CPU (1.19 against 0.96 µs a message of 460 bytes)."""
QUEUED_KBYTES_MAX = 2048
"""How many kilobytes wait for each partition; by default up to 64 MiB do."""
CONSUME_MESSAGES_MAX, CONSUME_RECORDS_MAX = 500, 200
"""Messages of one call that become chunks, or records. They are freed as soon as they are read, while their bytes are
still in the CPU's cache: making a record costs half as much again in lists of 1,000. A larger chunk takes fewer calls a
message: the whole job takes 7.7 against 8.1 µs a row (`python -m benchmarks stages`)."""
CHUNK_BYTES_MAX = 256 * 1024
"""Bytes of the messages of a chunk, unless one alone has more: its columns are made and encoded at once, and let go
while they are in the cache."""
CHUNK_MESSAGES_MIN, CHUNK_BYTES_MIN = 8, 8192
"""The smallest chunk: fewer messages are read as records, unless they are large and may hold many items."""
PartitionKey = tuple[str, int]
"""Topic and partition."""


class PartitionState(Enum):
    """What the consumer does with a partition that the group has assigned to it."""

    ASSIGNED = "assigned"
    """It reads nothing yet: its start offset is not known."""
    READING = "reading"
    RESETTING = "resetting"
    """It reads nothing: the broker has no record at its position, and its topic's id is not known yet."""


class GroupConsumer:
    """The `Reader` of a `KafkaSource`: one consumer of a group, and the partitions assigned to it."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._group = context.pipeline
        self._settings = context.settings
        self._in_flight = context.in_flight
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None
        self._ids: TopicIds | None = None
        self._start_offsets: StartOffsets | None = None
        self._end_offsets: EndOffsets | None = None
        self._refusals = Refusals(context.settings.brokers)
        self._unanswered = False
        """Whether the broker did not answer the last request for topic ids."""
        self._topic_ids: dict[str, str] = {}
        self._asked: dict[int, int] = {}
        """Assignment → the end of what was read when its topic's id was last asked for."""
        self._partitions: dict[PartitionKey, PartitionState] = {}
        self._held_messages: list[Message] = []
        """Messages that arrived while the partitions were paused; the next `read` begins with them."""
        self._paused = False
        self.behind = False
        self._window_ended_at = float("-inf")
        self._empty_since: float | None = None
        self._committing = False

    @property
    def is_open(self) -> bool:
        """Whether it has joined the group."""
        return self._consumer is not None

    @property
    def starting(self) -> bool:
        """Whether it holds partitions that it does not read yet."""
        return PartitionState.ASSIGNED in self._partitions.values()

    @property
    def can_read(self) -> bool:
        """Whether nothing keeps it from reading: the broker answers, the group lets it in, each start is known."""
        held_up = {PartitionState.ASSIGNED, PartitionState.RESETTING} & set(self._partitions.values())
        return self.is_open and not self._unanswered and not held_up and self._refusals.suspected is None

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, count: int, seconds: float) -> list[Envelope[bytes] | Chunk]:
        """Gather at most `count` messages, as records or chunks in flight, until `seconds` after the last window.

        The time counts from the last window, because messages that have arrived since have waited already.
        """
        if self.starting:
            self._start_assigned()
        self._resume()
        held_messages, self._held_messages = self._held_messages, []
        began = time.monotonic()
        assignments = set(self._in_flight.current)
        window = self._in_flight_of(held_messages)
        left = self._fill(window, count - _messages_in(window), began)
        self.behind = left <= 0
        self._fill(window, left, max(began, self._window_ended_at + seconds))
        self._window_ended_at = time.monotonic()
        if not assignments <= self._in_flight.current.keys():  # one was given up meanwhile: drop its messages
            window = [part for part in window if assignment_of(part) in self._in_flight.current]
        self._empty_since = None if window else self._empty_since or began
        return window

    def _fill(self, window: list[Envelope[bytes] | Chunk], left: int, deadline: float) -> int:
        """Read until the window is full or the deadline is over; messages that have arrived are taken in any case.

        Takes and returns for how many messages there is room.
        """
        most = CONSUME_RECORDS_MAX if self._context.columnar is None else CONSUME_MESSAGES_MAX
        while (wanted := min(most, left)) > 0:
            messages = self._consume(wanted, max(0.0, deadline - time.monotonic()))
            found = self._in_flight_of(messages)
            window += found
            left -= _messages_in(found)
            if len(messages) < wanted:
                break
        return left

    def idle(self, seconds: float) -> None:
        """Poll with all partitions paused, to stay a member; messages that arrive nevertheless are kept for later."""
        self._pause()
        self.behind = False
        arrived = self._consume(1, seconds)
        self._held_messages += arrived  # after the callbacks, which may have dropped some held messages

    def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            self._consumer.close()

    def is_caught_up(self) -> bool:
        """Whether a poll found nothing because there is nothing to read, not because a fetch was slow.

        On a busy machine a fetch takes longer than one poll, and letters of a wrong deployment would be sent meanwhile.
        So the end of every partition must be known and reached. An end cannot be reached while a transaction is open,
        nor known while the partition's broker is away: after `QUIET_SECONDS` of empty polls that does not count. The
        time that the steps take between two polls is not part of it.
        """
        if self._empty_since is not None and time.monotonic() - self._empty_since > QUIET_SECONDS:
            return True
        ends = ((a, self._fetched_end(a)) for a in self._in_flight.current.values())
        return all(end is not None and end <= a.next for a, end in ends)

    def known_end(self, assignment: Assignment) -> int | None:
        """Give the end of a partition as the broker told it last; None while it does not answer.

        A fetch tells the end, and goes on telling the old one when the consumer does not fetch any more. So the broker
        is asked for the end too, while nothing is read.
        """
        if self._unanswered:
            return None
        told = self._end_offsets.of(assignment) if self._end_offsets is not None else None
        ends = [end for end in (self._fetched_end(assignment), told) if end is not None]
        return max(ends, default=None)

    def _fetched_end(self, assignment: Assignment) -> int | None:
        """Give the end of a partition as of the last fetch; None before the first fetch."""
        assert self._consumer is not None
        try:
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(assignment.topic, assignment.partition), cached=True
            )
        except KafkaException:
            return None
        return int(end) if end >= 0 else None

    def _in_flight_of(self, messages: Sequence[Message]) -> list[Envelope[bytes] | Chunk]:
        """Make chunks, or records, in flight of the messages of current assignments."""
        held: dict[PartitionKey, Assignment] = {(a.topic, a.partition): a for a in self._in_flight.current.values()}
        parts: list[Envelope[bytes] | Chunk] = []
        for run in _by_partition(messages):
            assignment = held.get(_key_of(run[0]))
            if assignment is None:
                continue
            if run[0].error() is not None:
                self._in_flight.pass_over(assignment.number, cast("int", run[0].offset()))
            else:
                found = self._read_run(run, assignment)
                metrics.read(self._group, assignment.topic, assignment.partition, _messages_in(found))
                parts += found
        return parts

    def _read_run(self, run: list[Message], assignment: Assignment) -> Sequence[Envelope[bytes] | Chunk]:
        """Note messages of one partition as in flight, as chunks if the flow takes them. Replays are single items."""
        if self._context.columnar is not None and not has_replays(assignment.topic) and _is_worth_a_chunk(run):
            return [chunk for piece in _pieces(run) for chunk in self._read_chunk(piece, assignment)]
        if records := records_of(run, assignment):
            self._in_flight.read(*records)
        return [Envelope(record, 0, cast("bytes", record.value)) for record in records]

    def _read_chunk(self, messages: list[Message], assignment: Assignment) -> Iterator[Chunk]:
        """Note messages as a chunk in flight; yield it, unless all were read before."""
        if (chunk := chunk_of(messages, assignment)) is not None:
            chunk.loop = self._context.columnar
            self._in_flight.read_chunk(chunk)
            yield chunk

    def _consume(self, count: int, seconds: float) -> list[Message]:
        assert self._consumer is not None
        messages = self._consumer.consume(count, seconds)
        refused = [message for message in messages if message.error() is not None and not _is_end(message)]
        for message in refused:
            self._on_message_error(message, cast("KafkaError", message.error()))
        if PartitionState.RESETTING in self._partitions.values():
            self._judge_resets()
        return [message for message in messages if message not in refused] if refused else messages

    # -- joining --------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Connect, check the topics, make the replay topic and join the group; False while the broker is away."""
        try:
            self._connect()
        except KafkaException as error:
            if self._admin is not None:
                self._admin.poll(0)  # librdkafka passes the reason to `error_cb`, and only within a poll
            self._on_error(error.args[0])
            self._note_overdue()
            return False
        except DeploymentFault as fault:
            self._context.note(fault)
            return False
        self._refusals.accepted(ErrorKind.LOGIN)
        return True

    def _connect(self) -> None:
        if self._admin is None:
            self._admin = self._context.clients.admin(common_config(self._settings, error_cb=self._on_error))
        replay = f"{self._group}.replay"
        topics = [*self._context.topics, replay]
        listed = self._admin.list_topics(timeout=REQUEST_SECONDS).topics
        for topic in self._context.topics:
            if topic not in listed:
                raise DeploymentFault(
                    f"the flow reads topic {topic!r}, which the broker {self._settings.brokers} does not have: "
                    f"create it, or set the topic that it should read"
                )
        if not self._has_replay_topic(replay, exists=replay in listed):
            topics.remove(replay)
        self._ids = TopicIds(self._admin)
        self._end_offsets = EndOffsets(self._admin, self._settings.extra.get("isolation.level", ""))
        self._topic_ids = self._ids.now(topics)
        self._consumer = self._context.clients.consumer(
            {
                # With the default, 1 s, the fetcher sleeps whenever the queue was full: 250k against 1.2M
                # messages/s on one core, 432-byte messages, librdkafka 2.x.
                "fetch.queue.backoff.ms": 5,
                "queued.max.messages.kbytes": QUEUED_KBYTES_MAX,
                "fetch.max.bytes": _fetch_bytes_max(self._settings.extra),
                "partition.assignment.strategy": "cooperative-sticky",
                "topic.metadata.refresh.interval.ms": 30_000,  # how soon new partitions are found
                "bootstrap.servers": self._settings.brokers,
                "logger": LIBRDKAFKA_LOG,
                **self._settings.librdkafka,
                "group.id": self._group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,  # offsets behind the last record show in nothing else
                "auto.offset.reset": "error",
                "on_commit": self._on_commit,
                "error_cb": self._on_error,
            }
        )
        ledger, in_ledger = self._context.ledger_cover, self._context.topics
        self._start_offsets = StartOffsets(self._consumer, self._admin, ledger, in_ledger)
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _has_replay_topic(self, name: str, *, exists: bool) -> bool:
        """Make the replay topic, unless it exists; one on which replays would be lost is refused."""
        assert self._admin is not None
        as_made = False
        if not exists:
            largest = max(max_message_bytes(self._admin, topic) for topic in self._context.topics)
            try:
                as_made = replay_topic(name, largest).make(self._admin)
            except KafkaException as error:
                log.warning("no replay topic; replays are off", topic=name, error=name_of(error))
                return False
        if not as_made and (fault := replay_topic(name).judge(self._admin)) is not None:
            raise fault
        return True

    # -- whose fault ---------------------------------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        """Note an error of any request: it stops the worker, or is waited for."""
        if (fault := self._refusals.hear(error)) is not None:
            self._context.note(fault)
        elif self._refusals.is_news(error):
            log.warning("waiting for the broker", brokers=self._settings.brokers, error=name_of(error))

    def _note_overdue(self) -> None:
        """Stop the worker if the broker has refused it for too long."""
        if (fault := self._refusals.overdue()) is not None:
            self._context.note(fault)

    def _on_message_error(self, message: Message, error: KafkaError) -> None:
        if error.code() != KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._on_error(error)
        elif self._partitions.get(key := _key_of(message)) is PartitionState.READING:  # a late one says nothing of it
            self._partitions[key] = PartitionState.RESETTING

    # -- which topic is it ---------------------------------------------------------------------------------------

    def confirm(self) -> None:
        """Ask, after each read, whether the topics are still the ones that the assignments began with."""
        assert self._ids is not None
        current = self._in_flight.current
        ids = self._ids.answer()
        if ids is not None:
            self._note_answer(answered=bool(ids))
        self._note_overdue()
        if ids is not None:
            asked, self._asked = self._asked, {}
            for number, upto in asked.items():
                held = current.get(number)
                if held is not None and ids.get(held.topic) == held.topic_id:
                    held.confirmed = upto
            for topic in {a.topic for a in current.values() if ids.get(a.topic, a.topic_id) != a.topic_id}:
                self._restart_topic(topic, ids[topic])
        busy = any(a.next > a.confirmed for a in current.values())
        topics = {a.topic for a in current.values()} or set(self._context.topics)  # whether the broker answers at all
        if self._ids.begin(topics, busy=busy):
            self._asked = {number: a.next for number, a in current.items()}
        assert self._end_offsets is not None
        self._end_offsets.ask(current, quiet=self._empty_since is not None)

    def _note_answer(self, *, answered: bool) -> None:
        """Note whether the broker answered the request for topic ids, which shows that it accepts the login."""
        assert self._ids is not None
        self._unanswered = not answered
        if answered:
            self._refusals.accepted(ErrorKind.LOGIN)
        elif self._ids.error is not None:
            self._on_error(self._ids.error)

    def _confirm_now(self) -> None:
        """Ask the same, and wait for the answer: partitions are about to be given up."""
        assert self._ids is not None
        current = self._in_flight.current
        try:
            ids = self._ids.now({a.topic for a in current.values()})
        except KafkaException:
            return
        for held in current.values():
            if ids.get(held.topic) == held.topic_id:
                held.confirmed = held.next

    def _judge_resets(self) -> None:
        """Restart topics that were made again: they have another id. If the id is the same, the offset has expired.

        A partition whose topic does not exist, or whose broker does not answer, keeps its state until the next poll.
        """
        assert self._ids is not None
        waiting = [key for key, state in self._partitions.items() if state is PartitionState.RESETTING]
        try:
            ids = self._ids.now({topic for topic, _ in waiting})
            for topic, partition in waiting:
                held = self._in_flight.of(topic, partition)
                if held is None or self._partitions.get((topic, partition)) is not PartitionState.RESETTING:
                    continue
                if topic in ids and held.topic_id == ids[topic]:
                    self._note_expired(held)
                elif topic in ids:
                    self._restart_topic(topic, ids[topic])
        except KafkaException as error:
            self._on_error(error.args[0])

    def _note_expired(self, held: Assignment) -> None:
        assert self._consumer is not None
        partition = TopicPartition(held.topic, held.partition)
        low, high = self._consumer.get_watermark_offsets(partition, REQUEST_SECONDS)
        self._context.note(_expired(self._group, held.topic, held.partition, held.next, low, high))
        self._partitions[held.topic, held.partition] = PartitionState.READING

    def _restart_topic(self, topic: str, topic_id: str) -> None:
        """Read a topic that was made again from its beginning, also the records already read under the old id."""
        assert self._consumer is not None
        log.warning("the topic was made again; reading it from its beginning", topic=topic)
        self._topic_ids[topic] = topic_id
        for held in [a for a in self._in_flight.current.values() if a.topic == topic]:
            self._release(self._consumer, [TopicPartition(topic, held.partition)])
            self._partitions[topic, held.partition] = PartitionState.ASSIGNED

    # -- rebalances ----------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Note the assigned partitions; the next window asks for their starts, which here would delay the rebalance."""
        self._refusals.accepted(ErrorKind.GROUP)
        consumer.incremental_assign([])
        self._partitions |= {(p.topic, p.partition): PartitionState.ASSIGNED for p in partitions}

    def _start_assigned(self) -> None:
        """Start reading assigned partitions whose start offset is known; every window asks again for the others."""
        assert self._consumer is not None
        assert self._ids is not None
        assert self._start_offsets is not None
        assigned = [TopicPartition(*key) for key, state in self._partitions.items() if state is PartitionState.ASSIGNED]
        try:
            self._topic_ids |= self._ids.now({p.topic for p in assigned})
            starts, _ = self._start_offsets.find(assigned, self._topic_ids)
        except KafkaException as error:
            self._on_error(error.args[0])
            return
        for start in starts:
            self._in_flight.assign(start.topic, start.topic_id, start.partition, start.offset).confirmed = start.offset
            log.info("assigned", topic=start.topic, partition=start.partition, start=start.offset, by=start.by)
        if starts:
            started = [TopicPartition(start.topic, start.partition, start.offset) for start in starts]
            self._consumer.incremental_assign(started)
            self._partitions |= {(start.topic, start.partition): PartitionState.READING for start in starts}
            self._consumer.resume(
                started
            )  # librdkafka's pause outlives an assignment: a partition that comes back would be paused

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight, report, commit, and only then release the partitions."""
        deadline = time.monotonic() + REVOKE_SECONDS
        self._confirm_now()
        self._context.revoke(deadline - time.monotonic())
        self._commit_now()
        log.info("revoked", partitions=[f"{p.topic}-{p.partition}" for p in partitions])
        self._release(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Release the partitions at once: another worker owns them already, so none of their items may be written."""
        log.warning("lost", partitions=[f"{p.topic}-{p.partition}" for p in partitions])
        self._release(consumer, partitions)

    def _release(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """End the assignments of these partitions and drop their held messages.

        Only started partitions are unassigned: for others librdkafka raises a bare KafkaError, which is no exception.
        `_partitions` says which were started, because `assignment()` raises while the consumer closes, and closing
        calls this too.
        """
        keys = {(p.topic, p.partition) for p in partitions}
        for topic, partition in keys:
            self._in_flight.end(topic, partition)
        self._held_messages = [m for m in self._held_messages if _key_of(m) not in keys]
        states = {key: self._partitions.pop(key, PartitionState.ASSIGNED) for key in keys}
        started = [p for p in partitions if states[p.topic, p.partition] is not PartitionState.ASSIGNED]
        consumer.incremental_unassign(started)

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
        """Commit the positions, one request at a time; the next call repeats what was refused in a rebalance."""
        assert self._consumer is not None
        if self._committing:
            return
        if due := self._in_flight.committable():
            self._committing = True
            try:
                self._consumer.commit(offsets=[_position(a) for a in due], asynchronous=True)
            except KafkaException as error:
                self._committing = False
                self._on_refused_commit(error.args[0])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._committing = False
        if error is not None:
            self._on_refused_commit(error)
            return
        for p in partitions:
            if p.error is None:
                self._committed(p)
            else:
                self._on_refused_commit(p.error)

    def _on_refused_commit(self, error: KafkaError) -> None:
        """Put a commit off, or stop the worker: a commit that is refused for ever shows in no lag."""
        if error.code() in REFUSED_IN_REBALANCE:
            return
        if (fault := self._refusals.hear(error)) is not None:
            self._context.note(fault)
        elif self._refusals.is_news(error):
            log.info("commit put off", error=name_of(error))

    def _committed(self, p: TopicPartition) -> None:
        held = self._in_flight.of(p.topic, p.partition)
        if held is not None and p.offset <= held.position:
            held.committed = max(held.committed, p.offset)

    def _commit_now(self) -> None:
        assert self._consumer is not None
        if not (due := self._in_flight.committable()):
            return
        try:
            for p in self._consumer.commit(offsets=[_position(a) for a in due], asynchronous=False) or ():
                if p.error is None:
                    self._committed(p)
                else:
                    self._on_refused_commit(p.error)
        except KafkaException as error:
            self._on_refused_commit(error.args[0])


def _messages_in(parts: Sequence[Envelope[bytes] | Chunk]) -> int:
    chunks = [part for part in parts if isinstance(part, Chunk)]
    return len(parts) - len(chunks) + sum(map(len, chunks))


def _key_of(message: Message) -> PartitionKey:
    return cast("PartitionKey", (message.topic(), message.partition()))


def _is_end(message: Message) -> bool:
    """Whether it is the event that a partition ends here, which comes in its place behind the records before it."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001


def _by_partition(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Group messages by their partitions, each in its order; an event is a group of its own.

    Where much arrives, most calls give records of one partition. Where little does, messages of many lie among each
    other.
    """
    if messages and _are_records_of_one_partition(messages):
        yield list(messages)
        return
    groups: dict[PartitionKey, list[Message]] = {}
    key: PartitionKey | None = None
    group: list[Message] = []
    add = group.append
    for message in messages:
        found = _key_of(message)
        if message.error() is not None:
            if before := groups.pop(found, None):
                yield before
            key = None
            yield [message]
            continue
        if found != key:
            key, add = found, groups.setdefault(found, []).append
        add(message)
    yield from groups.values()


def _are_records_of_one_partition(messages: Sequence[Message]) -> bool:
    if False in [message.error() is None for message in messages]:  # an error is no record, and equals nothing
        return False
    count, first, message = len(messages), messages[0], messages[0].__class__
    return (
        list(map(message.partition, messages)).count(first.partition()) == count
        and list(map(message.topic, messages)).count(first.topic()) == count
    )


def _pieces(messages: list[Message]) -> Iterator[list[Message]]:
    """Cut consecutive messages into pieces of about `CHUNK_BYTES_MAX`, or of one that is larger."""
    ends = list(accumulate(map(len, messages)))
    start, count = 0, len(messages)
    while start < count:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, bisect_right(ends, before + CHUNK_BYTES_MAX, start))
        yield messages[start:stop] if stop - start < count else messages
        start = stop


def _is_worth_a_chunk(messages: Sequence[Message]) -> bool:
    """Whether columns of so many messages cost less than items: a chunk costs as much as eight usual messages."""
    return len(messages) >= CHUNK_MESSAGES_MIN or sum(map(len, messages)) >= CHUNK_BYTES_MIN


def _position(assignment: Assignment) -> TopicPartition:
    """Make what is committed. The topic's id is its metadata: a commit with another id is of a deleted topic."""
    return TopicPartition(assignment.topic, assignment.partition, assignment.position, metadata=assignment.topic_id)


def _fetch_bytes_max(extra: Mapping[str, str]) -> int:
    """Choose the bytes of one answer; librdkafka refuses a number below `message.max.bytes`.

    >>> _fetch_bytes_max({}), _fetch_bytes_max({"message.max.bytes": "10000000"})
    (1048576, 10000000)
    """
    largest = extra.get("message.max.bytes", "")
    return max(FETCH_BYTES_MAX, int(largest) if largest.isdecimal() else 0)


def _expired(pipeline: str | None, topic: str, partition: int, wanted: int, low: int, high: int) -> DeploymentFault:
    return DeploymentFault(
        f"offset {wanted} of {topic}-{partition} is gone: the topic holds {low}…{high - 1}. Records were deleted "
        f"before they were read; to go on with what is there: kafka-consumer-groups --group {pipeline} "
        f"--topic {topic}:{partition} --reset-offsets --to-earliest --execute"
    )
