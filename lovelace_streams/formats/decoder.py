"""What a decoder is: it sorts the items of messages into three lists, and does not say where these go.

`Decoder` is the protocol that `decode` needs. A format may offer one of two quicker ways for a whole window,
`SupportsDecodeAll` or `SupportsLookAhead`; `sort` takes it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from lovelace_streams.columns import Chunk, ColumnLoop, before, in_between
from lovelace_streams.records import DeadLetter, Envelope, Record
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.normalizer import Normalizer
from lovelace_streams.rows.targets import Target

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
class SupportsTargets(Protocol):
    """A decoder that knows which events have items, and what these become."""

    @property
    def targets(self) -> Mapping[Any, Target]:
        """Event → where its items are and what they become; "" if no event is named."""


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


@runtime_checkable
class SupportsColumns(Protocol):
    """A decoder that can make columns of a chunk's messages, decoded and mapped by one loop.

    The loop leaves what it does not take by its place, and `decode` says what it is: so both ways end the same, which
    the contract suite of formats holds (tests/contract/test_columns.py).
    """

    def needs_items(self, normalizer: Normalizer) -> Mapping[str, str]:
        """Say of each event why its items are mapped one by one; "" if a loop may map them. `lovelace explain` tells.

        An event that is not named is "". Raises `DeploymentFault`.
        """

    def column_loop(self, normalizer: Normalizer) -> ColumnLoop:
        """Make the loop for rows as `normalizer` makes them; it leaves the messages of events that need items."""


@runtime_checkable
class SupportsExpect(Protocol):
    """A decoder whose loop can read the chunks of a window together."""

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Hear of a window's chunks, before the loop is called for one after the other; raises nothing.

        It need not be called for all of them, and no chunk needs to be heard of.
        """


class Ports:
    """A window sorted into three lists. It flows as one item, so that to split it costs per window, not per record."""

    __slots__ = ("broke_off", "errs", "oks", "skipped")

    def __init__(self) -> None:
        self.oks: list[Any] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[Skipped] = []
        self.broke_off: Record | None = None
        """The first message that was not sorted, because the worker ends; None: all were."""

    def add(self, other: "Ports") -> None:
        """Append what another window was sorted into."""
        self.oks += other.oks
        self.errs += other.errs
        self.skipped += other.skipped

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each list, by its name."""
        return {"errs": len(self.errs), "oks": len(self.oks), "skipped": len(self.skipped)}


@cache
def offers(protocol: type[Any], decoder: type[Decoder]) -> bool:
    """Whether a class of decoders offers a way. To ask an instance costs as much as its work for a bad message."""
    return issubclass(decoder, protocol)


def sort(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Ports:
    """Decode a window, by the quickest way that the decoder has."""
    ports = Ports()
    if offers(SupportsDecodeAll, decoder.__class__):
        decoder.decode_all(window, ports.oks, ports.errs, ports.skipped)  # type: ignore[attr-defined] # it offers it
    else:
        for envelope in looked_ahead(decoder, window):
            decoder.decode(envelope.record, ports.oks, ports.errs, ports.skipped)
    return ports


def sort_chunks(sort: Callable[[list[Envelope[bytes]]], Ports], window: Sequence[Envelope[bytes] | Chunk]) -> Ports:
    """Sort a window: chunks by their loops, and by `sort` what these leave, and single messages, each in its place.

    Where `sort` breaks off, what comes behind is left out, too: it is read again with the message that was not sorted,
    and must not be written before it.
    """
    ports = Ports()
    newest_version = latest(int(time.time() * 1000))
    for chunk, parts in groupby(window, key=_chunk_or_none):
        if chunk is None:
            sorted_parts = sort(list(parts))  # type: ignore[arg-type]
        else:
            assert chunk.loop is not None
            mapped = chunk.loop(chunk, newest_version)
            chunk.rows = sum(map(len, mapped.slices))
            if not (mapped.left or mapped.lost):
                ports.oks += mapped.slices
                continue
            sorted_parts = sort(chunk.envelopes_at(mapped.left)) if mapped.left else Ports()
            sorted_parts.oks = in_between(mapped.slices, [*sorted_parts.oks, *mapped.lost])
            if sorted_parts.broke_off is not None:
                sorted_parts.oks = before(sorted_parts.oks, sorted_parts.broke_off.offset)
        ports.add(sorted_parts)
        if sorted_parts.broke_off is not None:
            break
    return ports


def expecting(
    decoder: Decoder, sort: Callable[[Sequence[Envelope[bytes] | Chunk]], Ports]
) -> Callable[[Sequence[Envelope[bytes] | Chunk]], Ports]:
    """Return a function that tells the decoder of a window's chunks, if it wants to hear of them, and sorts it."""
    if not isinstance(decoder, SupportsExpect):
        return sort

    def sort_expected(window: Sequence[Envelope[bytes] | Chunk]) -> Ports:
        decoder.expect([part for part in window if isinstance(part, Chunk)])
        return sort(window)

    return sort_expected


def _chunk_or_none(part: Envelope[bytes] | Chunk) -> Chunk | None:
    return part if isinstance(part, Chunk) else None


def looked_ahead(decoder: Decoder, window: Iterable[Envelope[bytes]]) -> Iterable[Envelope[bytes]]:
    """Show a window to the decoder, if it wants to look ahead, and return it."""
    if not offers(SupportsLookAhead, decoder.__class__):
        return window
    envelopes = list(window)
    decoder.look_ahead([envelope.record for envelope in envelopes])  # type: ignore[attr-defined] # as above
    return envelopes
