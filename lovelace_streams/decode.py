"""2. `Envelope[bytes]` → `Envelope[raw item]`: whatever the bytes are, every item leaves by one of three ports."""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.records import DeadLetter, Envelope, Outcome, Record, Settled, SkipReason

Skipped = tuple[SkipReason, Envelope[Any]]


class Decoder(Protocol):
    """Makes items of a message's bytes (`JsonDecoder`, `AvroDecoder`)."""

    def decode(
        self,
        record: Record,
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Append every item of the message to one of the lists and set `record.items`; raises nothing of the record's.

        A message that can't be taken apart ends whole: the number of items in its header, or 1 (law 6).
        """


@dataclass(frozen=True)
class Sorted:
    """Three ports: items to go on with, dead letters, and what was skipped with its reason."""

    oks: Stream[Envelope[Any]]
    errs: Stream[DeadLetter]
    skipped: Stream[Settled]


class Ports:
    """A list sorted into three; it flows as one item, so that splitting costs per list, not per record."""

    __slots__ = ("errs", "oks", "skipped")

    def __init__(self) -> None:
        self.oks: list[Envelope[Any]] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[Skipped] = []


@operator
def decode(step_id: str, up: Stream[Envelope[bytes]], decoder: Decoder) -> Sorted:
    """Decode messages into items, each by itself: one bad member does not cost its chunk (law 7).

    Undecodable messages and items leave by `errs`, tombstones, unknown events and empty messages by `skipped`.
    """

    def sort(window: list[Envelope[bytes]]) -> list[Ports]:
        ports = Ports()
        for envelope in window:
            decoder.decode(envelope.record, ports.oks, ports.errs, ports.skipped)
        return [ports]

    return split(op.flat_map_batch("sort", up, sort))


def split(sorted_lists: Stream[Ports]) -> Sorted:
    """Unpack lists of three into three streams."""
    return Sorted(
        oks=op.flat_map_batch("oks", sorted_lists, _oks),
        errs=op.flat_map_batch("errs", sorted_lists, _errs),
        skipped=op.flat_map_batch("skipped", sorted_lists, _skipped),
    )


def _oks(lists: list[Ports]) -> list[Envelope[Any]]:
    return [envelope for ports in lists for envelope in ports.oks]


def _errs(lists: list[Ports]) -> list[DeadLetter]:
    return [letter for ports in lists for letter in ports.errs]


def _skipped(lists: list[Ports]) -> list[Settled]:
    pairs = sorted((pair for ports in lists for pair in ports.skipped), key=itemgetter(0))
    return [
        Settled(Outcome.SKIPPED, [envelope for _, envelope in group], reason)
        for reason, group in groupby(pairs, key=itemgetter(0))
    ]
