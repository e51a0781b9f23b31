"""Many messages of one schema at once: pyruhvro (in Rust) reads them into Arrow's columns, which become typed messages.

pyruhvro checks less than `reading` does. It accepts bytes that are left over, varints that are longer than need be, and
an int past its bits. So its values are used only where they are proved right: they are written again, and a message
counts if its very bytes come out. Both together cost a twentieth of reading one by one
(docs/decisions/0016-avro-by-columns.md). All other messages are left to `reading`, and all schemas with something that
is not supported here. `Columns` refuses nothing: it gives a message, or leaves it.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from itertools import repeat
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from lovelace_streams.formats.avro.reading import Wanted
from lovelace_streams.formats.avro.resolution import matches, sources
from lovelace_streams.formats.avro.schema import Node, Schema
from lovelace_streams.rows.coercion import EPOCH

if TYPE_CHECKING:
    import pyarrow as pa

Make = Callable[["pa.Array", set[int]], Sequence[Any]]
"""Makes the values of a column, and adds the rows to the set that are left to `reading`."""

CHUNK = 512
"""Messages that are read at once. One that is no Avro makes pyruhvro refuse its whole chunk, which is then halved."""
HALF_MIN = 4
"""A refused part with no more messages than this is not halved again: they are left to `reading`."""
TRIES_MAX = 128
"""The parts of a chunk that are tried. That finds some nine bad messages."""
IDLE_CHUNKS = 8
"""The chunks that are left to `reading` after one with more bad messages."""


def columns_are_known() -> bool:
    """Whether the extra `avro-columns` is installed."""
    return find_spec("pyruhvro") is not None and find_spec("pyarrow") is not None


class UnsupportedSchema(Exception):  # noqa: N818 - names the schema: that it is read one by one is no error
    """A schema, or what the rows read of it, is not supported here."""


class Columns:
    """Reads data of one writer's schema into Structs, with the values that `reading` and `msgspec.convert` would give.

    `types` are the Structs of messages by event, `event` is the field that names it; without one there is one event,
    "". Raises `UnsupportedSchema` if no event's messages can be read so.
    """

    def __init__(
        self,
        writer: Schema,
        reader: Schema,
        wanted: Wanted | None,
        types: dict[Any, type[msgspec.Struct]],
        event: str | None,
    ) -> None:
        if writer.root.kind != "record" or (event is not None and not _names_events(writer.root, event)):
            raise UnsupportedSchema
        text, _ = _schema_text(writer.root, (), set())
        self._text = json.dumps(text)
        self._spans = list(_spans(writer.root, reader.root, wanted, ()))
        self._event = event
        self._tries_left = self._idle_left = 0
        self._make: dict[Any, Make] = {}
        for name, message_type in types.items():
            with suppress(UnsupportedSchema):
                self._make[name] = _record(message_type, writer.root, reader.root)
        if not self._make:
            raise UnsupportedSchema

    def read(self, data: Sequence[bytes]) -> list[tuple[Any, Any] | None]:
        """Return event and message of each datum; None for one that is left to `reading`."""
        found: list[tuple[Any, Any] | None] = []
        for start in range(0, len(data), CHUNK):
            found += self._read_chunk(data[start : start + CHUNK])
        return found

    def _read_chunk(self, data: Sequence[bytes]) -> list[tuple[Any, Any] | None]:
        if self._idle_left:
            self._idle_left -= 1
            return [None] * len(data)
        batch = self._batch(data)
        if batch is not None:
            return self._proved(data, batch)
        found: list[tuple[Any, Any] | None] = [None] * len(data)
        self._tries_left = TRIES_MAX
        good = [*self._good(data, 0, len(data) // 2), *self._good(data, len(data) // 2, len(data))]
        if not self._tries_left:
            self._idle_left = IDLE_CHUNKS
        good_data = [data[index] for index in good]
        if good and (batch := self._batch(good_data)) is not None:
            for index, message in zip(good, self._proved(good_data, batch), strict=True):
                found[index] = message
        return found

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

    def _proved(self, data: Sequence[bytes], batch: "pa.RecordBatch") -> list[tuple[Any, Any] | None]:
        """Return event and message of each datum whose bytes come out the same when the columns are written again."""
        import pyarrow as pa
        import pyruhvro

        found: list[tuple[Any, Any] | None] = [None] * len(data)
        [written] = pyruhvro.serialize_record_batch(batch, self._text, 1)
        bad: set[int] = set()
        if not written.equals(pa.array(data, pa.binary())):
            bad = {index for index, (a, b) in enumerate(zip(written.to_pylist(), data, strict=True)) if a != b}
        rows = batch.to_struct_array()
        for path, low, high in self._spans:
            _add_outside(rows, path, low, high, bad)
        for name, indexes in self._by_event(rows, len(data)):
            of_event = rows if len(indexes) == len(data) else rows.take(pa.array(indexes))
            left: set[int] = set()
            messages = self._make[name](of_event, left)
            for position, index, message in zip(range(len(indexes)), indexes, messages, strict=True):
                if index not in bad and position not in left:
                    found[index] = (name, message)
        return found

    def _by_event(self, rows: "pa.StructArray", count: int) -> Iterable[tuple[Any, Sequence[int]]]:
        """Return the indexes of the messages of each event that is read."""
        if self._event is None:
            return [("", range(count))]
        names = rows.field(self._event).to_pylist()
        indexes: dict[Any, list[int]] = {name: [] for name in set(names) & self._make.keys()}
        if len(indexes) == 1 and len(set(names)) == 1:
            return [(names[0], range(count))]
        for index, name in enumerate(names):
            if name in indexes:
                indexes[name].append(index)
        return indexes.items()


# ---- which schemas ------------------------------------------------------------------------------------------------


def _schema_text(node: Node, within: tuple[int, ...], known: set[str]) -> tuple[Any, int]:
    """Return a type for pyruhvro, and the least number of bytes of a value.

    It has no logical types, because pyruhvro knows few of them. Raises `UnsupportedSchema` for a type that pyruhvro
    does not have, a type within itself, and elements without bytes: a few bytes could hold a billion of them.
    """
    if id(node) in within:
        raise UnsupportedSchema
    within = (*within, id(node))
    if node.kind == "union":
        inner, nullable = _present(node)
        if not nullable:
            raise UnsupportedSchema
        text, _ = _schema_text(inner, within, known)
        return ["null", text] if node.inner[0].kind == "null" else [text, "null"], 1
    if node.kind == "array":
        text, width = _schema_text(node.inner[0], within, known)
        if not width:
            raise UnsupportedSchema
        return {"type": "array", "items": text}, 1
    if node.kind in _PLAIN:
        return node.kind, 1
    if node.kind not in ("enum", "record") or (node.kind == "record" and not node.fields):
        raise UnsupportedSchema
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


def _present(node: Node) -> tuple[Node, bool]:
    """Return a type without null, and whether it had null; raises `UnsupportedSchema` for any other union."""
    if node.kind != "union":
        return node, False
    others = [branch for branch in node.inner if branch.kind != "null"]
    if len(others) != 1:
        raise UnsupportedSchema
    return others[0], len(node.inner) > 1


def _same(writer: Node, reader: Node) -> Node:
    """Return the writer's type without null; raises `UnsupportedSchema` if the reader's is not the very same."""
    (w, w_nullable), (r, r_nullable) = _present(writer), _present(reader)
    if (
        w.kind != r.kind
        or w_nullable != r_nullable
        or w.logical != r.logical
        or w.symbols != r.symbols
        or not matches(w, r)
    ):
        raise UnsupportedSchema
    return w


def _names_events(record: Node, event: str) -> bool:
    """Whether the field that names the event has texts or integers alone: in Python, True and 1.0 are equal to 1."""
    kinds = [_present(field.type)[0] for field in record.fields if field.name == event]
    return any(node.kind in ("string", "enum", "int", "long") and node.logical is None for node in kinds)


_INSTANTS = {"timestamp-micros": 1, "timestamp-millis": 1000}
"""Logical type → microseconds of its unit."""
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds. A message with an instant past them is `out_of_range`."""


