"""The messages of a topic up to now, for those who only look: joins no group, commits nothing, ends."""

import time
from collections.abc import Iterator
from typing import cast
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.source import common_config

SECONDS = 15.0
"""How long the broker may take for its next answer."""


def messages(
    settings: KafkaSettings, topic: str, newest: int | None = None, oldest: int | None = None
) -> Iterator[Message]:
    """What the topic holds now, each partition in its order; the `newest` and `oldest` so many offsets of a partition.

    Without either all of it. Raises `DeploymentFault` where there is no such topic, `DestinationFault` where the broker
    is or goes away.
    """
    consumer = Consumer(
        common_config(settings)
        | {
            "group.id": f"lovelace-peek-{uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,  # the last offsets may hold no message, and then only this says so
            "fetch.message.max.bytes": 67_108_864,
        }
    )
    try:
        first, last = _spans(_bounds(consumer, settings, topic), newest, oldest)
        yield from _messages(consumer, settings, topic, first)
        yield from _messages(consumer, settings, topic, last)
    except KafkaException as error:
        raise DestinationFault(error.args[0].name(), f"the broker {settings.brokers}") from None
    finally:
        consumer.close()


Spans = dict[int, tuple[int, int]]
"""Partition → first offset, and the one after the last."""


def _bounds(consumer: Consumer, settings: KafkaSettings, topic: str) -> Spans:
    listed = consumer.list_topics(topic, timeout=SECONDS).topics[topic]
    if listed.error is not None:
        if listed.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(listed.error)
        raise DeploymentFault(f"the broker {settings.brokers} has no topic {topic!r}")
    return {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
        for partition in sorted(listed.partitions)
    }


def _spans(bounds: Spans, newest: int | None, oldest: int | None) -> tuple[Spans, Spans]:
    """What to read first and what after it, disjoint."""
    if newest is None and oldest is None:
        return bounds, {}
    first = {partition: (low, min(high, low + (oldest or 0))) for partition, (low, high) in bounds.items()}
    last = {
        partition: (max(first[partition][1], high - (newest or 0)), high) for partition, (_, high) in bounds.items()
    }
    return first, last


def _messages(consumer: Consumer, settings: KafkaSettings, topic: str, spans: Spans) -> Iterator[Message]:
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
