"""A broker in memory, behind the calls that the library makes of librdkafka's clients.

It replaces the network, not Kafka: a group has one member, there is no rebalance, nothing expires, every call answers
at once. Those are tested on real brokers, in this project's own tests.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from lovelace_streams.kafka.client import KafkaClients
from lovelace_streams.runtime.process import WorkerProcess

Headers = Sequence[tuple[str, bytes | None]]
PartitionKey = tuple[str, int]
"""Topic and partition."""

NOTHING_COMMITTED = -1001
"""librdkafka's offset for a group that has committed nothing."""
CREATE_TIME = 1
MESSAGE_BYTES_MAX = 1_048_588
"""A real broker's default of `max.message.bytes`."""


class StoredMessage:
    """A message of a topic, with the methods of a `confluent_kafka.Message`."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp", "_topic", "_value", "sequence")

    def __init__(
        self,
        partition: PartitionKey,
        offset: int,
        sequence: int,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        ms: int,
    ) -> None:
        self._topic, self._partition = partition
        self._offset = offset
        self._value, self._key, self._headers, self._timestamp = value, key, list(headers), ms
        self.sequence = sequence
        """Its number among all messages of the broker: they are read in this order."""

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers or None

    def timestamp(self) -> tuple[int, int]:
        return CREATE_TIME, self._timestamp

    def error(self) -> None:
        return None

    def __len__(self) -> int:
        return len(self._value or b"")


class QuietProcess(WorkerProcess):
    """The process of a test: its log, ports, signals and garbage collector are left alone."""

    def begin(self, drain: Callable[..., None]) -> None:
        """Leave log, metrics and signals alone."""

    def started(self) -> None:
        """Leave the garbage collector alone."""

    def stop(self, line: str) -> None:
        """Return: `run` raises the fault."""


class Broker(KafkaClients):
    """Topics in memory, and clients of them. `on_silence` is called when a consumer has nothing left to read."""

    def __init__(self, on_silence: Callable[[], None]) -> None:
        self.on_silence = on_silence
        self.logs: dict[PartitionKey, list[StoredMessage]] = {}
        self.committed: dict[PartitionKey, int] = {}
        self.is_cut_off = False
        """Whether the worker was killed: its consumer gives nothing up any more."""
        self._sequence = count()

    def consumer(self, config: dict[str, Any]) -> Consumer:
        return cast("Consumer", MemoryConsumer(self, config.get("on_commit")))

    def producer(self, config: dict[str, Any]) -> Producer:  # noqa: ARG002
        return cast("Producer", MemoryProducer(self))

    def admin(self, config: dict[str, Any]) -> AdminClient:  # noqa: ARG002
        return cast("AdminClient", MemoryAdmin(self))

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic, unless it exists."""
        for partition in range(partitions):
            self.logs.setdefault((topic, partition), [])

    def append(
        self, partition: PartitionKey, value: bytes | None, key: bytes | None, headers: Headers, ms: int
    ) -> StoredMessage:
        """Store a message. Raises `KeyError` if there is no such topic or partition."""
        log = self.logs[partition]
        stored = StoredMessage(partition, len(log), next(self._sequence), value, key, headers, ms)
        log.append(stored)
        return stored

    def partitions(self, topics: Iterable[str]) -> list[PartitionKey]:
        """List all partitions of these topics."""
        wanted = set(topics)
        return [key for key in self.logs if key[0] in wanted]

    def topics(self) -> dict[str, int]:
        """Map each topic to its number of partitions."""
        numbers: dict[str, int] = {}
        for topic, _ in self.logs:
            numbers[topic] = numbers.get(topic, 0) + 1
        return numbers


