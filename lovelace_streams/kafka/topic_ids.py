"""Ask for topic ids, again after every read, because a name may come to mean another topic.

A topic may be deleted and made again under a running worker. If the consumer's position exists in the new topic too,
the consumer notices nothing and reads on in the middle. So records are reported only when the broker, asked *after*
the read, still gives the id that the assignment began with. An id never comes back. The alternatives:
docs/decisions/0006-which-topic-is-it.md.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

REQUEST_SECONDS = 10.0
BUSY_SECONDS = 0.05
"""The shortest time between two requests for ids while records are being read."""
IDLE_SECONDS = 5.0
"""The same while none are: a topic that was made again has to be noticed although it is silent."""


class TopicIds:
    """Asks the broker for topic ids: waiting for the answer, or in the background."""

    def __init__(self, admin: AdminClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._clock = clock
        self._asked: dict[str, Future[Any]] = {}
        self._last = float("-inf")
        self.error: KafkaError | None = None
        """Why the last request was not answered."""

    def now(self, topics: Iterable[str]) -> dict[str, str]:
        """Ask for the ids of topics and wait; topics that do not exist are left out. Raises `KafkaException`."""
        return self._ids(self._ask(topics), REQUEST_SECONDS)

    def begin(self, topics: Iterable[str], *, busy: bool) -> bool:
        """Ask in the background, unless it is too soon; returns whether it asked."""
        now = self._clock()
        if self._asked or now < self._last + (BUSY_SECONDS if busy else IDLE_SECONDS):
            return False
        self._last = now
        self._asked = self._ask(topics)
        return True

    def answer(self) -> dict[str, str] | None:
        """Take the answer to `begin`, once; None while there is none, `{}` if the broker is away."""
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return None
        asked, self._asked = self._asked, {}
        try:
            ids = self._ids(asked, 0)
        except KafkaException as error:
            self.error = error.args[0]
            return {}
        self.error = None
        return ids

    def _ask(self, topics: Iterable[str]) -> dict[str, Future[Any]]:
        names = sorted(set(topics))
        if not names:
            return {}
        return dict(self._admin.describe_topics(TopicCollection(names), request_timeout=REQUEST_SECONDS))

    @staticmethod
    def _ids(asked: dict[str, Future[Any]], seconds: float) -> dict[str, str]:
        ids = {}
        for topic, future in asked.items():
            try:
                # Kafka's own notation, which is safe in a path; librdkafka's is plain base64.
                ids[topic] = str(future.result(seconds).topic_id).replace("+", "-").replace("/", "_")
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
            except TimeoutError:  # the future's own: a broker that went away gives neither answer nor error
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001
        return ids
