"""What a source brings to the worker's context: a reader of records, and the clients of Kafka that steps need."""

from typing import Any, Protocol

from lovelace_streams.records import Envelope
from lovelace_streams.runtime.in_flight import Assignment


class Reader(Protocol):
    """Where a worker's records come from. All calls are made from the worker's one thread."""

    behind: bool
    """Whether more had arrived than the last window holds: the next one will be there at once."""

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""

    @property
    def starting(self) -> bool:
        """Whether it was assigned partitions that it does not read yet."""

    def open(self) -> bool:
        """Connect; False while the other side is away. A fault of the deployment is noted at the context."""

    def read(self, count: int, seconds: float) -> list[Envelope[bytes]]:
        """Read a window of at most so many messages, for at most so long, and note its records as in flight."""

    def idle(self, seconds: float) -> None:
        """Stay alive for so long without reading."""

    def confirm(self) -> None:
        """Find out whether what was read may be reported; called after each read, waits for nothing."""

    def commit(self) -> None:
        """Store the positions of `InFlight.committable`; waits for nothing."""

    def is_caught_up(self) -> bool:
        """Whether an empty window means that there is nothing to read."""

    def known_end(self, assignment: Assignment) -> int | None:
        """The end of a partition as it was last seen; None if it is unknown."""

    def close(self) -> None:
        """Give up all partitions and disconnect."""


class Clients(Protocol):
    """Makes librdkafka's clients, from its settings (`kafka.client.KafkaClients`; a broker in memory for tests)."""

    def consumer(self, config: dict[str, Any]) -> Any:
        """Make a member of a consumer group."""

    def producer(self, config: dict[str, Any]) -> Any:
        """Make a client that sends."""

    def admin(self, config: dict[str, Any]) -> Any:
        """Make a client that asks about topics and makes them."""
