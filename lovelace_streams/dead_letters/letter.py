"""All that failed of one message, on its way to the dead-letter topic.

COLLECTING ─ every item of the message has an outcome ─▶ QUEUED ─▶ SENT ─ acknowledged ─▶ settled
                                                            ▲        │
                                                            └─ refused, for now
"""

from enum import Enum

import msgspec

from lovelace_streams.records import DeadLetter, Reason, Record


class LetterState(Enum):
    """Where a letter is on its way."""

    COLLECTING = "collecting"
    """Other items of its message may still fail."""
    QUEUED = "queued"
    SENT = "sent"
    """The broker has not acknowledged it yet."""


class PendingDeadLetter(msgspec.Struct):
    """All that failed of one message."""

    record: Record
    failures: dict[int, Reason]
    first: DeadLetter
    state: LetterState = LetterState.COLLECTING

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
        """Whether every other item of the message has an outcome."""
        return self.record.succeeded + self.record.skipped + self.items >= self.record.items
