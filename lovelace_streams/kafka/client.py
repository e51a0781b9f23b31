"""Settings for librdkafka's clients, and what their errors mean: whose fault, by code (law 5)."""

import logging
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.settings import KafkaSettings

REFUSED_IN_REBALANCE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
"""The broker refuses a whole commit with these, also for partitions still owned: commit again later."""
DEPLOYMENT_ERRORS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
LOGIN_REJECTED = {
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's own codes are named so
}
"""A wrong password; but a broker that is starting and does not know its users yet answers the same."""
AUTH_GRACE_SECONDS = 10.0
"""How long a rejected login is not believed, unless a request succeeds in between."""

LIBRDKAFKA_LOG = logging.getLogger("librdkafka")
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
"""Settings that a client of librdkafka warns about, unless it is a consumer."""


def common_config(settings: KafkaSettings, **more: Any) -> dict[str, Any]:
    """Make librdkafka's settings for a client that is not a consumer."""
    extra = {name: value for name, value in settings.extra.items() if name not in CONSUMER_ONLY}
    return {"bootstrap.servers": settings.brokers, "logger": LIBRDKAFKA_LOG, **extra, **more}


def name_of(error: KafkaError | Exception | int) -> str:
    """Name an error for a log line: librdkafka's name, else the exception's class."""
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        error = error.args[0]
    if isinstance(error, KafkaError):
        error = error.code()
    return str(KafkaError(error).name()) if isinstance(error, int) else type(error).__name__


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


class AuthGrace:
    """How long a rejected login is tolerated: a broker that is starting rejects logins that it does not know yet.

    >>> grace = AuthGrace(seconds=10.0)
    >>> grace.rejected(10.0); grace.has_expired(19.0), grace.has_expired(20.0)
    (False, True)
    >>> grace.accepted(); grace.has_expired(99.0)
    False
    """

    def __init__(self, seconds: float = AUTH_GRACE_SECONDS) -> None:
        self._seconds = seconds
        self._rejected_at: float | None = None

    def rejected(self, now: float) -> None:
        """Note that the broker rejected the login. librdkafka rarely repeats it, so repeats are not counted."""
        if self._rejected_at is None:
            self._rejected_at = now

    @property
    def is_suspected(self) -> bool:
        """Whether a rejection was noted that no answer has disproved yet."""
        return self._rejected_at is not None

    def accepted(self) -> None:
        """Note that the broker has answered a request."""
        self._rejected_at = None

    def has_expired(self, now: float) -> bool:
        """Whether the rejection has lasted longer than a starting broker needs."""
        return self._rejected_at is not None and now >= self._rejected_at + self._seconds
