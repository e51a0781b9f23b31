"""All that failed of one message, while it waits to be sent."""

import msgspec

from lovelace_streams.records import DeadLetter, Reason, Record


class PendingDeadLetter(msgspec.Struct):
    """All that failed of one message."""

    record: Record
    failures: dict[int, Reason]
    first: DeadLetter

    @property
    def items(self) -> int:
        """How many items failed."""
        return len(self.failures)

    @property
    def size(self) -> int:
        """The bytes of its value."""
        return len(self.record.value or b"")

    @property
    def complete(self) -> bool:
        """Whether every other item of the message has come to its end."""
        return self.record.succeeded + self.record.skipped + self.items >= self.record.items
