"""The messages of a topic up to now, for those who only look: joins no group, commits nothing, ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.kafka.client import common_config
from lovelace_streams.settings import KafkaSettings

SECONDS = 15.0
"""How long the broker may take for its next answer."""
FIRST_SECONDS = 8.0
"""How long its first answer may take: whoever asks by hand should not wait long for a broker that is not there."""
ASK_SECONDS = 2.0
"""How long one question waits; between two of them we hear whether anybody is there at all."""

OffsetRanges = dict[int, tuple[int, int]]
"""Partition → first offset, and the one after the last."""


class NoSuchTopic(DeploymentFault):
    """The broker answers, and has no such topic."""


def messages(
    settings: KafkaSettings, topic: str, newest: int | None = None, oldest: int | None = None
) -> Iterator[Message]:
    """What the topic holds now, each partition in its order; the `newest` and `oldest` so many offsets of a partition.

    Without either all of it. Raises `NoSuchTopic`, and `DestinationFault` where the broker is or goes away.
    """
    with standalone_consumer(settings) as consumer:
        first, last = _spans(watermarks(consumer, settings, topic), newest, oldest)
        yield from _messages(consumer, settings, topic, first)
        yield from _messages(consumer, settings, topic, last)


def messages_within(settings: KafkaSettings, topic: str, spans: OffsetRanges) -> Iterator[Message]:
    """What the topic holds within these offsets, each partition in its order. Raises as `messages` does."""
    with standalone_consumer(settings) as consumer:
        yield from _messages(consumer, settings, topic, spans)


@contextmanager
def standalone_consumer(settings: KafkaSettings, group: str | None = None, **more: Any) -> Iterator[Consumer]:
    """A consumer that says nothing by itself and joins nothing, also where it asks in a group's name.

    A broker that is away ends what is within as `DestinationFault`: at once where nobody listens.
    """
    gone: list[KafkaError] = []
    config = common_config(settings) | {
        "group.id": group or f"lovelace-peek-{uuid4().hex}",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,  # the last offsets may hold no message, and then only this says so
        "fetch.message.max.bytes": 67_108_864,
        "log_level": 0,
        "error_cb": lambda error: gone.append(error) if error.code() == KafkaError._ALL_BROKERS_DOWN else None,  # noqa: SLF001
        **more,
    }
    consumer = Consumer(config)
    try:
        _reach(consumer, gone)
        yield consumer
    except KafkaException as error:
        raise DestinationFault(
            error.args[0].name(), f"the broker {settings.brokers} (KAFKA_BROKERS) does not answer"
        ) from None
    finally:
        consumer.close()


def _reach(consumer: Consumer, gone: list[KafkaError]) -> None:
    """Wait for the broker's first answer, unless every address refuses us."""
    deadline = time.monotonic() + FIRST_SECONDS
    while True:
        try:
            consumer.list_topics(timeout=ASK_SECONDS)
        except KafkaException:
            consumer.poll(0)  # what was heard of the brokers meanwhile
            if gone or time.monotonic() > deadline:
                raise
        else:
            return


def watermarks(consumer: Consumer, settings: KafkaSettings, topic: str) -> OffsetRanges:
    """The offsets that a topic holds. Raises `NoSuchTopic` and `KafkaException`."""
    listed = consumer.list_topics(topic, timeout=SECONDS).topics[topic]
    if listed.error is not None:
        if listed.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(listed.error)
        raise NoSuchTopic(f"the broker {settings.brokers} has no topic {topic!r}")
    return {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
        for partition in sorted(listed.partitions)
    }


def _spans(watermarks: OffsetRanges, newest: int | None, oldest: int | None) -> tuple[OffsetRanges, OffsetRanges]:
    """What to read first and what after it, disjoint."""
    if newest is None and oldest is None:
        return watermarks, {}
    first = {partition: (low, min(high, low + (oldest or 0))) for partition, (low, high) in watermarks.items()}
    last = {
        partition: (max(first[partition][1], high - (newest or 0)), high) for partition, (_, high) in watermarks.items()
    }
    return first, last


def _messages(consumer: Consumer, settings: KafkaSettings, topic: str, spans: OffsetRanges) -> Iterator[Message]:
    ends = {partition: end for partition, (start, end) in spans.items() if start < end}
    consumer.assign([TopicPartition(topic, partition, spans[partition][0]) for partition in ends])
    deadline = time.monotonic() + SECONDS
    while ends:
        found = consumer.consume(500, 0.2)
        for message in found:
            partition, offset = cast("int", message.partition()), cast("int", message.offset())
            end = ends.get(partition, 0)
            if message.error() is None and offset < end:
                yield message
            if _ended(message) or offset + 1 >= end:
                ends.pop(partition, None)
        if found:  # however long whoever asked took for them
            deadline = time.monotonic() + SECONDS
        elif ends and time.monotonic() > deadline:
            raise DestinationFault("timeout", f"the broker {settings.brokers}: no answer in {SECONDS:g} s")


def _ended(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
