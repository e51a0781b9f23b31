"""Ask for the ends of partitions while nothing is read, so that a consumer that fetches nothing shows in the lag.

librdkafka tells the end as of the last fetch. A consumer that has stopped fetching, for whatever reason, would look as
if it had read everything.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS
from lovelace_streams.runtime.in_flight import Assignment

ASK_SECONDS = 10.0
"""How often the ends are asked for while nothing is read."""


class EndOffsets:
    """The ends of partitions as the broker told them last, asked for in the background."""

    def __init__(
        self, admin: AdminClient, isolation_level: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        uncommitted = isolation_level == "read_uncommitted"
        self._isolation = IsolationLevel.READ_UNCOMMITTED if uncommitted else IsolationLevel.READ_COMMITTED
        self._admin = admin
        self._clock = clock
        self._due = clock() + ASK_SECONDS
        self._asked: dict[int, Future[Any]] = {}
        self._ends: dict[int, int] = {}
        """Assignment → end."""

    def of(self, assignment: Assignment) -> int | None:
        """Give the end of a partition; None if it was not asked for."""
        return self._ends.get(assignment.number)

    def ask(self, current: Mapping[int, Assignment], *, quiet: bool) -> None:
        """Take the answers that have come; ask again if nothing is read (`quiet`) and it is time."""
        self._take(current)
        if self._asked or not quiet or not current or self._clock() < self._due:
            return
        self._due = self._clock() + ASK_SECONDS
        wanted = {TopicPartition(a.topic, a.partition): number for number, a in current.items()}
        latest = {partition: OffsetSpec.latest() for partition in wanted}  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(latest, isolation_level=self._isolation, request_timeout=REQUEST_SECONDS)
        self._asked = {wanted[partition]: answer for partition, answer in answers.items()}

    def _take(self, current: Mapping[int, Assignment]) -> None:
        if not all(answer.done() for answer in self._asked.values()):
            return
        asked, self._asked = self._asked, {}
        for number, answer in asked.items():
            try:
                self._ends[number] = int(answer.result(0).offset)
            except KafkaException:  # `TopicIds` notes a broker that does not answer
                self._ends.pop(number, None)
        self._ends = {number: end for number, end in self._ends.items() if number in current}
