"""The values of Arrow's columns, as `reading` and `msgspec.convert` would give them: leaves, and Structs of records.

Where the reader's type is not the writer's, only what leaves values as they are is supported here: null for the reader
alone, symbols that the reader has beside the writer's, a wider number, and a plain default for a field that the writer
does not have.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any, get_args
from uuid import UUID

import msgspec

from lovelace_streams.formats.avro.resolution import matches, sources
from lovelace_streams.formats.avro.schema import Field, Node
from lovelace_streams.rows.coercion import EPOCH

if TYPE_CHECKING:
    import pyarrow as pa

Make = Callable[["pa.Array", set[int]], Sequence[Any]]
"""Makes the values of a column, and adds the rows to the set that are left to `reading`."""


class UnsupportedSchema(Exception):  # noqa: N818 - names the schema: that it is read one by one is no error
    """A schema, or what the rows read of it, is not supported here; its text says why."""


# ---- types ----------------------------------------------------------------------------------------------------------

PLAIN = frozenset({"boolean", "int", "long", "float", "double", "string"})
"""The types that have no parts and no names."""
INSTANTS = {"timestamp-micros": 1, "timestamp-millis": 1000}
"""Logical type → microseconds of its unit."""
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds. A message with an instant past them is `out_of_range`."""
_WIDER = {("int", "long"), ("float", "double")}
"""Writer's and reader's types whose values are the same in Python."""
WHOLE_AS_FLOAT = "whole as float"
"""The kind of whole numbers that the reader has as others."""
_TO_FLOAT = {(whole, real) for whole in ("int", "long") for real in ("float", "double")}


def present(node: Node) -> tuple[Node, bool]:
    """Return a type without null, and whether it had null; raises `UnsupportedSchema` for any other union."""
    if node.kind != "union":
        return node, False
    others = [branch for branch in node.inner if branch.kind != "null"]
    if len(others) != 1:
        raise UnsupportedSchema(f"a union of {node.shown}")
    return others[0], len(node.inner) > 1


def agreed(writer: Node, reader: Node) -> tuple[Node, Node]:
    """Return both types without null; raises `UnsupportedSchema` if the reader makes other values of the writer's."""
    (w, w_nullable), (r, r_nullable) = present(writer), present(reader)
    kinds = (w.kind, r.kind)
    same = w.kind == r.kind or kinds in _WIDER or kinds in _TO_FLOAT
    null = r_nullable or not w_nullable
    if not (same and null and w.logical == r.logical and set(w.symbols) <= set(r.symbols) and matches(w, r)):
        raise UnsupportedSchema(f"{writer.shown} where the flow reads {reader.shown}")
    return w, r


def default_of(field: Field) -> Any:
    """Return the default of a field that the writer does not have; raises `UnsupportedSchema` if it is not plain."""
    default = field.default
    plain = default is None or default.__class__ in (bool, int, float, str, datetime)
    if not plain or (default.__class__ is str and "\0" in default):
        raise UnsupportedSchema(f"the default of {field.name}")
    if default.__class__ is float and not math.isfinite(default):
        raise UnsupportedSchema(f"the default of {field.name}")
    return default


# ---- records --------------------------------------------------------------------------------------------------------


def record(struct: type[msgspec.Struct], writer: Node, reader: Node) -> Make:
    """Make what turns a record's columns into Structs; a field that the reader does not have is absent."""
    known = {field.name: (field, source) for field, source in sources(reader, writer)}
    parts: list[tuple[str | None, Make | Any]] = []
    for field in msgspec.structs.fields(struct):
        if field.encode_name not in known:
            parts.append((None, field.default))
            continue
        read, source = known[field.encode_name]
        if source is None:
            default = default_of(read)
            check_unchanged(default, field.type)
            parts.append((None, default))
        else:
            parts.append((source.name, _value(field.type, source.type, read.type)))

    def make(array: "pa.StructArray", bad: set[int]) -> list[Any]:
        columns = [repeat(part, len(array)) if name is None else part(array.field(name), bad) for name, part in parts]
        return list(map(struct, *columns)) if columns else [struct() for _ in range(len(array))]

    return make


def _value(hint: Any, writer: Node, reader: Node) -> Make:
    """Make what turns a column into values that msgspec would decode by the hint; raises `UnsupportedSchema`."""
    struct: Any = next((part for part in get_args(hint) if isinstance(part, msgspec.StructMeta)), None)
    if struct is None:
        return leaf(hint, writer, reader)[0]
    w, r = agreed(writer, reader)
    if w.kind != "record":
        raise UnsupportedSchema(f"{w.shown} where the rows read a record")
    return _with_null(record(struct, w, r))


def _with_null(make: Make) -> Make:
    """Make what gives None for a record that is null."""

    def nullable(array: "pa.StructArray", bad: set[int]) -> Sequence[Any]:
        values, absent = make(array, bad), nulls(array)
        return [None if index in absent else value for index, value in enumerate(values)] if absent else values

    return nullable


def nulls(array: "pa.Array") -> set[int]:
    """Return the indexes of records that are null."""
    if not array.null_count:
        return set()
    return {index for index, null in enumerate(array.is_null().to_pylist()) if null}


# ---- leaves ---------------------------------------------------------------------------------------------------------


