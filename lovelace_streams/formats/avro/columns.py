"""A window's messages at once: pyruhvro (in Rust) reads them into Arrow's columns, which become typed messages.

It judges less than `reading` does: it takes bytes that are left over, varints that are longer than need be, an int past
its bits. So it is believed only where it can be proved right: what it read is written again, and a message counts whose
bytes come out the very same. Both together cost a twentieth of reading one by one
(docs/decisions/0016-avro-by-columns.md). Every other message, and every schema with something that is not understood
here, is left to the reader, which judges.
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
"""A column's values; rows that the reader has to judge are added to the set."""

FEW = 4
"""So many messages of a chunk that is refused are not cut further: the reader takes them."""
TRIES, IDLE = 128, 8
"""A chunk is cut so often, which finds some nine bad ones; for more, so many chunks are left to the reader."""
CHUNK = 512
"""Messages that are read at once: one that is no Avro costs its chunk."""


def columns_are_known() -> bool:
    """Whether what this needs is installed: the extra `avro-columns`."""
    return find_spec("pyruhvro") is not None and find_spec("pyarrow") is not None


class UnsupportedSchema(Exception):  # noqa: N818
    """A schema, or what rows read of it, that is not understood here."""


class Columns:
    """Reads data of one writer's schema into Structs, as `reading` and `msgspec.convert` would.

    Raises `UnsupportedSchema`. `types` are the messages' Structs by event; without an `event` field there is one, named
    "". Messages of events that are not understood are left to the reader.
    """

    def __init__(
        self,
        writer: Schema,
        reader: Schema,
        wanted: Wanted | None,
        types: dict[str, type[msgspec.Struct]],
        event: str | None,
    ) -> None:
        text, _ = _schema_text(writer.root, (), set())
        self._text = json.dumps(text)
        self._spans = list(_spans(writer.root, reader.root, wanted, ()))
        self._event = event
        self._tries = self._idle = 0
        self._make: dict[str, Make] = {}
        for name, made in types.items():
            with suppress(UnsupportedSchema):
                self._make[name] = _record(made, writer.root, reader.root)
        if not self._make:
            raise UnsupportedSchema

    def read(self, data: Sequence[bytes]) -> list[tuple[str, Any] | None]:
        """(event, message) of each datum; None where it is left to the reader."""
        found: list[tuple[str, Any] | None] = []
        for at in range(0, len(data), CHUNK):
            found += self._read(data[at : at + CHUNK])
        return found

    def _read(self, data: Sequence[bytes]) -> list[tuple[str, Any] | None]:
        if self._idle:
            self._idle -= 1
            return [None] * len(data)
        batch = self._batch(data)
        if batch is not None:
            return self._proved(data, batch)
        found: list[tuple[str, Any] | None] = [None] * len(data)
        self._tries = TRIES
        good = [*self._good(data, 0, len(data) // 2), *self._good(data, len(data) // 2, len(data))]
        if not self._tries:
            self._idle = IDLE
        some = [data[place] for place in good]
        if good and (batch := self._batch(some)) is not None:
            for place, each in zip(good, self._proved(some, batch), strict=True):
                found[place] = each
        return found

    def _batch(self, data: Sequence[bytes]) -> "pa.RecordBatch | None":
        """The columns of all, or none where one of them is refused."""
        import pyruhvro

        try:
            batch = pyruhvro.deserialize_array(data, self._text)
            batch.validate(full=True)  # pyruhvro takes any bytes for text
        except BaseException as refusal:
            if not isinstance(refusal, Exception) and type(refusal).__name__ != "PanicException":
                raise
            return None
        return batch

    def _good(self, data: Sequence[bytes], start: int, end: int) -> Iterable[int]:
        """The places of those that are not refused, by halving; a few of their neighbours are left to the reader."""
        if start == end or not self._tries:
            return ()
        self._tries -= 1
        if self._batch(data[start:end]) is not None:
            return range(start, end)
        if end - start <= FEW:
            return ()
        middle = (start + end) // 2
        return [*self._good(data, start, middle), *self._good(data, middle, end)]

    def _proved(self, data: Sequence[bytes], batch: "pa.RecordBatch") -> list[tuple[str, Any] | None]:
        """Those that come out the same when they are written again."""
        import pyarrow as pa
        import pyruhvro

        found: list[tuple[str, Any] | None] = [None] * len(data)
        [again] = pyruhvro.serialize_record_batch(batch, self._text, 1)
        bad: set[int] = set()
        if not again.equals(pa.array(data, pa.binary())):
            bad = {place for place, (a, b) in enumerate(zip(again.to_pylist(), data, strict=True)) if a != b}
        rows = batch.to_struct_array()
        for path, low, high in self._spans:
            _outside(rows, path, low, high, bad)
        for name, places in self._by_event(rows, len(data)):
            some = rows if len(places) == len(data) else rows.take(pa.array(places))
            refused: set[int] = set()
            for place, message, at in zip(places, self._make[name](some, refused), range(len(places)), strict=True):
                if place not in bad and at not in refused:
                    found[place] = (name, message)
        return found

    def _by_event(self, rows: "pa.StructArray", count: int) -> Iterable[tuple[str, Sequence[int]]]:
        """The places of each event that is read."""
        if self._event is None:
            return [("", range(count))]
        names = rows.field(self._event).to_pylist()
        places: dict[str, list[int]] = {name: [] for name in set(names) & self._make.keys()}
        if len(places) == 1 and len(set(names)) == 1:
            return [(names[0], range(count))]
        for place, name in enumerate(names):
            if name in places:
                places[name].append(place)
        return places.items()


# ---- which schemas ------------------------------------------------------------------------------------------------


def _schema_text(node: Node, within: tuple[int, ...], known: set[str]) -> tuple[Any, int]:
    """A type for pyruhvro, without logical types, which it knows few of, and the least number of bytes of a value.

    Raises `UnsupportedSchema` for types that it does not have, and for what a few bytes could make endless.
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
    made: dict[str, Any] = {"type": node.kind, "name": node.name}
    if node.kind == "enum":
        width = 1
        made["symbols"] = node.symbols
    else:
        fields = [(field.name, *_schema_text(field.type, within, known)) for field in node.fields]
        width = sum(least for _, _, least in fields)
        made["fields"] = [{"name": name, "type": text} for name, text, _ in fields]
    text = node.name if node.name in known else made
    known.add(node.name)
    return text, width


def _present(node: Node) -> tuple[Node, bool]:
    """A type without null, and whether it had it; raises `UnsupportedSchema` for other unions."""
    if node.kind != "union":
        return node, False
    others = [branch for branch in node.inner if branch.kind != "null"]
    if len(others) != 1:
        raise UnsupportedSchema
    return others[0], len(node.inner) > 1


def _alike(writer: Node, reader: Node) -> Node:
    """The writer's type without null, where the reader has the very same; raises `UnsupportedSchema`."""
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


_INSTANTS = {"timestamp-micros": 1, "timestamp-millis": 1000}
"""Logical type → microseconds of its unit."""
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds: past them a message is `out_of_range`."""


def _spans(
    writer: Node, reader: Node, wanted: Wanted | None, path: tuple[str, ...]
) -> Iterable[tuple[tuple[str, ...], int, int]]:
    """All instants that any row reads, with their bounds.

    Raises `UnsupportedSchema` for a type whose values may be refused.

    A message is refused for what another event's row reads of it, too.
    """
    w = _alike(writer, reader)
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
        _alike(w.inner[0], _present(reader)[0].inner[0])
        if w.inner[0].kind not in _PLAIN or w.inner[0].logical is not None:
            raise UnsupportedSchema
    elif w.kind not in _PLAIN and w.kind != "enum":
        raise UnsupportedSchema


_PLAIN = frozenset({"boolean", "int", "long", "float", "double", "string"})


def _outside(rows: "pa.StructArray", path: tuple[str, ...], low: int, high: int, bad: set[int]) -> None:
    """Note the rows whose instant lies outside."""
    import pyarrow.compute as pc

    array: Any = rows
    for name in path:
        array = array.field(name)
    ends = pc.min_max(array).as_py()
    if ends["min"] is not None and not low <= ends["min"] <= ends["max"] <= high:
        bad.update(
            place for place, each in enumerate(array.to_pylist()) if each is not None and not low <= each <= high
        )


# ---- columns to Structs ---------------------------------------------------------------------------------------------


def _record(made: type[msgspec.Struct], w: Node, r: Node) -> Make:
    """How Structs of a type are made of a record's columns; what the reader does not have is absent."""
    known = {field.name: (field.type, source) for field, source in sources(r, w)}
    parts: list[tuple[str, Make] | Any] = []
    for field in msgspec.structs.fields(made):
        if field.encode_name not in known:
            parts.append((None, field.default))
            continue
        reader, source = known[field.encode_name]
        if source is None:
            raise UnsupportedSchema
        parts.append((source.name, _value(field.type, source.type, reader)))

    def make(array: "pa.StructArray", bad: set[int]) -> list[Any]:
        columns = [repeat(part, len(array)) if name is None else part(array.field(name), bad) for name, part in parts]
        return list(map(made, *columns)) if columns else [made() for _ in range(len(array))]

    return make


def _value(hint: Any, writer: Node, reader: Node) -> Make:
    w = _alike(writer, reader)
    struct: Any = next((each for each in get_args(hint) if isinstance(each, msgspec.StructMeta)), None)
    if struct is not None:
        if w.kind != "record":
            raise UnsupportedSchema
        return _with_null(_record(struct, w, _present(reader)[0]))
    element = w.inner[0] if w.kind == "array" else w
    name = element.logical.name if element.logical is not None else element.kind
    if name not in _LEAVES or (element is not w and name not in ("int", "long", "boolean", "string")):
        raise UnsupportedSchema
    sample, make = _LEAVES[name]
    _taken_as_it_is(sample if element is w else [sample], hint)
    return make if element is w else _lists(name)


def _taken_as_it_is(sample: Any, hint: Any) -> None:
    """Raises `UnsupportedSchema` where a value of this kind would be converted, or refused."""
    try:
        taken = msgspec.convert(sample, hint)
    except msgspec.ValidationError:
        raise UnsupportedSchema from None
    if taken != sample or taken.__class__ is not sample.__class__:
        raise UnsupportedSchema


def _with_null(make: Make) -> Make:
    def take(array: "pa.StructArray", bad: set[int]) -> Sequence[Any]:
        made = make(array, bad)
        if not array.null_count:
            return made
        return [each if there else None for each, there in zip(made, array.is_valid().to_pylist(), strict=True)]

    return take


def _as_it_is(array: "pa.Array", bad: set[int]) -> list[Any]:
    values: list[Any] = array.to_pylist()
    return values


def _texts(array: "pa.Array", bad: set[int]) -> list[Any]:
    """NUL is for the interpreted mapping."""
    values: list[Any] = array.to_pylist()
    if "\0" in "".join(filter(None, values)):
        bad.update(place for place, value in enumerate(values) if value and "\0" in value)
    return values


def _numbers(array: "pa.Array", bad: set[int]) -> list[Any]:
    """So are NaN and infinity."""
    values: list[Any] = array.to_pylist()
    if not all(map(math.isfinite, filter(None, values))):
        bad.update(place for place, value in enumerate(values) if value is not None and not math.isfinite(value))
    return values


def _instants(scale: int) -> Make:
    def take(array: "pa.Array", bad: set[int]) -> list[Any]:
        values = array.to_pylist()
        try:
            return [None if value is None else EPOCH + timedelta(0, 0, value * scale) for value in values]
        except OverflowError:  # such rows were found before, and are left to the reader
            within = range(_FIRST // scale, _LAST // scale + 1)
            return [EPOCH + timedelta(0, 0, value * scale) if value in within else None for value in values]

    return take


def _lists(name: str) -> Make:
    def take(array: "pa.Array", bad: set[int]) -> list[Any]:
        values: list[Any] = array.to_pylist()
        if name == "string" and "\0" in "".join(array.flatten().to_pylist()):
            bad.update(place for place, value in enumerate(values) if value and any("\0" in each for each in value))
        return values

    return take


_LEAVES: dict[str, tuple[Any, Make]] = {
    "boolean": (True, _as_it_is),
    "int": (5, _as_it_is),
    "long": (5, _as_it_is),
    "float": (1.5, _numbers),
    "double": (1.5, _numbers),
    "string": ("x", _texts),
    "enum": ("x", _as_it_is),
    **{name: (EPOCH, _instants(scale)) for name, scale in _INSTANTS.items()},
}
"""Kind or logical type → a sample, and how a column of it is read."""
