"""Settings for librdkafka's clients, and who makes them. What their errors mean: `faults`."""

import logging
import os
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.settings import KafkaSettings, variable_of

REFUSED_IN_REBALANCE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
"""The broker refuses a whole commit with these, also for partitions still owned: commit again later."""
FILES = {"ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "sasl.kerberos.keytab"}
"""Settings that name a file."""
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
    """Make librdkafka's settings for a client that is not a consumer. Raises `DeploymentFault` for a missing file."""
    check_files(settings)
    extra = {name: value for name, value in settings.librdkafka.items() if name not in CONSUMER_ONLY}
    return {"bootstrap.servers": settings.brokers, "logger": LIBRDKAFKA_LOG, **extra, **more}


def check_files(settings: KafkaSettings) -> None:
    """Raise `DeploymentFault` for a file of the settings that can't be read: librdkafka says only that TLS failed."""
    for name in FILES & settings.extra.keys():
        path = settings.extra[name]
        try:
            if not (name == "ssl.ca.location" and (path == "probe" or os.path.isdir(path))):  # noqa: PTH112
                with open(path, "rb"):  # noqa: PTH123
                    pass
        except OSError as error:
            raise DeploymentFault(
                f"{variable_of(name)}={path} can't be read ({error.strerror}): mount the file, or correct the path"
            ) from None


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
