"""What a decoder is: it sorts the items of messages into three lists, and does not say where these go.

`Decoder` is the protocol that `decode` needs. A format may offer one of two quicker ways for a whole window,
`SupportsDecodeAll` or `SupportsLookAhead`; `sort` takes it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from lovelace_streams.records import DeadLetter, Envelope, Record

Skipped = tuple[str, Envelope[Any]]
"""Why an item is skipped (`SkipReason`, or a reason of the flow's own), and the item."""


class Decoder(Protocol):
    """Turns the bytes of a message into items (`JsonDecoder`, `AvroDecoder`).

    One that skips messages for reasons of its own declares them as `skips`, a tuple of names.
    """

    waits: bool
    """Whether `decode` may raise a `DestinationFault`, because it asks a server (a schema registry)."""

    def decode(
        self,
        record: Record,
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Append every item of the message to one of the lists, and set `record.items`.

        A message that can't be decoded is appended as a whole, with the number of items in its header, or 1 (law 6).
        It raises no `RecordFault`. After a `DestinationFault` or `DeploymentFault` nothing was appended.
        """


@runtime_checkable
class SupportsPathCheck(Protocol):
    """A decoder that knows which paths its messages can have."""

    def check_paths(self) -> None:
        """Raise `DeploymentFault` if the rows read a path that no message can have."""


@runtime_checkable
class SupportsGrace(Protocol):
    """A decoder that gives up what the server it asks does not answer, while it answers for others."""

    grace: float
    """After so many seconds `decode` makes a dead letter instead of raising a `DestinationFault`."""


@runtime_checkable
class SupportsDecodeAll(Protocol):
    """A decoder with a quicker way for many messages."""

    def decode_all(
        self,
        window: Iterable[Envelope[bytes]],
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Do what `decode` does, for each message in its turn."""


@runtime_checkable
class SupportsLookAhead(Protocol):
    """A decoder that can read many messages together, before it is asked for each in its turn."""

    def look_ahead(self, records: Sequence[Record]) -> None:
        """Prepare for `decode`, which is called for each of these next; raises nothing, and asks no server."""


class Ports:
    """A window sorted into three lists. It flows as one item, so that to split it costs per window, not per record."""

    __slots__ = ("errs", "oks", "skipped")

    def __init__(self) -> None:
        self.oks: list[Envelope[Any]] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[Skipped] = []

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each list, by its name."""
        return {name: len(getattr(self, name)) for name in self.__slots__}


def sort(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Ports:
    """Decode a window, by the quickest way that the decoder has."""
    ports = Ports()
    if isinstance(decoder, SupportsDecodeAll):
        decoder.decode_all(window, ports.oks, ports.errs, ports.skipped)
    else:
        for envelope in looked_ahead(decoder, window):
            decoder.decode(envelope.record, ports.oks, ports.errs, ports.skipped)
    return ports


def looked_ahead(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Iterable[Envelope[bytes]]:
    """Show a window to the decoder, if it wants to look ahead, and return it."""
    if not isinstance(decoder, SupportsLookAhead):
        return window
    envelopes = list(window)
    decoder.look_ahead([envelope.record for envelope in envelopes])
    return envelopes
