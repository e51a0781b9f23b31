"""Many messages of one schema at once: pyruhvro (in Rust) reads them into Arrow's columns.

pyruhvro checks less than `reading` does. It accepts bytes that are left over, varints that are longer than need be, and
an int past its bits. So its values are used only where they are proved right: they are written again, and a message
counts if its very bytes come out. Both together cost a twentieth of reading one by one
(docs/decisions/0016-avro-by-columns.md). All other messages are left to `reading`, and all schemas with something that
is not supported here. `Columns` refuses nothing: it gives a message, or leaves it. What it gives becomes the columns of
a row class (`row_columns`), or Structs (`arrow`).
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

from lovelace_streams.formats.avro.arrow import (
    FIRST,
    INSTANTS,
    LAST,
    PLAIN,
    Make,
    UnsupportedSchema,
    agreed,
    default_of,
    present,
    present_of,
    record,
)
from lovelace_streams.formats.avro.reading import Wanted
from lovelace_streams.formats.avro.resolution import sources
from lovelace_streams.formats.avro.row_columns import RowColumns
from lovelace_streams.formats.avro.schema import Node, Schema
from lovelace_streams.rows.targets import Target

if TYPE_CHECKING:
    import pyarrow as pa

MANY, SOME = 2048, 192
"""Messages that are read at once. One that is no Avro makes pyruhvro refuse all of them: fewer are read then, and these
are halved if they are refused, too. 192 end as three, with two good ones beside the bad one; 256 end as four."""
HALF_MIN = 4
"""A refused part with no more messages than this is not halved again: they are left to `reading`."""
TRIES_MAX = 128
"""The parts of some messages that are tried. That finds some nine bad ones."""
IDLE_TIMES = 8
"""How often some messages are left to `reading` after so many had more bad ones among them."""


def columns_are_known() -> bool:
    """Whether the extra `avro-columns` is installed."""
    return find_spec("pyruhvro") is not None and find_spec("pyarrow") is not None


def load_libraries() -> None:
    """Import what reads many messages: it takes 0.15 s, for which no message should wait."""
    import pyarrow as pa  # noqa: F401
    import pyruhvro  # noqa: F401


class Columns:
    """Reads data of one writer's schema at once.

    `targets` are by event, `event` is the field that names it; without one there is one event, "". `structs` are the
    Structs of messages by `id` of target. Raises `UnsupportedSchema` if no event's messages can be read so.
    """

    def __init__(
        self,
        writer: Schema,
        reader: Schema,
        wanted: Wanted | None,
        targets: Mapping[Any, Target],
        structs: Mapping[int, type[msgspec.Struct]],
        event: str | None,
    ) -> None:
        if writer.root.kind != "record":
            raise UnsupportedSchema(f"{writer.root.shown} is no record")
        if event is not None and not _names_events(writer.root, reader.root, event):
            raise UnsupportedSchema(f"{event} of {writer.root.shown} is neither text nor integer")
        text, _ = _schema_text(writer.root, (), set())
        self._text = json.dumps(text)
        self._spans = list(_spans(writer.root, reader.root, wanted, ()))
        self._event = event
        self._tries_left = self._idle_left = 0
        self._structs: dict[Any, Make] = {}
        self.rows: dict[Any, RowColumns] = {}
        """Event → what makes columns of a row class; without those of which it needs Structs."""
        self.refused: dict[Any, str] = {}
        """Event → why its messages are read one by one."""
        for name, target in targets.items():
            if not target.typed:
                continue
            try:
                self.rows[name] = RowColumns(target, writer.root, reader.root)
            except UnsupportedSchema as error:
                self.refused[name] = str(error)
            with suppress(UnsupportedSchema):
                self._structs[name] = record(structs[id(target)], writer.root, reader.root)
                self.refused.pop(name, None)
        self._read = self._structs.keys() | self.rows.keys()
        if not self._read:
            raise UnsupportedSchema(next(iter(self.refused.values()), "no row class reads its messages by type"))

    def read(self, data: Sequence[bytes]) -> list[tuple[Any, Any] | None]:
        """Return event and message of each datum; None for one that is left to `reading`."""
        found: list[tuple[Any, Any] | None] = [None] * len(data)
        for name, indexes, rows in self.proved(data) if self._structs else ():
            if name in self._structs:
                left: set[int] = set()
                messages = self.structs(name, rows, left)
                for position, index, message in zip(range(len(indexes)), indexes, messages, strict=True):
                    if position not in left:
                        found[index] = (name, message)
        return found

    def structs(self, name: Any, rows: "pa.StructArray", left: set[int]) -> Sequence[Any]:
        """Return the Structs of an event's messages; those at the indexes that it adds to `left` are wrong."""
        return self._structs[name](rows, left)

    def proved(self, data: Sequence[bytes]) -> Iterator[tuple[Any, Sequence[int], "pa.StructArray"]]:
        """Yield an event that is read, the ascending indexes of its data, and their columns.

        It gives data whose bytes come out the same when the columns are written again, and leaves out all others.
        """
        for start in range(0, len(data), MANY):
            yield from self._read_many(data[start : start + MANY], start)

    def _read_many(self, data: Sequence[bytes], start: int) -> Iterable[tuple[Any, Sequence[int], "pa.StructArray"]]:
        """Read data at once; some after some, if one of all is bad, or many of the last were."""
        if len(data) > SOME and not self._idle_left and (batch := self._batch(data)) is not None:
            yield from self._proved(data, range(start, start + len(data)), batch)
            return
        for first in range(0, len(data), SOME):
            yield from self._read_some(data[first : first + SOME], start + first)

    def _read_some(self, data: Sequence[bytes], start: int) -> Iterable[tuple[Any, Sequence[int], "pa.StructArray"]]:
        if self._idle_left:
            self._idle_left -= 1
            return ()
        batch = self._batch(data)
        if batch is not None:
            return self._proved(data, range(start, start + len(data)), batch)
        self._tries_left = TRIES_MAX
        good = [*self._good(data, 0, len(data) // 2), *self._good(data, len(data) // 2, len(data))]
        if not self._tries_left:
            self._idle_left = IDLE_TIMES
        good_data = [data[index] for index in good]
        if good and (batch := self._batch(good_data)) is not None:
            return self._proved(good_data, [start + index for index in good], batch)
        return ()

    def _batch(self, data: Sequence[bytes]) -> "pa.RecordBatch | None":
        """Return the columns of all data; None if one datum is refused."""
        import pyruhvro

        try:
            batch = pyruhvro.deserialize_array(data, self._text)
            batch.validate(full=True)  # pyruhvro accepts any bytes as text
        except BaseException as error:  # a panic of Rust, which is no Exception, is a refusal too
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            return None
        return batch

    def _good(self, data: Sequence[bytes], start: int, end: int) -> Iterable[int]:
        """Return the indexes of data that are not refused, found by halving; some near a refused one are left out."""
        if start == end or not self._tries_left:
            return ()
        self._tries_left -= 1
        if self._batch(data[start:end]) is not None:
            return range(start, end)
        if end - start <= HALF_MIN:
            return ()
        middle = (start + end) // 2
        return [*self._good(data, start, middle), *self._good(data, middle, end)]

    def _proved(
        self, data: Sequence[bytes], indexes: Sequence[int], batch: "pa.RecordBatch"
    ) -> Iterable[tuple[Any, Sequence[int], "pa.StructArray"]]:
        """Yield by event what is proved right of a batch; `indexes` are those of its data."""
        import pyruhvro

        [again] = pyruhvro.serialize_record_batch_spawn(batch, self._text, 1)
        written = again.to_pylist()
        bad: set[int] = set()
        if written != data:
            bad = {index for index, (a, b) in enumerate(zip(written, data, strict=True)) if a != b}
        rows = batch.to_struct_array()
        for path, low, high in self._spans:
            _add_outside(rows, path, low, high, bad)
        if bad:
            good = [index for index in range(len(data)) if index not in bad]
            rows, indexes = _taken(rows, good), [indexes[index] for index in good]
        return self._by_event(rows, indexes)

    def _by_event(
        self, rows: "pa.StructArray", indexes: Sequence[int]
    ) -> Iterable[tuple[Any, Sequence[int], "pa.StructArray"]]:
        """Yield the messages of each event that is read."""
        if not len(rows):
            return
        if self._event is None:
            yield "", indexes, rows
            return
        names = rows.field(self._event).to_pylist()
        by_name: dict[Any, list[int]] = {name: [] for name in set(names) & self._read}
        if len(by_name) == 1 and len(set(names)) == 1:
            yield names[0], indexes, rows
            return
        for index, name in enumerate(names):
            if name in by_name:
                by_name[name].append(index)
        for name, some in by_name.items():
            yield name, [indexes[index] for index in some], _taken(rows, some)


def _taken(rows: "pa.StructArray", indexes: Sequence[int]) -> "pa.StructArray":
    """Return some rows. `pa.array` is not asked for their indexes: it would import pandas, if that is installed."""
    import pyarrow as pa

    buffer = pa.py_buffer(array("q", indexes))
    return rows.take(pa.Array.from_buffers(pa.int64(), len(indexes), [None, buffer]))


# ---- which schemas ------------------------------------------------------------------------------------------------


def _schema_text(node: Node, within: tuple[int, ...], known: set[str]) -> tuple[Any, int]:
    """Return a type for pyruhvro, and the least number of bytes of a value.

    It has no logical types, because pyruhvro knows few of them. Raises `UnsupportedSchema` for a type that pyruhvro
    does not have, a type within itself, and elements without bytes: a few bytes could hold a billion of them.
    """
    if id(node) in within:
        raise UnsupportedSchema(f"{node.shown} within itself")
    within = (*within, id(node))
    if node.kind == "union":
        inner, nullable = present(node)
        if not nullable:
            raise UnsupportedSchema(f"a union of {node.shown}")
        text, _ = _schema_text(inner, within, known)
        return ["null", text] if node.inner[0].kind == "null" else [text, "null"], 1
    if node.kind == "array":
        text, width = _schema_text(node.inner[0], within, known)
        if not width:
            raise UnsupportedSchema(f"an array of {node.inner[0].shown}, whose values take no bytes")
        return {"type": "array", "items": text}, 1
    if node.kind in PLAIN:
        return node.kind, 1
    if node.kind not in ("enum", "record") or (node.kind == "record" and not node.fields):
        raise UnsupportedSchema(f"{node.shown} without fields" if node.kind == "record" else node.shown)
    definition: dict[str, Any] = {"type": node.kind, "name": node.name}
    if node.kind == "enum":
        width = 1
        definition["symbols"] = node.symbols
    else:
        fields = [(field.name, *_schema_text(field.type, within, known)) for field in node.fields]
        width = sum(least for _, _, least in fields)
        definition["fields"] = [{"name": name, "type": text} for name, text, _ in fields]
    text = node.name if node.name in known else definition
    known.add(node.name)
    return text, width


def _names_events(writer: Node, reader: Node, event: str) -> bool:
    """Whether the field that names the event has texts or integers alone: in Python, True and 1.0 are equal to 1."""
    nodes = [present(field.type)[0] for root in (writer, reader) for field in root.fields if field.name == event]
    names = [node for node in nodes if node.kind in ("string", "enum", "int", "long") and node.logical is None]
    return len(names) == 2  # noqa: PLR2004 - both have it


def _spans(
    writer: Node, reader: Node, wanted: Wanted | None, path: tuple[str, ...]
) -> Iterable[tuple[tuple[str, ...], int, int]]:
    """Return the paths of all instants that any row reads, with their bounds.

    A message is refused for an instant that only the rows of another event read, too. Raises `UnsupportedSchema` for
    any other type whose values may be refused.
    """
    w, r = agreed(writer, reader)
    if w.kind == "record":
        for field, source in sources(r, w):
            if wanted is not None and field.name not in wanted:
                continue
            if source is None:
                default_of(field)
            else:
                yield from _spans(source.type, field.type, wanted and wanted[field.name], (*path, source.name))
    elif w.logical is not None:
        scale = INSTANTS.get(w.logical.name)
        if scale is None:
            raise UnsupportedSchema(w.shown)
        yield path, FIRST // scale, LAST // scale
    elif w.kind == "array":
        agreed(w.inner[0], r.inner[0])
        if w.inner[0].kind not in PLAIN or w.inner[0].logical is not None:
            raise UnsupportedSchema(f"an array of {w.inner[0].shown}")
    elif w.kind not in PLAIN and w.kind != "enum":
        raise UnsupportedSchema(w.shown)


def _add_outside(rows: "pa.StructArray", path: tuple[str, ...], low: int, high: int, bad: set[int]) -> None:
    """Add the indexes of rows whose instant is out of its bounds."""
    column: Any = rows
    for name in path:
        column = column.field(name)
    values = column.to_pylist()
    there = present_of(column, values)
    if there and not low <= min(there) <= max(there) <= high:
        bad.update(index for index, value in enumerate(values) if value is not None and not low <= value <= high)
