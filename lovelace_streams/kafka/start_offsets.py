"""Choose a partition's start: the committed offset, else the end of the ledger's first range, else the earliest.

The broker is asked and waited for; the ledger is another server and is asked in the background: partitions whose start
it has to say are left for the next call, so that it costs neither the group's membership nor a rebalance.
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
"""Partition → what is settled of it."""
T = TypeVar("T")


class StartOffset(NamedTuple):
    """Where to begin, and what says so."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    by: str


class StartOffsets:
    """Finds starts for partitions of a consumer's group; `ledger(topic_id)` may take its time."""

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
        """Those that the ledger is asked about."""
        self._asked: dict[str, Future[Covers]] = {}

    def find(
        self, partitions: list[TopicPartition], topic_ids: dict[str, str]
    ) -> tuple[list[StartOffset], list[TopicPartition]]:
        """The starts that are known, and the partitions to ask for again. Raises `KafkaException`.

        A commit that was made for another topic id is none: it names offsets of a topic that is gone.
        """
        starts, waiting = [], []
        unknown: list[tuple[TopicPartition, Covers]] = []
        for held in self._consumer.committed(partitions, REQUEST_SECONDS):
            if held.error is not None:  # not told is not the same as never committed
                raise KafkaException(held.error)
            topic_id = topic_ids.get(held.topic, "")
            if held.offset >= 0 and held.metadata in {None, "", topic_id}:
                starts.append(StartOffset(held.topic, topic_id, held.partition, held.offset, "committed"))
            elif (covers := self._covers(held.topic, topic_id)) is None:
                waiting.append(TopicPartition(held.topic, held.partition))
            else:
                unknown.append((TopicPartition(held.topic, held.partition), covers))
        lows = self._lows([at for at, _ in unknown])
        for at, covers in unknown:
            low = lows[at.topic, at.partition]
            offset = covers.get(at.partition, Offsets()).end_of(low)
            by = "ledger" if offset > low else "earliest"
            starts.append(StartOffset(at.topic, topic_ids.get(at.topic, ""), at.partition, offset, by))
        still = {topic_ids.get(p.topic, "") for p in waiting}
        self._asked = {topic_id: asked for topic_id, asked in self._asked.items() if topic_id in still}
        return starts, waiting

    def _covers(self, topic: str, topic_id: str) -> Covers | None:
        """What the ledger knows, None while it has not answered: only its unbroken beginning may be passed over."""
        if self._ledger is None or topic not in self._topics:
            return {}
        if topic_id not in self._asked:
            ledger = self._ledger
            self._asked[topic_id] = in_background(lambda: ledger(topic_id))
        return self._asked[topic_id].result() if self._asked[topic_id].done() else None

    def _lows(self, partitions: list[TopicPartition]) -> dict[tuple[str, int], int]:
        """Where partitions begin, asked at once and over a connection without fetches.

        On the consumer's own each question waits behind a fetch that is held for half a second while a topic is silent.
        """
        if not partitions:
            return {}
        wanted = {at: OffsetSpec.earliest() for at in partitions}  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(wanted, request_timeout=REQUEST_SECONDS)
        return {(at.topic, at.partition): int(answer.result().offset) for at, answer in answers.items()}


def in_background(function: Callable[[], T]) -> Future[T]:
    """Call it in a thread that the process does not wait for."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=call, name="ledger", daemon=True).start()
    return future
