"""Settings for librdkafka's clients, and who makes them. What their errors mean: `faults`."""

import logging
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.settings import KafkaSettings

REFUSED_IN_REBALANCE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
"""The broker refuses a whole commit with these, also for partitions still owned: commit again later."""
LIBRDKAFKA_LOG = logging.getLogger("librdkafka")
CONSUMER_ONLY = {
    "max.poll.interval.ms",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "group.instance.id",
    "isolation.level",
    "fetch.wait.max.ms",
    "fetch.queue.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "max.partition.fetch.bytes",
    "queued.min.messages",
    "queued.max.messages.kbytes",
}
"""Settings that a client of librdkafka warns about, unless it is a consumer."""


def common_config(settings: KafkaSettings, **more: Any) -> dict[str, Any]:
    """Make librdkafka's settings for a client that is not a consumer."""
    extra = {name: value for name, value in settings.librdkafka.items() if name not in CONSUMER_ONLY}
    return {"bootstrap.servers": settings.brokers, "logger": LIBRDKAFKA_LOG, **extra, **more}


class KafkaClients:
    """Makes librdkafka's clients; `testing` replaces it by a broker in memory."""

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """Make a member of a consumer group."""
        return Consumer(config)

    def producer(self, config: dict[str, Any]) -> Producer:
        """Make a client that sends."""
        return Producer(config)

    def admin(self, config: dict[str, Any]) -> AdminClient:
        """Make a client that asks about topics and makes them."""
        return AdminClient(config)
