"""An item → a row by a function that is generated once a row class: the fast way.

The generated function works on Structs derived from the row's paths and never judges: wherever it or the typed decode
refuses, the item is decoded plainly and interpreted, and that gives the error or the row. So a user's function may be
called twice for one item, and should have no effect but its result.
"""

import copy
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Raw

from lovelace_streams.records import Record
from lovelace_streams.rows.coercion import EPOCH
from lovelace_streams.rows.decode_types import DecodeNode, attribute
from lovelace_streams.rows.fields import Field
from lovelace_streams.rows.paths import JsonPath
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.values import parse

Generated = Callable[[Any, Any, Record, datetime], Row]
"""`map(item, message, record, latest version)` on typed Structs; whatever it raises means: interpret."""


class UseInterpreter(Exception):  # noqa: N818
    """The generated function leaves this item to `interpret`."""


_EXACT = re.compile(rb"\\|\d\.|\d[eE]|\d{19}")
"""What msgspec's plain values and `parse`'s could differ by: escapes, fractions, long integers."""


def plain(raw: Raw) -> Any:
    """What `parse` gives for a piece of JSON, the quick way where it is the same."""
    text = bytes(raw)
    return parse(text) if _EXACT.search(text) else msgspec.json.decode(text)


@lru_cache(maxsize=4096)
def stamp(timestamp: int) -> datetime:
    """Kafka's milliseconds as an instant; many messages share one, and making it costs more than finding it.

    Raises `UseInterpreter` where there are none.
    """
    if timestamp < 0:
        raise UseInterpreter
    return EPOCH + timedelta(0, 0, 0, timestamp)


def generate(
    row_class: type[Row], fields: tuple[Field, ...], path: tuple[str, ...], message: DecodeNode, item: DecodeNode
) -> Generated:
    """Write the function that reads attributes and makes the row, and compile it. `map.__doc__` is its source."""
    names: dict[str, Any] = {
        "UNSET": UNSET, "SLOW": UseInterpreter, "UTC": UTC, "plain": plain, "stamp": stamp, "copy": copy.copy,
        "Row": row_class, "replace": msgspec.structs.replace,
    }  # fmt: skip
    lines: list[str] = []
    if any(field.kafka for field in fields):
        lines.append("if record.origin is not None: raise SLOW")
    parents: dict[tuple[bool, tuple[str, ...]], str] = {(True, ()): "message", (False, ()): "item"}

    def parent(place: JsonPath, tree: DecodeNode, parts: tuple[str, ...]) -> str:
        known = parents.get((place.root, parts))
        if known is None:
            above = parent(place, tree, parts[:-1])
            known = parents[place.root, parts] = f"p{len(parents)}_{attribute(parts[-1])}"
            lines.append(f"{known} = {above}.{attribute(parts[-1])}")
            if not (place.root and parts == path):
                lines.append(f"if {known} is None: {known} = no_{known}")
                names[f"no_{known}"] = tree.at(parts).struct("Nothing", message.at(path))()
        return known

    for field in fields:
        v = f"v_{field.column.name}"
        reads, blank = [], field.blank
        for place in field.places:
            tree = message if place.root else item
            leaf = f"{parent(place, tree, place.parts[:-1])}.{attribute(place.parts[-1])}"
            node = tree.at(place.parts)
            reads.append((leaf, node.hint is None))
            blank = blank if node.blank is None else UNSET
        lines += _read(field, v, reads)
        lines += _finish(field, v, names, raw=not reads or any(raw for _, raw in reads), blank=blank)
    version = row_class.__table__.version
    if version is not None and next(f for f in fields if f.column.name == version).column.type is datetime:
        lines.append(f"if v_{version} > latest: raise SLOW")
    made = ", ".join(f"{field.column.name}=v_{field.column.name}" for field in fields)
    if hasattr(row_class, "__post_init__"):
        lines.append(f"return Row({made})")
    else:  # up to Python 3.11 a Struct whose metaclass is written in Python is made three times quicker so (0.15 µs)
        names["blank"] = row_class(**dict.fromkeys(row_class.__struct_fields__, UNSET))
        lines.append(f"return replace(blank, {made})")
    body = "\n".join(f"    {line}" for line in lines)
    source = f"def map(item, message, record, latest):\n{body}\n"
    exec(compile(source, f"<map of {row_class.__name__}>", "exec"), names)  # noqa: S102 - made of attribute names alone
    names["map"].__doc__ = source
    function: Generated = names["map"]
    return function


