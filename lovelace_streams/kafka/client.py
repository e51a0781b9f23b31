"""What all of librdkafka's clients are told, and what their errors mean: whose fault, by code (law 5)."""

import logging
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from lovelace_streams.settings import KafkaSettings

REFUSED_IN_REBALANCE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
"""They refuse a whole commit, also for partitions still owned: keep the positions, commit again later."""
DEPLOYMENT_ERRORS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
NOT_LET_IN = {
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's own codes are named so
}
"""A wrong password, but also what a broker says that is starting and does not know its users yet."""
NOT_LET_IN_SECONDS = 10.0
"""For so long, without a success in between, it is not believed."""

LOG = logging.getLogger("librdkafka")
CONSUMER_ONLY = {
    "max.poll.interval.ms",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
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
"""What other clients of librdkafka would warn about."""


def common_config(settings: KafkaSettings, **more: Any) -> dict[str, Any]:
    """librdkafka's settings for a client that is not a consumer."""
    extra = {name: value for name, value in settings.extra.items() if name not in CONSUMER_ONLY}
    return {"bootstrap.servers": settings.brokers, "logger": LOG, **extra, **more}


def name_of(error: KafkaError | Exception | int) -> str:
    """An error's name for a log line: librdkafka's, else the exception's class."""
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        error = error.args[0]
    if isinstance(error, KafkaError):
        error = error.code()
    return str(KafkaError(error).name()) if isinstance(error, int) else type(error).__name__


class AuthGrace:
    """Whether the broker lets us in: one refusal says little, one that lasts is the deployment's fault.

    >>> door = AuthGrace()
    >>> door.refused(10.0); door.shut(19.0), door.shut(20.0)
    (False, True)
    >>> door.opened(); door.shut(99.0)
    False
    """

    def __init__(self, seconds: float = NOT_LET_IN_SECONDS) -> None:
        self._seconds = seconds
        self._refused_at: float | None = None

    def refused(self, now: float) -> None:
        """We were not let in. librdkafka says the same thing only once in a while, so its repeats are not counted."""
        if self._refused_at is None:
            self._refused_at = now

    @property
    def suspected(self) -> bool:
        """Whether a refusal is waiting for an answer that disproves it."""
        return self._refused_at is not None

    def opened(self) -> None:
        """The broker has answered something."""
        self._refused_at = None

    def shut(self, now: float) -> bool:
        """Whether it is to be believed."""
        return self._refused_at is not None and now >= self._refused_at + self._seconds
