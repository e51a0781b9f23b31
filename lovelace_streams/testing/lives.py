"""One life of a worker in a test: it ends when everything is settled, or in the middle, when the test kills it.

Theory of this file. A worker is killed between two windows: the window that brought its last message has been through
every step, and nothing that happens between windows has happened yet. Its rows are written, as by a transaction that
was committed. Its letters are not sent, its offsets are neither reported nor committed. Everything before that window
is settled and committed, so that what the next life repeats does not depend on how fast a thread was.
"""

import time
from collections import Counter

import msgspec

from lovelace_streams.columns import Chunk
from lovelace_streams.delivery.block_writer import BlockWriter
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Outcome, Record, Settled
from lovelace_streams.runtime.in_flight import InFlight
from lovelace_streams.runtime.service import Service
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.testing.broker import Broker


class Watched(InFlight):
    """Also remembers what was read, why items were skipped, and how many messages were not settled in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: list[tuple[str, int, int]] = []
        """Topic, partition and offset of each message that was read."""
        self.skipped: Counter[str] = Counter()
        self.left = 0

    def read(self, *records: Record) -> None:
        """Note the records' positions."""
        self.positions += [(record.topic, record.partition, record.offset) for record in records]
        super().read(*records)

    def read_chunk(self, chunk: Chunk) -> None:
        """Note the messages' positions."""
        self.positions += [(chunk.topic, chunk.partition, offset) for offset in chunk.offsets]
        super().read_chunk(chunk)

    def settle(self, settled: Settled) -> int:
        """Note the outcome."""
        if settled.outcome is Outcome.SKIPPED:
            self.skipped[str(settled.reason)] += sum(item.count for item in settled.envelopes)
        return super().settle(settled)

    def end(self, topic: str, partition: int) -> None:
        """Forget the partition."""
        if (held := self.of(topic, partition)) is not None:
            self.left += held.messages_in_flight
        super().end(topic, partition)


class Life(Service):
    """A worker from its start to its end; with `messages_max` it is killed when so many went through its steps."""

    def __init__(self, source: KafkaSource, broker: Broker, messages_max: int | None, seconds: float) -> None:
        self._source = source
        self._broker = broker
        self._messages_max = messages_max
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self.in_flight = Watched()
        self.was_killed = False
        source.in_flight = self.in_flight
        broker.on_silence = self.end_if_settled
        broker.is_cut_off = False
        if messages_max is not None:
            source.services.insert(0, self)  # before any other service does something between two windows

    @property
    def has_read_all(self) -> bool:
        """Whether it has read its last message: from then on it reports nothing more."""
        return self._messages_max is not None and len(self.in_flight.positions) >= self._messages_max

    def end_if_settled(self) -> None:
        """End the worker when nothing is left to read and all of it is settled, or when the time is up."""
        if not self._source.unfinished or time.monotonic() > self._deadline:
            self._source.drain()

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Kill the worker when it is time; else finish the last window, and bound the next one.

        Raises `StopIteration`, which ends the worker before anything else is served.
        """
        if self._messages_max is None or self._source.fault or not between_windows:
            return
        if self.has_read_all:
            self._kill()
            raise StopIteration
        for held in self.in_flight.current.values():
            held.confirmed = held.next  # no topic of the broker in memory is made again: there is nothing to ask for
        self._source.revoke(self._seconds)
        left = self._messages_max - len(self.in_flight.positions)
        settings = self._source.settings
        self._source.settings = msgspec.structs.replace(settings, poll_size=min(settings.poll_size, left))

    def _kill(self) -> None:
        """Have every later call come to nothing: steps begin nothing, the consumer commits nothing."""
        for service in self._source.services:
            if isinstance(service, BlockWriter):
                service.revoke(self._seconds)  # a block that the thread writes: its transaction is committed
        self.was_killed = True
        self._broker.is_cut_off = True
        self._source.note(DeploymentFault("the test kills the worker"))
