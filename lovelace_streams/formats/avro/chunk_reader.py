"""The chunks of a window, read together: a call of pyruhvro costs as much as 300 messages in it do.

A chunk is small, so that the Python objects of its rows fit into the CPU's cache; Arrow's columns need a tenth of their
memory. So these are made of many chunks at once, and each chunk gets its part of them when its loop asks.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lovelace_streams.columns import Chunk
from lovelace_streams.formats.avro.columns import Columns
from lovelace_streams.formats.column_loops import declared_by

if TYPE_CHECKING:
    import pyarrow as pa

MESSAGES_MAX, BYTES_MAX = 2048, 512 * 1024
"""How much is read together: the bytes, Arrow's columns and the bytes that these are proved by, in 2 MB of cache."""

Together = Callable[[Sequence[bytes | None]], Iterable[tuple[Columns, int, Sequence[int]]]]
"""Finds values that can be read at once: what reads them, where their data begin, and their ascending indexes."""


class Proved(NamedTuple):
    """Messages of one schema and one event: their ascending places in the chunk, and Arrow's columns of them."""

    arrow: Columns
    event: Any
    places: Sequence[int]
    records: "pa.StructArray"


class ReadChunk(NamedTuple):
    """What was read of a chunk: the messages that are proved right, and the places of all that were tried."""

    proved: list[Proved]
    tried: Sequence[int]


class ChunkReader:
    """Reads what Arrow can of chunks, each in its turn; those of a window together, if it was told of them."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._window: Sequence[Chunk] = ()
        self._read: dict[int, ReadChunk | None] = {}
        """By `id` of a chunk of the window what was read of it; None: it is to be read alone."""

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Note the chunks that are asked for next, some of them perhaps never."""
        self._window, self._read = chunks, {}

    def read(self, chunk: Chunk) -> ReadChunk:
        """Return what could be read of a chunk."""
        if id(chunk) not in self._read:
            self._read_group(self._group(chunk))
        return self._read.pop(id(chunk), None) or self._read_alone(chunk)

    def _group(self, chunk: Chunk) -> list[Chunk]:
        """Return a chunk of the window and those behind it, as many as are to be read together."""
        group: list[Chunk] = []
        messages = size = 0
        for each in self._window:
            if group or each is chunk:
                messages, size = messages + len(each), size + each.sizes[-1]
                if group and (messages > MESSAGES_MAX or size > BYTES_MAX):
                    break
                group.append(each)
        return group

    def _read_group(self, group: Sequence[Chunk]) -> None:
        """Read chunks together, unless some messages can't be: as those of a schema that was not asked for yet."""
        self._read.update((id(chunk), None) for chunk in group)
        if len(group) == 1 or not all(map(_has_single_items, group)):
            return
        values = [value for chunk in group for value in chunk.values]
        found = list(self._together(values))
        if sum(len(places) for *_, places in found) < len(values):
            return
        read = {id(chunk): ReadChunk([], range(len(chunk))) for chunk in group}
        for arrow, start, places in found:
            for event, indexes, records in arrow.proved(_data(values, start, places)):
                for chunk, chosen, begin in _by_chunk(group, _chosen(places, indexes)):
                    part = records.slice(begin, len(chosen))
                    read[id(chunk)].proved.append(Proved(arrow, event, chosen, part))
        self._read.update(read)

    def _read_alone(self, chunk: Chunk) -> ReadChunk:
        """Read what can be read of one chunk: messages of one item, as far as headers say how many they have."""
        values = chunk.values
        declared = None if _has_single_items(chunk) else declared_by(chunk)
        proved: list[Proved] = []
        tried: list[int] = []
        for arrow, start, places in self._together(values):
            if declared is not None:
                places = [place for place in places if declared[place] in (None, 1)]  # noqa: PLW2901
            tried += places
            proved += [
                Proved(arrow, event, _chosen(places, indexes), records)
                for event, indexes, records in arrow.proved(_data(values, start, places))
            ]
        return ReadChunk(proved, tried)


def _has_single_items(chunk: Chunk) -> bool:
    """Whether no header says that a message has another number of items than one."""
    return all(run.declared in (None, 1) for run in chunk.runs)


def _data(values: Sequence[Any], start: int, places: Sequence[int]) -> list[bytes]:
    """Return what comes behind the frame in the values at some places."""
    if len(places) == len(values):
        return [value[start:] for value in values] if start else list(values)
    return [values[place][start:] for place in places]


def _chosen(places: Sequence[int], indexes: Sequence[int]) -> Sequence[int]:
    """Return the places that have these indexes."""
    if isinstance(indexes, range):
        return places[indexes.start : indexes.stop]
    return [places[index] for index in indexes]


def _by_chunk(group: Sequence[Chunk], places: Sequence[int]) -> Iterator[tuple[Chunk, Sequence[int], int]]:
    """Yield the part of each chunk of ascending places in all of them: its own places, and where these begin."""
    begin = before = 0
    for chunk in group:
        end = bisect_left(places, before + len(chunk), begin)
        if begin < end:
            part = places[begin:end]
            if isinstance(part, range):
                yield chunk, range(part.start - before, part.stop - before), begin
            else:
                yield chunk, [place - before for place in part], begin
        begin, before = end, before + len(chunk)