class MemoryConsumer:
    """The only member of its group."""

    def __init__(self, broker: Broker, on_commit: Callable[[None, list[TopicPartition]], None] | None) -> None:
        self._broker = broker
        self._on_commit = on_commit
        self._on_assign: Callable[[Any, list[TopicPartition]], None] | None = None
        self._on_revoke: Callable[[Any, list[TopicPartition]], None] | None = None
        self._topics: list[str] = []
        self._positions: dict[PartitionKey, int] = {}
        self._paused: set[PartitionKey] = set()
        self._answers: list[list[TopicPartition]] = []

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:  # noqa: ARG002
        self._topics, self._on_assign, self._on_revoke = topics, on_assign, on_revoke

    def consume(self, number: int, seconds: float) -> list[StoredMessage]:
        """Run the callbacks first, as librdkafka does; then take messages, or report the silence."""
        if self._on_assign is not None:
            assign, self._on_assign = self._on_assign, None
            assign(self, [TopicPartition(*key) for key in self._broker.partitions(self._topics)])
        self._answer()
        found = list(self._next(number))
        if not found:
            self._broker.on_silence()
            time.sleep(min(seconds, 0.001))  # let other threads run
        return found

    def _answer(self) -> None:
        answers, self._answers = self._answers, []
        for partitions in answers:
            if self._on_commit is not None:
                self._on_commit(None, partitions)

    def _next(self, number: int) -> Iterator[StoredMessage]:
        logs = [
            map(self._broker.logs[key].__getitem__, range(position, len(self._broker.logs[key])))
            for key, position in self._positions.items()
            if key not in self._paused
        ]
        for stored, _ in zip(heapq.merge(*logs, key=lambda message: message.sequence), range(number), strict=False):
            self._positions[stored.topic(), stored.partition()] = stored.offset() + 1
            yield stored

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self._positions |= {(p.topic, p.partition): p.offset for p in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            del self._positions[p.topic, p.partition]

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(*key) for key in self._positions]

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {(p.topic, p.partition) for p in partitions}

    def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:  # noqa: ARG002
        held = self._broker.committed
        return [
            TopicPartition(p.topic, p.partition, held.get((p.topic, p.partition), NOTHING_COMMITTED))
            for p in partitions
        ]

    def get_watermark_offsets(
        self,
        partition: TopicPartition,
        timeout: float = -1,  # noqa: ARG002
        cached: bool = False,  # noqa: ARG002
    ) -> tuple[int, int]:
        return 0, len(self._broker.logs[partition.topic, partition.partition])

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        self._broker.committed |= {(p.topic, p.partition): p.offset for p in offsets}
        if not asynchronous:
            return offsets
        self._answers.append(offsets)
        return None

    def close(self) -> None:
        if self._on_revoke is not None and self._positions and not self._broker.is_cut_off:
            self._on_revoke(self, self.assignment())


class MemoryProducer:
    """Acknowledges its messages when it is polled, as a real producer does."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sent: list[tuple[Any, StoredMessage]] = []

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        headers: Headers = (),
        on_delivery: Any = None,
    ) -> None:
        self._broker.create(topic)
        stored = self._broker.append((topic, 0), value, key, headers, int(time.time() * 1000))
        self._sent.append((on_delivery, stored))

    def poll(self, seconds: float = 0) -> int:  # noqa: ARG002
        sent, self._sent = self._sent, []
        for on_delivery, stored in sent:
            if on_delivery is not None:
                on_delivery(None, stored)
        return len(sent)

    def flush(self, seconds: float = -1) -> int:
        self.poll(seconds)
        return 0

    def __len__(self) -> int:
        return len(self._sent)


class MemoryAdmin:
    """Answers about topics; a topic's id is its name."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:  # noqa: ARG002
        return SimpleNamespace(topics={name: SimpleNamespace(topic=name) for name in self._broker.topics()})

    def create_topics(self, topics: Iterable[Any], **_: Any) -> dict[str, Future[None]]:
        for new in topics:
            self._broker.create(new.topic, new.num_partitions)
        return {new.topic: _done(None) for new in topics}

    def list_offsets(self, wanted: dict[TopicPartition, Any], **_: Any) -> dict[TopicPartition, Future[Any]]:
        return {partition: _done(SimpleNamespace(offset=0)) for partition in wanted}

    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        return {name: _done(SimpleNamespace(topic_id=name)) for name in topics.topic_names}

    def describe_configs(self, resources: Iterable[Any], **_: Any) -> dict[Any, Future[Any]]:
        return {name: _done({"max.message.bytes": SimpleNamespace(value=str(MESSAGE_BYTES_MAX))}) for name in resources}


def _done(answer: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(answer)
    return future
