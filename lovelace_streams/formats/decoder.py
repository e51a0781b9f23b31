"""What a decoder is: it fills three lists, and says nothing about where they go."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from lovelace_streams.records import DeadLetter, Envelope, Record, SkipReason

Skipped = tuple[SkipReason, Envelope[Any]]


class Decoder(Protocol):
    """Makes items of a message's bytes (`JsonDecoder`, `AvroDecoder`)."""

    waits: bool
    """Whether it may raise a `DestinationFault`: it asks somebody who may be away."""

    def decode(
        self,
        record: Record,
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Append every item of the message to one of the lists and set `record.items`; raises nothing of the record's.

        A message that can't be taken apart ends whole: the number of items in its header, or 1 (law 6). With a
        `DestinationFault` or `DeploymentFault` nothing was appended.
        """


@runtime_checkable
class SupportsDecodeAll(Protocol):
    """A decoder that has a quicker way for many messages."""

    def decode_all(
        self,
        window: Iterable[Envelope[bytes]],
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """The same as `decode` for each."""


@runtime_checkable
class SupportsLookAhead(Protocol):
    """A decoder that reads many messages at once where it can, and gives each in its turn."""

    def look_ahead(self, records: Sequence[Record]) -> None:
        """`decode` is about to be called for each of these; raises nothing, asks nobody."""


class Ports:
    """A list sorted into three; it flows as one item, so that splitting costs per list, not per record."""

    __slots__ = ("errs", "oks", "skipped")

    def __init__(self) -> None:
        self.oks: list[Envelope[Any]] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[Skipped] = []

    @property
    def sizes(self) -> dict[str, int]:
        """How many went where."""
        return {name: len(getattr(self, name)) for name in self.__slots__}


def sort(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Ports:
    """Messages as items, letters and skips."""
    ports = Ports()
    if isinstance(decoder, SupportsDecodeAll):
        decoder.decode_all(window, ports.oks, ports.errs, ports.skipped)
    else:
        for envelope in looked_ahead(decoder, window):
            decoder.decode(envelope.record, ports.oks, ports.errs, ports.skipped)
    return ports


def looked_ahead(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Iterable[Envelope[bytes]]:
    """The window, after the decoder had a look at it."""
    if not isinstance(decoder, SupportsLookAhead):
        return window
    envelopes = list(window)
    decoder.look_ahead([envelope.record for envelope in envelopes])
    return envelopes