def _read(field: Field, v: str, reads: list[tuple[str, bool]]) -> list[str]:
    """Lines that give `v` the first value among the reads, else None if one is null, else UNSET."""
    if field.kafka == "timestamp":
        if field.column.type is datetime:
            return [f"{v} = stamp(record.timestamp)"]
        return ["if record.timestamp < 0: raise SLOW", f"{v} = record.timestamp"]
    if field.kafka == "key":
        return [f"{v} = key_{field.column.name}(record)"]
    if field.kafka is not None:
        return [f"{v} = record.{field.kafka}"]
    lines: list[str] = []
    for depth, (leaf, raw) in enumerate(reads):
        indent = "    " * depth
        if depth:
            lines.append(f"{indent[4:]}if {v} is None or {v} is UNSET:")
            lines.append(f"{indent}null{depth} = {v} is None")
        lines.append(f"{indent}{v} = {leaf}")
        if raw:
            lines.append(f"{indent}if {v} is not UNSET: {v} = plain({v})")
    closing = range(len(reads) - 1, 0, -1)
    return lines + [f"{'    ' * depth}if null{depth} and {v} is UNSET: {v} = None" for depth in closing]


def _finish(field: Field, v: str, names: dict[str, Any], *, raw: bool, blank: Any) -> list[str]:
    """Lines that make the column's value of `v`: absent (never UNSET where `blank` is None), null, or a value."""
    column = field.column
    n = column.name
    null = "pass" if column.nullable else "raise SLOW"
    absent = "pass" if column.nullable else "raise SLOW"
    if field.required:
        absent = "raise SLOW"
    elif column.default is not NODEFAULT:
        names[f"default_{n}"] = column.default
        absent = f"{v} = copy(default_{n})" if isinstance(column.default, list | dict) else f"{v} = default_{n}"
    if field.kafka == "key":
        names[f"key_{n}"] = field.key
    if field.kafka in ("timestamp", "topic", "partition", "offset") and not (column.after or column.meta):
        return []
    convert = _convert(field, v, names, raw=raw)
    if blank is None:
        absent = null
    missing = f"{v} is None" if blank is None else f"{v} is None or {v} is UNSET"
    of_text = convert[:1] == [f"if {v}.__class__ is str:"] and all(line.startswith(" ") for line in convert[1:])
    if absent != null:
        tests = [f"if {v} is UNSET: {absent}", f"elif {v} is None: {null}"]
        if of_text:
            return [*convert, f"el{tests[0]}", tests[1]]
        return [*tests, *(["else:", *_indented(convert)] if convert else [])]
    if null == "raise SLOW":
        return [*convert, f"elif {missing}: {null}"] if of_text else [f"if {missing}: {null}", *convert]
    if of_text or not convert:
        return convert
    return [f"if not ({missing}):" if blank is UNSET else f"if {v} is not None:", *_indented(convert)]


def _convert(field: Field, v: str, names: dict[str, Any], *, raw: bool) -> list[str]:
    column, kind = field.column, field.kind
    n = column.name
    if raw or kind.hint is None or column.before:
        names[f"finish_{n}"] = field.finish
        return [f"{v} = finish_{n}({v})"]
    lines = [line.format(x=v, n=n) for line in kind.lines]
    names.update({name.format(n=n): value for name, value in kind.names.items()})
    after: list[str] = []
    for position, function in enumerate(column.after):
        names[f"after_{n}_{position}"] = function
        after.extend((f"{v} = after_{n}_{position}({v})", f"if {v} is None: raise SLOW"))
    if column.after:
        names[f"coerce_{n}"] = kind.coerce
        if column.type is str:  # which None is not, either
            after[-1] = f"if not ({v}.__class__ is str and {v}.isprintable()): {v} = coerce_{n}({v})"
        else:
            after.append(f"{v} = coerce_{n}({v})")
    if column.meta:
        names[f"limits_{n}"] = field.limits
        after.append(f"{v} = limits_{n}({v})")
    return lines + after


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