def _spans(
    writer: Node, reader: Node, wanted: Wanted | None, path: tuple[str, ...]
) -> Iterable[tuple[tuple[str, ...], int, int]]:
    """Return the paths of all instants that any row reads, with their bounds.

    A message is refused for an instant that only the rows of another event read, too. Raises `UnsupportedSchema` for
    any other type whose values may be refused.
    """
    w = _same(writer, reader)
    if w.kind == "record":
        r, _ = _present(reader)
        for field, source in sources(r, w):
            if wanted is None or field.name in wanted:
                if source is None:
                    raise UnsupportedSchema
                yield from _spans(source.type, field.type, wanted and wanted[field.name], (*path, source.name))
    elif w.logical is not None:
        scale = _INSTANTS.get(w.logical.name)
        if scale is None:
            raise UnsupportedSchema
        yield path, _FIRST // scale, _LAST // scale
    elif w.kind == "array":
        _same(w.inner[0], _present(reader)[0].inner[0])
        if w.inner[0].kind not in _PLAIN or w.inner[0].logical is not None:
            raise UnsupportedSchema
    elif w.kind not in _PLAIN and w.kind != "enum":
        raise UnsupportedSchema


_PLAIN = frozenset({"boolean", "int", "long", "float", "double", "string"})


def _add_outside(rows: "pa.StructArray", path: tuple[str, ...], low: int, high: int, bad: set[int]) -> None:
    """Add the indexes of rows whose instant is out of its bounds."""
    import pyarrow.compute as pc

    array: Any = rows
    for name in path:
        array = array.field(name)
    ends = pc.min_max(array).as_py()
    if ends["min"] is not None and not low <= ends["min"] <= ends["max"] <= high:
        values = enumerate(array.to_pylist())
        bad.update(index for index, value in values if value is not None and not low <= value <= high)


