"""Read the messages that a topic holds now, without joining a group or committing.

For commands and checks. The workers' own consumer is in `consumer`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.kafka.client import common_config
from lovelace_streams.settings import KafkaSettings

ANSWER_SECONDS_MAX = 15.0
"""How long the broker may take for its next answer before it counts as away."""
FIRST_ANSWER_SECONDS_MAX = 8.0
"""How long its first answer may take: a person at a terminal should not wait long for a broker that is away."""
QUESTION_SECONDS = 2.0
"""How long one request for the first answer waits; between two of them librdkafka reports refused connections."""

OffsetRanges = dict[int, tuple[int, int]]
"""Partition → first offset, and end (exclusive)."""


class NoSuchTopic(DeploymentFault):
    """The broker answers, and has no such topic."""


def messages(
    settings: KafkaSettings, topic: str, newest: int | None = None, oldest: int | None = None
) -> Iterator[Message]:
    """Read what a topic holds now, each partition in its order.

    `oldest` and `newest` limit it to that many offsets at the start and at the end of each partition; without either
    all of it is read. Raises `NoSuchTopic`, and `DestinationFault` if the broker is away.
    """
    with standalone_consumer(settings) as consumer:
        first, last = _oldest_and_newest(watermarks(consumer, settings, topic), newest, oldest)
        yield from _messages(consumer, settings, topic, first)
        yield from _messages(consumer, settings, topic, last)


def topic_names(settings: KafkaSettings) -> list[str]:
    """List the broker's topics but for Kafka's own. Raises `DestinationFault` if the broker is away."""
    with standalone_consumer(settings) as consumer:
        listed = consumer.list_topics(timeout=ANSWER_SECONDS_MAX).topics
    return sorted(name for name in listed if not name.startswith("__"))


def messages_within(settings: KafkaSettings, topic: str, ranges: OffsetRanges) -> Iterator[Message]:
    """Read what a topic holds within these offsets, each partition in its order. Raises as `messages` does."""
    with standalone_consumer(settings) as consumer:
        yield from _messages(consumer, settings, topic, ranges)


@contextmanager
def standalone_consumer(settings: KafkaSettings, group: str | None = None, **more: Any) -> Iterator[Consumer]:
    """Open a consumer that logs nothing and joins no group, also if it asks in a group's name.

    Raises `DestinationFault` if the broker is away, also in the middle of the block: at once if every address refuses
    the connection.
    """
    unreachable: list[KafkaError] = []
    config = common_config(settings) | {
        "group.id": group or f"lovelace-peek-{uuid4().hex}",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,  # the last offsets may hold no message; then only this event ends the reading
        "fetch.message.max.bytes": 67_108_864,
        "log_level": 0,
        "error_cb": lambda error: unreachable.append(error) if error.code() == KafkaError._ALL_BROKERS_DOWN else None,  # noqa: SLF001
        **more,
    }
    consumer = Consumer(config)
    try:
        _reach(consumer, unreachable)
        yield consumer
    except KafkaException as error:
        raise DestinationFault(
            error.args[0].name(),
            f"the broker {settings.brokers} (KAFKA_BROKERS) does not answer: start it, or correct its address",
        ) from None
    finally:
        consumer.close()


def _reach(consumer: Consumer, unreachable: list[KafkaError]) -> None:
    """Wait for the broker's first answer, unless every address refuses the connection."""
    deadline = time.monotonic() + FIRST_ANSWER_SECONDS_MAX
    while True:
        try:
            consumer.list_topics(timeout=QUESTION_SECONDS)
        except KafkaException:
            consumer.poll(0)  # calls `error_cb`, which notes refused connections
            if unreachable or time.monotonic() > deadline:
                raise
        else:
            return


def watermarks(consumer: Consumer, settings: KafkaSettings, topic: str) -> OffsetRanges:
    """Ask for the offsets that a topic holds. Raises `NoSuchTopic` and `KafkaException`."""
    listed = consumer.list_topics(topic, timeout=ANSWER_SECONDS_MAX).topics[topic]
    if listed.error is not None:
        if listed.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(listed.error)
        raise NoSuchTopic(f"the broker {settings.brokers} has no topic {topic!r}")
    return {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECONDS_MAX)
        for partition in sorted(listed.partitions)
    }


def _oldest_and_newest(
    watermarks: OffsetRanges, newest: int | None, oldest: int | None
) -> tuple[OffsetRanges, OffsetRanges]:
    """Give the offsets to read first and those to read after them, disjoint."""
    if newest is None and oldest is None:
        return watermarks, {}
    first = {partition: (low, min(high, low + (oldest or 0))) for partition, (low, high) in watermarks.items()}
    last = {
        partition: (max(first[partition][1], high - (newest or 0)), high) for partition, (_, high) in watermarks.items()
    }
    return first, last


def _messages(consumer: Consumer, settings: KafkaSettings, topic: str, ranges: OffsetRanges) -> Iterator[Message]:
    ends = {partition: end for partition, (start, end) in ranges.items() if start < end}
    consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in ends])
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while ends:
        found = consumer.consume(500, 0.2)
        for message in found:
            partition, offset = cast("int", message.partition()), cast("int", message.offset())
            end = ends.get(partition, 0)
            if message.error() is None and offset < end:
                yield message
            if _ended(message) or offset + 1 >= end:
                ends.pop(partition, None)
        if found:  # from now on, however long the caller took for the messages
            deadline = time.monotonic() + ANSWER_SECONDS_MAX
        elif ends and time.monotonic() > deadline:
            raise DestinationFault("timeout", f"the broker {settings.brokers}: no answer in {ANSWER_SECONDS_MAX:g} s")


def _ended(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
