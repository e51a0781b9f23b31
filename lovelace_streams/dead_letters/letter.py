"""A dead letter on its way to the topic: all failed items of one message. `collector` makes it, `sender` sends it.

COLLECTING ─ every item of the message has an outcome ─▶ QUEUED ─▶ SENT ─ acknowledged ─▶ settled
                                                            ▲        │
                                                            └────────┘ the broker did not take it: try again
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
    """The failed items of one message, with their reasons and the first failure."""

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