# ---- columns to Structs ---------------------------------------------------------------------------------------------


def _record(struct: type[msgspec.Struct], w: Node, r: Node) -> Make:
    """Make what turns a record's columns into Structs; a field that the reader does not have is absent."""
    known = {field.name: (field.type, source) for field, source in sources(r, w)}
    parts: list[tuple[str, Make] | Any] = []
    for field in msgspec.structs.fields(struct):
        if field.encode_name not in known:
            parts.append((None, field.default))
            continue
        reader, source = known[field.encode_name]
        if source is None:
            raise UnsupportedSchema
        parts.append((source.name, _value(field.type, source.type, reader)))

    def make(array: "pa.StructArray", bad: set[int]) -> list[Any]:
        columns = [repeat(part, len(array)) if name is None else part(array.field(name), bad) for name, part in parts]
        return list(map(struct, *columns)) if columns else [struct() for _ in range(len(array))]

    return make


def _value(hint: Any, writer: Node, reader: Node) -> Make:
    """Make what turns a column into values that msgspec would decode by the hint; raises `UnsupportedSchema`."""
    w = _same(writer, reader)
    struct: Any = next((part for part in get_args(hint) if isinstance(part, msgspec.StructMeta)), None)
    if struct is not None:
        if w.kind != "record":
            raise UnsupportedSchema
        return _with_null(_record(struct, w, _present(reader)[0]))
    element = w.inner[0] if w.kind == "array" else w
    name = element.logical.name if element.logical is not None else element.kind
    if name not in _LEAVES or (element is not w and name not in ("int", "long", "boolean", "string")):
        raise UnsupportedSchema
    sample, make = _LEAVES[name]
    _check_unchanged(sample if element is w else [sample], hint)
    return make if element is w else _lists(name)


def _check_unchanged(sample: Any, hint: Any) -> None:
    """Raise `UnsupportedSchema` if msgspec would refuse a value like the sample, or convert it to another."""
    try:
        converted = msgspec.convert(sample, hint)
    except msgspec.ValidationError:
        raise UnsupportedSchema from None
    if converted != sample or converted.__class__ is not sample.__class__:
        raise UnsupportedSchema


def _with_null(make: Make) -> Make:
    """Make what gives None for a record that is null."""

    def nullable(array: "pa.StructArray", bad: set[int]) -> Sequence[Any]:
        values = make(array, bad)
        if not array.null_count:
            return values
        return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]

    return nullable


def _unchanged(array: "pa.Array", bad: set[int]) -> list[Any]:
    values: list[Any] = array.to_pylist()
    return values


def _texts(array: "pa.Array", bad: set[int]) -> list[Any]:
    """Leave a NUL to `reading`, and so to the interpreter."""
    values: list[Any] = array.to_pylist()
    if "\0" in "".join(filter(None, values)):
        bad.update(index for index, value in enumerate(values) if value and "\0" in value)
    return values


def _numbers(array: "pa.Array", bad: set[int]) -> list[Any]:
    """Leave NaN and infinity to it, too."""
    values: list[Any] = array.to_pylist()
    if not all(map(math.isfinite, filter(None, values))):
        bad.update(index for index, value in enumerate(values) if value is not None and not math.isfinite(value))
    return values


def _instants(scale: int) -> Make:
    """Make what turns numbers into instants; `scale` is the microseconds of their unit."""

    def instants(array: "pa.Array", bad: set[int]) -> list[Any]:
        values = array.to_pylist()
        try:
            return [None if value is None else EPOCH + timedelta(0, 0, value * scale) for value in values]
        except OverflowError:  # `_add_outside` has found such rows: they are left to `reading`
            within = range(_FIRST // scale, _LAST // scale + 1)
            return [EPOCH + timedelta(0, 0, value * scale) if value in within else None for value in values]

    return instants


def _lists(name: str) -> Make:
    """Make what gives lists of a type; a NUL in a text is left to `reading`."""

    def lists(array: "pa.Array", bad: set[int]) -> list[Any]:
        values: list[Any] = array.to_pylist()
        if name == "string" and "\0" in "".join(array.flatten().to_pylist()):
            bad.update(index for index, value in enumerate(values) if value and any("\0" in text for text in value))
        return values

    return lists


_LEAVES: dict[str, tuple[Any, Make]] = {
    "boolean": (True, _unchanged),
    "int": (5, _unchanged),
    "long": (5, _unchanged),
    "float": (1.5, _numbers),
    "double": (1.5, _numbers),
    "string": ("x", _texts),
    "enum": ("x", _unchanged),
    **{name: (EPOCH, _instants(scale)) for name, scale in _INSTANTS.items()},
}
"""Kind or logical type → a sample, and what reads a column of it."""
