"""Choose a partition's start: the committed offset, else the end of the ledger's first range, else the earliest.

The broker is asked and waited for. The ledger is another server, so it is asked in the background: partitions that need
its answer are left for the next call, so that a slow ledger costs neither the group's membership nor a rebalance. Why a
gap near the beginning is read again: docs/decisions/0005-where-a-partition-begins.md.
"""

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS
from lovelace_streams.runtime.offsets import Offsets

Covers = dict[int, Offsets]
"""Partition → its covered offsets."""
T = TypeVar("T")


class StartOffset(NamedTuple):
    """Where to start reading a partition, and `by` what: committed, ledger or earliest."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    by: str


class StartOffsets:
    """Finds the start offsets of a consumer's partitions; `ledger(topic_id)` may block."""

    def __init__(
        self,
        consumer: Consumer,
        admin: AdminClient,
        ledger: Callable[[str], Covers] | None,
        topics: Collection[str],
    ) -> None:
        self._consumer = consumer
        self._admin = admin
        self._ledger = ledger
        self._topics = topics
        """Topics that the ledger is asked about."""
        self._asked: dict[str, Future[Covers]] = {}

    def find(
        self, partitions: list[TopicPartition], topic_ids: dict[str, str]
    ) -> tuple[list[StartOffset], list[TopicPartition]]:
        """Find the starts that are known, and the partitions to ask for again. Raises `KafkaException`.

        A commit with another topic id does not count: its offset is of a topic that was deleted.
        """
        starts, waiting = [], []
        unknown: list[tuple[TopicPartition, Covers]] = []
        for held in self._consumer.committed(partitions, REQUEST_SECONDS):
            if held.error is not None:  # an unknown position does not mean that nothing was committed
                raise KafkaException(held.error)
            topic_id = topic_ids.get(held.topic, "")
            if held.offset >= 0 and held.metadata in {None, "", topic_id}:
                starts.append(StartOffset(held.topic, topic_id, held.partition, held.offset, "committed"))
            elif (covers := self._covers(held.topic, topic_id)) is None:
                waiting.append(TopicPartition(held.topic, held.partition))
            else:
                unknown.append((TopicPartition(held.topic, held.partition), covers))
        lows = self._lows([p for p, _ in unknown])
        for p, covers in unknown:
            low = lows[p.topic, p.partition]
            offset = covers.get(p.partition, Offsets()).end_of(low)
            by = "ledger" if offset > low else "earliest"
            starts.append(StartOffset(p.topic, topic_ids.get(p.topic, ""), p.partition, offset, by))
        unanswered = {topic_ids.get(p.topic, "") for p in waiting}
        self._asked = {topic_id: asked for topic_id, asked in self._asked.items() if topic_id in unanswered}
        return starts, waiting

    def _covers(self, topic: str, topic_id: str) -> Covers | None:
        """Give the ledger's covered offsets of a topic; None while it has not answered."""
        if self._ledger is None or topic not in self._topics:
            return {}
        if topic_id not in self._asked:
            ledger = self._ledger
            self._asked[topic_id] = in_background(lambda: ledger(topic_id))
        return self._asked[topic_id].result() if self._asked[topic_id].done() else None

    def _lows(self, partitions: list[TopicPartition]) -> dict[tuple[str, int], int]:
        """Ask for the earliest offsets, all in one request and over the admin client's connection.

        On the consumer's own connection each request waits behind a fetch, which the broker holds for half a second
        while a topic is silent.
        """
        if not partitions:
            return {}
        wanted = {p: OffsetSpec.earliest() for p in partitions}  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(wanted, request_timeout=REQUEST_SECONDS)
        return {(p.topic, p.partition): int(answer.result().offset) for p, answer in answers.items()}


def in_background(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread that the process does not wait for at its end."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - `result` raises it in the caller
            future.set_exception(error)

    threading.Thread(target=call, name="ledger", daemon=True).start()
    return future
