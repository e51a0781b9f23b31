"""What formats that give columns have in common: which targets a loop can map, and slices in the order read.

A format gives columns by `SupportsColumns` (`formats.decoder`). It decodes a chunk's messages into Structs, has the
loop of each target make columns of them (`rows.loops`), and hands everything else back by its place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, groupby, repeat
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from lovelace_streams.columns import Chunk, Columns, Mapped, Slice
from lovelace_streams.formats.events import EventTargets
from lovelace_streams.records import Envelope
from lovelace_streams.rows.loops import Lists, RowLoop
from lovelace_streams.rows.normalizer import Normalizer


def loops_of(events: EventTargets, normalizer: Normalizer) -> dict[int, RowLoop]:
    """Make the loop of each target that has one, by its `id`; messages of the others are left."""
    return {id(target): RowLoop(target) for target in events.targets if not normalizer.needs_items(target)}


class Decoded(NamedTuple):
    """The messages of a chunk that were decoded for one loop."""

    places: Sequence[int]
    """Ascending."""
    messages: list[Any]
    """Their Structs, until they are mapped."""


RawItems = Callable[[int, Sequence[int]], Sequence[Any]]
"""`raw_items(place, numbers)` → the `RawItem`s of some items of a message."""


def map_decoded(
    chunk: Chunk,
    decoded: Mapping[RowLoop, Decoded],
    left: list[int],
    lists: Lists,
    latest: datetime,
    raw_items: RawItems,
) -> Mapped:
    """Make columns of a chunk's messages; `left` are places of messages that were not decoded.

    `lists` has the items of messages of which one was refused. `raw_items` gives the items that no loop takes.
    """
    declared = declared_by(chunk)
    made: list[Columns] = []
    lost: dict[int, tuple[int, list[int]]] = {}
    for loop, found in decoded.items():
        if found.places:
            rows = loop.columns(found.places, found.messages, declared, chunk, latest, lists)
            left += rows.left
            lost |= rows.lost
            if rows.columns is not None:
                made.append(rows.columns)
    note_items(chunk, made, lost)
    left.sort()
    return Mapped(in_order(made), left, list(_lost_items(chunk, lost, raw_items)) if lost else [])


def _lost_items(
    chunk: Chunk, lost: Mapping[int, tuple[int, list[int]]], raw_items: RawItems
) -> Iterator[Envelope[Any]]:
    for place, (_, numbers) in lost.items():
        record, items = chunk.record_at(place), raw_items(place, numbers)
        yield from (Envelope(record, number, item) for number, item in zip(numbers, items, strict=True))


def declared_by(chunk: Chunk) -> list[int | None] | None:
    """Return the numbers of items that the headers declare, by place; None if no header does."""
    if all(run.declared is None for run in chunk.runs):
        return None
    return [*chain.from_iterable(repeat(run.declared, run.stop - run.start) for run in chunk.runs)]


def note_items(
    chunk: Chunk, made: Sequence[Columns], lost: Mapping[int, tuple[int, list[int]]] = MappingProxyType({})
) -> None:
    """Set how many items each message of a chunk has, as far as they are in columns."""
    if len(made) == 1 and made[0].ends is None:
        ones = bytearray(len(chunk))
        for start, stop in made[0].spans(0, len(made[0])):
            ones[start:stop] = b"\1" * (stop - start)
        chunk.items = ones
        return
    items = [0] * len(chunk)
    for columns in made:
        ends = columns.ends
        for message, place in enumerate(columns.places):
            items[place] = 1 if ends is None else ends[message + 1] - ends[message]
    for place, (count, _) in lost.items():
        items[place] = count
    chunk.items = items


def in_order(made: Sequence[Columns]) -> list[Slice]:
    """Return all rows of a chunk as slices, message after message as they were read."""
    if len(made) == 1:
        return [Slice(made[0], 0, len(made[0]))]
    return list(_merged(made))


def _merged(made: Sequence[Columns]) -> Iterator[Slice]:
    messages = sorted(
        (place, which, message) for which, columns in enumerate(made) for message, place in enumerate(columns.places)
    )
    for which, run in groupby(messages, key=itemgetter(1)):
        (_, _, first), *rest = run
        columns, end = made[which], first + len(rest) + 1
        ends = columns.ends
        yield Slice(columns, first, end) if ends is None else Slice(columns, ends[first], ends[end])
