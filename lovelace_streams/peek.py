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


def messages(settings: KafkaSettings, topic: str, newest: int | None = None) -> Iterator[Message]:
    """What the topic holds now, each partition in its order; with `newest` no more than that many of a partition.

    Raises `DeploymentFault` where there is no such topic, `DestinationFault` where the broker is or goes away.
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
        yield from _messages(consumer, settings, topic, newest)
    except KafkaException as error:
        raise DestinationFault(error.args[0].name(), f"the broker {settings.brokers}") from None
    finally:
        consumer.close()


def _messages(consumer: Consumer, settings: KafkaSettings, topic: str, newest: int | None) -> Iterator[Message]:
    listed = consumer.list_topics(topic, timeout=SECONDS).topics[topic]
    if listed.error is not None:
        if listed.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(listed.error)
        raise DeploymentFault(f"the broker {settings.brokers} has no topic {topic!r}")
    ends, starts = {}, []
    for partition in listed.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
        if high > low:
            ends[partition] = high
            starts.append(TopicPartition(topic, partition, low if newest is None else max(low, high - newest)))
    consumer.assign(starts)
    deadline = time.monotonic() + SECONDS
    while ends:
        for message in consumer.consume(500, 0.2):
            deadline = time.monotonic() + SECONDS
            partition, offset = cast("int", message.partition()), cast("int", message.offset())
            end = ends.get(partition, 0)
            if message.error() is None and offset < end:
                yield message
            if _ended(message) or offset + 1 >= end:
                ends.pop(partition, None)
        if ends and time.monotonic() > deadline:
            raise DestinationFault("timeout", f"the broker {settings.brokers}: no answer in {SECONDS:g} s")


def _ended(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
