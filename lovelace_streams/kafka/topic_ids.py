"""Which topic is it? Ids are asked for again after every read, because a name may come to mean another topic.

A topic that is deleted and made again under a running worker shows nothing of it to a consumer whose position exists
in the new one too: it reads on in the middle. So what was read is accounted for only when the broker, asked *after* the
read, still gives the id that the assignment began with; an id never comes back. What else was thought of:
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
"""While something is being read, the ids are asked for this often at most."""
IDLE_SECONDS = 5.0
"""And this often while nothing is: a topic made again has to be noticed although it is silent."""


class TopicIds:
    """Asks the broker for topic ids: at once, or in the background with an answer that is fetched later."""

    def __init__(self, admin: AdminClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._clock = clock
        self._asked: dict[str, Future[Any]] = {}
        self._last = float("-inf")

    def now(self, topics: Iterable[str]) -> dict[str, str]:
        """The ids of the topics that exist. Raises `KafkaException`."""
        return self._ids(self._ask(topics), REQUEST_SECONDS)

    def begin(self, topics: Iterable[str], *, busy: bool) -> bool:
        """Ask in the background, unless it is too soon; answers whether it was begun."""
        now = self._clock()
        if self._asked or now < self._last + (BUSY_SECONDS if busy else IDLE_SECONDS):
            return False
        self._last = now
        self._asked = self._ask(topics)
        return True

    def answer(self) -> dict[str, str] | None:
        """What `begin` asked for, once; None while there is no answer. A broker that is away answers nothing: `{}`."""
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return None
        asked, self._asked = self._asked, {}
        try:
            return self._ids(asked, 0)
        except KafkaException:
            return {}

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
                # As Kafka itself writes it, safe in a path: librdkafka's text is plain base64.
                ids[topic] = str(future.result(seconds).topic_id).replace("+", "-").replace("/", "_")
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
            except TimeoutError:  # the future's own: a broker that went away answers neither way
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001
        return ids
