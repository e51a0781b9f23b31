"""What a source brings to the worker's context: a reader of records, and the Kafka clients that steps need."""

from typing import Any, Protocol

from lovelace_streams.columns import Chunk
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.in_flight import Assignment


class Reader(Protocol):
    """Reads a worker's records. All calls come from the worker's one thread."""

    behind: bool
    """Whether more had arrived than the last window holds: the next window will be full at once."""

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""

    @property
    def starting(self) -> bool:
        """Whether it holds partitions that it does not read yet."""

    # A reader may also have the property `can_read`: whether nothing keeps it from reading. It is optional, because
    # users' readers are older than it; `lovelace_can_read` shows it, and an open reader without it can read.

    def open(self) -> bool:
        """Connect; False while the other side is away. Notes a fault of the deployment at the context."""

    def read(self, count: int, seconds: float) -> list[Envelope[bytes] | Chunk]:
        """Read a window of at most `count` messages within `seconds`, and note its records as in flight.

        Where the context has a loop for columns (`WorkerContext.columnar`), messages may come as chunks.
        """

    def idle(self, seconds: float) -> None:
        """Stay connected for `seconds` without reading."""

    def confirm(self) -> None:
        """Check, without waiting, whether what was read may be reported. The worker calls it after each read."""

    def commit(self) -> None:
        """Store the positions of `InFlight.committable`, without waiting."""

    def is_caught_up(self) -> bool:
        """Whether an empty window means that there is nothing to read."""

    def known_end(self, assignment: Assignment) -> int | None:
        """Give the end of a partition as the other side told it last; None while it is unknown."""

    def close(self) -> None:
        """Give up all partitions and disconnect."""


class Clients(Protocol):
    """Makes librdkafka's clients from its settings: `kafka.client.KafkaClients`, or a broker in memory in tests."""

    def consumer(self, config: dict[str, Any]) -> Any:
        """Make a member of a consumer group."""

    def producer(self, config: dict[str, Any]) -> Any:
        """Make a client that sends."""

    def admin(self, config: dict[str, Any]) -> Any:
        """Make a client that asks about topics and makes them."""