def leaf(hint: Any, writer: Node, reader: Node) -> tuple[Make, str]:
    """Make what turns a column into values as msgspec would decode them by the hint; None: plain values.

    Returns also their kind: that of the type or logical type, with `[]` for a list. Raises `UnsupportedSchema`.
    """
    w, r = agreed(writer, reader)
    element, wanted = agreed(w.inner[0], r.inner[0]) if w.kind == "array" else (w, r)
    name = _kind_of(element, wanted)
    listed = w.kind == "array"
    if name not in _LEAVES or (listed and (name not in _ELEMENTS or w.inner[0].kind == "union")):
        raise UnsupportedSchema(f"{'an array of ' if listed else ''}{element.shown}")
    sample, make = _LEAVES[name]
    if hint is not None:
        parsed = next((part for part in (hint, *get_args(hint)) if part in _PARSED), None)
        if name == "string" and not listed and parsed is not None:
            return _parsed(parsed), name
        check_unchanged([sample] if listed else sample, hint)
    return (_lists(name), f"{name}[]") if listed else (make, name)


def _kind_of(writer: Node, reader: Node) -> str:
    """Return the logical type of a leaf, or its kind: that of the reader where a whole number becomes another."""
    if (writer.kind, reader.kind) in _TO_FLOAT:
        return WHOLE_AS_FLOAT
    return writer.logical.name if writer.logical is not None else writer.kind


def check_unchanged(sample: Any, hint: Any) -> None:
    """Raise `UnsupportedSchema` if msgspec would refuse a value like the sample, or convert it to another."""
    try:
        converted = msgspec.convert(sample, hint)
    except msgspec.ValidationError:
        converted = UnsupportedSchema
    if converted != sample or converted.__class__ is not sample.__class__:
        raise UnsupportedSchema(f"{type(sample).__name__} where a column is declared as another type")


def _unchanged(array: "pa.Array", bad: set[int]) -> list[Any]:
    values: list[Any] = array.to_pylist()
    return values


def _texts(array: "pa.Array", bad: set[int]) -> list[Any]:
    """Leave a NUL to `reading`, and so to the interpreter."""
    values: list[Any] = array.to_pylist()
    if "\0" in "".join(filter(None, values)):
        bad.update(index for index, value in enumerate(values) if value and "\0" in value)
    return values


def _parsed(kind: type[Any]) -> Make:
    """Make what gives texts as another type; what msgspec refuses is left, too."""
    all_of, one_of = list[kind | None], kind | None  # type: ignore[valid-type]

    def parsed(array: "pa.Array", bad: set[int]) -> list[Any]:
        texts = _texts(array, bad)
        try:
            values: list[Any] = msgspec.convert(texts, all_of)
        except msgspec.ValidationError:
            values = []
            for index, text in enumerate(texts):
                try:
                    values.append(msgspec.convert(text, one_of))
                except msgspec.ValidationError:
                    bad.add(index)
                    values.append(None)
        return values

    return parsed


_PARSED = (datetime, date, UUID)
"""Types that msgspec reads from texts."""


def _numbers(array: "pa.Array", bad: set[int]) -> list[Any]:
    """Leave NaN and infinity to it, too."""
    values: list[Any] = array.to_pylist()
    if not all(map(math.isfinite, filter(None, values))):
        bad.update(index for index, value in enumerate(values) if value is not None and not math.isfinite(value))
    return values


def _floats(array: "pa.Array", bad: set[int]) -> list[Any]:
    return [None if value is None else float(value) for value in array.to_pylist()]


def _instants(scale: int) -> Make:
    """Make what turns numbers into instants; `scale` is the microseconds of their unit.

    `fromtimestamp` costs two thirds of adding a `timedelta`. It is given floats, which tell microseconds apart, by half
    of one and more, within `SURE_SECONDS` of 1970.
    """
    per_second = 1_000_000 // scale
    latest, bounds = SURE_SECONDS * per_second, range(FIRST // scale, LAST // scale + 1)

    def instants(array: "pa.Array", bad: set[int]) -> list[Any]:
        numbers = array.to_pylist()
        there = present_of(array, numbers)
        if there and -latest <= min(there) and max(there) <= latest:
            seconds = [number / per_second for number in there]
            values: list[Any] = list(map(datetime.fromtimestamp, seconds, repeat(UTC)))
        else:  # past datetime's years: the bounds leave these to `reading`
            values = [EPOCH + timedelta(0, 0, number * scale) if number in bounds else None for number in there]
        if there is numbers:
            return values
        each = iter(values)
        return [None if number is None else next(each) for number in numbers]

    return instants


SURE_SECONDS = 2**32
"""Up to it a float is less than a quarter of a microsecond from the number that it is made of."""


def present_of(array: "pa.Array", values: list[Any]) -> list[Any]:
    """Return the values of a column without null; the same list if there is none."""
    return [value for value in values if value is not None] if array.null_count else values


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
    WHOLE_AS_FLOAT: (1.5, _floats),
    "string": ("x", _texts),
    "enum": ("x", _unchanged),
    **{name: (EPOCH, _instants(scale)) for name, scale in INSTANTS.items()},
}
"""Kind or logical type → a sample, and what reads a column of it."""
_ELEMENTS = frozenset({"int", "long", "boolean", "string"})
"""The kinds that lists may be of."""
