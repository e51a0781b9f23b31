"""Avro messages of a chunk → columns of row classes: those of one schema at once, by Arrow.

It asks no server. Messages of a schema that was not asked for yet are left, and so are those that can't be read at once
or are no row: the items' way waits for the schema, or says what is wrong.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import lt
from typing import TYPE_CHECKING, Any

from lovelace_streams.columns import Chunk, Columns, Mapped
from lovelace_streams.formats.avro.columns import Columns as ArrowColumns
from lovelace_streams.formats.column_loops import declared_by, in_order, note_items
from lovelace_streams.rows.loops import RowLoop
from lovelace_streams.rows.targets import Target

if TYPE_CHECKING:
    import pyarrow as pa

Together = Callable[[Sequence[bytes | None]], Iterable[tuple[ArrowColumns, int, Sequence[int]]]]
"""Finds values that can be read at once: what reads them, where their data begin, and their ascending indexes."""


class AvroLoop:
    """Makes columns of the messages of a chunk. `targets` are by event, `loops` map Structs, by the `id` of a target.

    Messages of a target without a loop are left. `together` finds what can be read at once; `in_vain(values)` hears
    what was read so and is left nevertheless.
    """

    def __init__(
        self,
        together: Together,
        targets: Mapping[Any, Target],
        loops: Mapping[int, RowLoop],
        in_vain: Callable[[Sequence[bytes | None]], None],
    ) -> None:
        self._together = together
        self._targets = {event: target for event, target in targets.items() if id(target) in loops}
        self._loops = loops
        self._in_vain = in_vain

    def __call__(self, chunk: Chunk, latest: datetime) -> Mapped:
        """Make slices of rows, and say which messages are left."""
        values, declared = chunk.values, declared_by(chunk)
        rows = {id(target): _Rows(target) for target in self._targets.values()}
        tried: set[int] = set()
        items: set[int] = set()
        for arrow, start, places in self._together(values):
            if declared is not None:
                places = [place for place in places if declared[place] in (None, 1)]  # noqa: PLW2901
            tried.update(places)
            for event, indexes, records in arrow.proved(_data(values, start, places)):
                chosen = _chosen(places, indexes)
                if (target := self._targets.get(event)) is None:
                    items.update(chosen)
                else:
                    self._add_rows(rows[id(target)], arrow, event, records, chunk, chosen, latest)
        made = [each.columns(chunk) for each in rows.values() if each.places]
        left = _others(len(chunk), made)
        in_vain = [place for place in left if place in tried]
        self._in_vain([values[place] for place in in_vain if place not in items])
        note_items(chunk, made)
        return Mapped(in_order(made), left, untried=len(left) - len(in_vain))

    def _add_rows(
        self,
        rows: "_Rows",
        arrow: ArrowColumns,
        event: Any,
        records: "pa.StructArray",
        chunk: Chunk,
        places: Sequence[int],
        latest: datetime,
    ) -> None:
        """Add the rows of an event's records, which are at these places."""
        if event in arrow.rows:
            values, left = arrow.rows[event].values(records, chunk, places, latest)
            rows.add(*_without(left, places, values))
            return
        left = set()
        places, [structs] = _without(left, places, [arrow.structs(event, records, left)])
        mapped = self._loops[id(rows.target)].columns(places, structs, None, chunk, latest).columns
        if mapped is not None:
            rows.add(mapped.places, list(mapped.values.values()))


class _Rows:
    """The rows of one target, of several schemas and parts of a chunk."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.places: list[int] = []
        self._values: list[list[Any]] = []

    def add(self, places: Sequence[int], values: Sequence[Sequence[Any]]) -> None:
        """Add rows at ascending places."""
        self.places += places
        if not self._values:
            self._values = list(map(list, values))
            return
        for column, more in zip(self._values, values, strict=True):
            column.extend(more)

    def columns(self, chunk: Chunk) -> Columns:
        """Return the rows as columns, in the order of the places."""
        places: Sequence[int] = self.places
        if len(places) == len(chunk):
            places = range(len(chunk))
        if not all(map(lt, self.places, self.places[1:])):  # of several schemas, in turn
            order = sorted(range(len(self.places)), key=self.places.__getitem__)
            self._values = [[column[row] for row in order] for column in self._values]
            places = sorted(places)
        assert self.target.row is not None
        names = [field.column.attribute for field in self.target.fields]
        return Columns(chunk, self.target.row, dict(zip(names, self._values, strict=True)), places)


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
    taken = set().union(*(columns.places for columns in made))
    return [] if len(taken) == count else [place for place in range(count) if place not in taken]
