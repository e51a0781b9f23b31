"""Avro messages of a chunk → columns of row classes: those of one schema at once, by Arrow.

It asks no server. Messages of a schema that was not asked for yet are left, and so are those that can't be read at once
or are no row: the items' way waits for the schema, or says what is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import lt
from typing import Any

from lovelace_streams.columns import Chunk, Columns, Mapped
from lovelace_streams.formats.avro.chunk_reader import ChunkReader, Proved
from lovelace_streams.formats.column_loops import in_order, note_items
from lovelace_streams.rows.loops import RowLoop
from lovelace_streams.rows.targets import Target


class AvroLoop:
    """Makes columns of the messages of a chunk. `targets` are by event, `loops` map Structs, by the `id` of a target.

    Messages of a target without a loop are left. `in_vain(values)` hears what was read in vain.
    """

    def __init__(
        self,
        reader: ChunkReader,
        targets: Mapping[Any, Target],
        loops: Mapping[int, RowLoop],
        in_vain: Callable[[Sequence[bytes | None]], None],
    ) -> None:
        self._reader = reader
        self._targets = {event: target for event, target in targets.items() if id(target) in loops}
        self._loops = loops
        self._in_vain = in_vain

    def __call__(self, chunk: Chunk, latest: datetime) -> Mapped:
        """Make slices of rows, and say which messages are left."""
        rows = {id(target): _Rows(target) for target in self._targets.values()}
        proved, tried = self._reader.read(chunk)
        items: set[int] = set()
        for part in proved:
            if (target := self._targets.get(part.event)) is None:
                items.update(part.places)
            else:
                self._add_rows(rows[id(target)], part, chunk, latest)
        made = [each.columns(chunk) for each in rows.values() if each.places]
        note_items(chunk, made)
        left = _others(len(chunk), made)
        in_vain = sorted({*left} & {*tried}) if left else []
        self._in_vain([chunk.values[place] for place in in_vain if place not in items])
        return Mapped(in_order(made), left, untried=len(left) - len(in_vain))

    def _add_rows(self, rows: "_Rows", part: Proved, chunk: Chunk, latest: datetime) -> None:
        """Add the rows of some messages of an event."""
        arrow, event, places, records = part
        if event in arrow.rows:
            values, left = arrow.rows[event].values(records, chunk, places, latest)
            rows.add(*_without(left, places, values))
            return
        left = set()
        places, [structs] = _without(left, places, [arrow.structs(event, records, left)])
        mapped = self._loops[id(rows.target)].columns(places, list(structs), None, chunk, latest).columns
        if mapped is not None:
            rows.add(mapped.places, list(mapped.values.values()))


class _Rows:
    """The rows of one target, of several schemas and parts of a chunk."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.places: Sequence[int] = ()
        self._values: list[Sequence[Any]] = []

    def add(self, places: Sequence[int], values: Sequence[Sequence[Any]]) -> None:
        """Add rows at ascending places."""
        if not self.places:
            self.places, self._values = places, list(values)
            return
        self.places = [*self.places, *places]
        self._values = [[*column, *more] for column, more in zip(self._values, values, strict=True)]

    def columns(self, chunk: Chunk) -> Columns:
        """Return the rows as columns, in the order of the places."""
        places: Sequence[int] = self.places
        if not isinstance(places, range) and not all(map(lt, places, places[1:])):  # of several schemas, in turn
            order = sorted(range(len(places)), key=places.__getitem__)
            self._values = [[column[row] for row in order] for column in self._values]
            places = sorted(places)
        if len(places) == len(chunk):
            places = range(len(chunk))
        assert self.target.row is not None
        names = [field.column.attribute for field in self.target.fields]
        return Columns(chunk, self.target.row, dict(zip(names, self._values, strict=True)), places)


def _without(
    left: set[int], places: Sequence[int], columns: Sequence[Sequence[Any]]
) -> tuple[Sequence[int], Sequence[Sequence[Any]]]:
    """Return places and columns without the rows at some indexes."""
    if not left:
        return places, columns
    kept = [row for row in range(len(places)) if row not in left]
    return [places[row] for row in kept], [[column[row] for row in kept] for column in columns]


def _others(count: int, made: Sequence[Columns]) -> list[int]:
    """Return the places of messages that are in no columns."""
    if sum(len(columns.places) for columns in made) == count:
        return []
    taken = set().union(*(columns.places for columns in made))
    return [place for place in range(count) if place not in taken]
