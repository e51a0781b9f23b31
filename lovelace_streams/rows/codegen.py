"""Item → row by a function that is generated once for each row class: the fast way, about 1 µs a row.

The function reads attributes of Structs that msgspec decoded (`decode_types`). It never judges an item: if it raises
anything, or the typed decode did, the item is decoded plainly and interpreted, and that gives the row or the fault. So
a user's function may be called twice for one item, and should have no effect but its result.

`generate` writes the lines of one field after another. For a field they read a value into `v_<column>`, and then finish
it. For `score: int = 5` of an item that has it at `stats.score`:

    p2_stats = item.stats                            the parent, once for all fields below it
    if p2_stats is None: p2_stats = no_p2_stats
    v_score = p2_stats.score                         `_read`
    if v_score.__class__ is str: …                   `_finish`, with the lines of the type
    elif v_score is UNSET: v_score = default_score
    elif v_score is None: raise SLOW
"""

import copy
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET

from lovelace_streams.records import Record
from lovelace_streams.rows.coercion import EPOCH
from lovelace_streams.rows.decode_types import DecodeNode, attribute
from lovelace_streams.rows.fields import Field
from lovelace_streams.rows.interpreter import has_bound, limit_of
from lovelace_streams.rows.paths import JsonPath
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.rules import rules_of
from lovelace_streams.rows.values import parse

Generated = Callable[[Any, Any, Record, datetime], Row]
"""`map(item, message, record, latest version)` on typed Structs; whatever it raises means: interpret."""


def generate(
    row_class: type[Row],
    fields: tuple[Field, ...],
    path: tuple[str, ...],
    message: DecodeNode,
    item: DecodeNode,
    *,
    partial: bool = False,
) -> Generated:
    """Write the function for a row class, and compile it. `map.__doc__` is its source.

    `path` leads to the items; `message` and `item` are the trees that messages and items of a list are decoded by;
    `partial` is that of the event.
    Raises `SyntaxError`, `RecursionError` or `MemoryError` if a field has more paths than Python can nest.
    """
    writer = FieldWriter(row_class, path, message, item, partial=partial)
    if any(field.kafka for field in fields):
        writer.lines.append("if record.origin is not None: raise SLOW")
    for field in fields:
        writer.add_field(field)
    writer.check_version(fields)
    writer.lines.append(f"return {writer.checked_row(fields)}")
    return writer.compiled()


# ---- what generated code calls --------------------------------------------------------------------------------------


class UseInterpreter(Exception):  # noqa: N818 - an instruction: no error is known yet
    """The generated function leaves this item to `interpret`. Generated code calls it `SLOW`."""


_EXACT = re.compile(rb"\\|\d\.|\d[eE]|\d{19}")
"""Where msgspec's plain values and those of `parse` may differ: escapes, fractions, long integers."""


def plain(text: bytes) -> Any:
    """Return what `parse` gives for a piece of JSON, by msgspec if that gives the same."""
    return parse(text) if _EXACT.search(text) else msgspec.json.decode(text)


@lru_cache(maxsize=4096)
def stamp(timestamp: int) -> datetime:
    """Return Kafka's milliseconds as an instant; raises `UseInterpreter` for a message without a timestamp.

    Many messages share a timestamp, and to find an instant costs less than to make it.
    """
    if timestamp < 0:
        raise UseInterpreter
    return EPOCH + timedelta(0, 0, 0, timestamp)


_NAMES: dict[str, Any] = {
    "UNSET": UNSET, "SLOW": UseInterpreter, "UTC": UTC, "plain": plain, "stamp": stamp, "copy": copy.copy,
    "replace": msgspec.structs.replace,
}  # fmt: skip


# ---- the generator --------------------------------------------------------------------------------------------------


OF_RECORD = {
    **{name: f"record.{name}" for name in ("timestamp", "topic", "partition", "offset", "key")},
    "instant": "stamp(record.timestamp)",
}
"""Kafka's value → the expression that reads it from the message's record; `instant` is the timestamp as one."""


class FieldWriter:
    """The lines of one function, and the names that they use.

    `kafka` has an expression for each of Kafka's values.
    """

    def __init__(
        self,
        row_class: type[Row],
        path: tuple[str, ...],
        message: DecodeNode,
        item: DecodeNode,
        *,
        partial: bool,
        kafka: Mapping[str, str] = OF_RECORD,
    ) -> None:
        self._partial = partial
        self._kafka = kafka
        self.lines: list[str] = []
        self.row_class = row_class
        self.names: dict[str, Any] = {**_NAMES, "Row": row_class}
        self._path = path
        self._message = message
        self._item = item
        self._parents: dict[tuple[bool, tuple[str, ...]], str] = {(True, ()): "message", (False, ()): "item"}
        """(below the message, names down to an object) → the variable that holds the object."""

    def add_field(self, field: Field, *, whole: bool = False) -> bool:
        """Write the lines that give a field its value; `whole`: that read it, and no more if it was decoded by type.

        Returns whether the value is left to be finished.
        """
        reads = []
        for place in field.places:
            tree = self._message if place.root else self._item
            parent = self._parent(place, tree, place.parts[:-1])
            reads.append((f"{parent}.{attribute(place.parts[-1])}", self.node_of(place).hint is None))
        raw = not reads or any(raw for _, raw in reads)
        self.add_value(field, reads, raw=raw, whole=whole and not raw)
        return whole and not raw

    def node_of(self, place: JsonPath) -> DecodeNode:
        """Return how a place is decoded."""
        return (self._message if place.root else self._item).at(place.parts)

    def add_value(self, field: Field, reads: list[tuple[str, bool]], *, raw: bool, whole: bool = False) -> None:
        """Write the lines that make a field's value of what its places hold.

        A read is an expression, and whether it gives raw JSON; `raw`: no value was decoded by the field's type.
        `whole`: the value is finished with others.
        """
        v = f"v_{field.column.attribute}"
        blank = field.blank
        for place in field.places:
            blank = blank if self.node_of(place).blank is None else UNSET
        if field.kafka == "key":
            self.names[f"key_{field.column.attribute}"] = field.key
        if field.from_json is not None:
            self.names[f"json_{field.column.attribute}"] = field.from_json
        self.lines += _read(field, v, reads, self._kafka, stop=self._partial and field.keeps)
        if field.kafka in (None, "key") or field.column.before or field.column.after or field.is_checked:
            convert = [] if whole else _convert(field, v, self.names, raw=raw)
            self.lines += _finish(field, v, self.names, convert, blank)

    def _parent(self, place: JsonPath, tree: DecodeNode, parts: tuple[str, ...]) -> str:
        """Return the variable of the object that holds a value; the lines that fill it are written once."""
        known = self._parents.get((place.root, parts))
        if known is None:
            above = self._parent(place, tree, parts[:-1])
            known = self._parents[place.root, parts] = f"p{len(self._parents)}_{attribute(parts[-1])}"
            self.lines.append(f"{known} = {above}.{attribute(parts[-1])}")
            if not (place.root and parts == self._path):  # where the items are, there is an object: it was decoded
                self.lines.append(f"if {known} is None: {known} = no_{known}")
                self.names[f"no_{known}"] = tree.at(parts).struct("Nothing", self._message.at(self._path))()
        return known

    def check_version(self, fields: tuple[Field, ...]) -> None:
        """Write the line that refuses a version in the future, for a version of which that can be told."""
        version = self.row_class.__table__.version
        column = next((field.column for field in fields if field.column.name == version), None)
        if column is None or not has_bound(column):
            return
        limit = "latest"
        if column.type is not datetime:
            self.names["limit"] = partial(limit_of, column.type, column.epoch)
            limit = "limit(latest)"
        self.lines.append(f"if v_{column.attribute} > {limit}: raise SLOW")

    def checked_row(self, fields: tuple[Field, ...]) -> str:
        """Write the lines that ask the rules of the row; returns the expression for the row."""
        values = ", ".join(f"{field.column.attribute}=v_{field.column.attribute}" for field in fields)
        made = f"Row({values})"
        if not hasattr(self.row_class, "__post_init__"):
            # Up to Python 3.11 a Struct with a metaclass written in Python is made three times quicker so (0.15 µs).
            self.names["blank"] = self.row_class(**dict.fromkeys(self.row_class.__struct_fields__, UNSET))
            made = f"replace(blank, {values})"
        rules = rules_of(self.row_class)
        if not rules:
            return made
        self.lines.append(f"row = {made}")
        for number, rule in enumerate(rules):
            self.names[f"refuses_{number}"] = rule.refuses
            absent = " or ".join(f"v_{name} is UNSET" for name in rule.fields)
            self.lines.append(f"if not ({absent}) and refuses_{number}(row): raise SLOW")
        return "row"

    def compiled(self) -> Generated:
        """Compile what was written."""
        body = "\n".join(indented(self.lines))
        source = f"def map(item, message, record, latest):\n{body}\n"
        exec(compile(source, f"<map of {self.row_class.__name__}>", "exec"), self.names)  # noqa: S102 - made of attribute names alone
        function: Generated = self.names["map"]
        function.__doc__ = source
        return function


# ---- the lines of a field -------------------------------------------------------------------------------------------


def _read(field: Field, v: str, reads: list[tuple[str, bool]], kafka: Mapping[str, str], *, stop: bool) -> list[str]:
    """Write the lines that set `v` to the first value among the reads, else None if one is null, else UNSET.

    A read is an expression, and whether it gives raw JSON. With `stop` the first that is absent makes it UNSET.
    """
    if field.kafka is not None:
        return _read_kafka(field, v, kafka)
    lines: list[str] = []
    for depth, (expression, raw) in enumerate(reads):
        indent = "    " * depth
        if depth and stop:
            lines.append(f"{indent[4:]}if {v} is None:")
        elif depth:
            lines.append(f"{indent[4:]}if {v} is None or {v} is UNSET:")
            lines.append(f"{indent}null{depth} = {v} is None")
        lines.append(f"{indent}{v} = {expression}")
        if raw:
            read = "plain" if field.from_json is None else f"json_{field.column.attribute}"
            lines.append(f"{indent}if {v} is not UNSET: {v} = {read}(bytes({v}))")
        if field.skips_empty:
            has_default = field.column.default is not NODEFAULT
            lines.append(f"{indent}if {v} == '': {_GIVE_UP if has_default else f'{v} = None'}")
    closing = () if stop else range(len(reads) - 1, 0, -1)
    return lines + [f"{'    ' * depth}if null{depth} and {v} is UNSET: {v} = None" for depth in closing]


def _read_kafka(field: Field, v: str, kafka: Mapping[str, str]) -> list[str]:
    expression = kafka[field.kafka or ""]
    if field.kafka == "key":
        return [f"{v} = key_{field.column.attribute}({expression})"]
    if field.kafka != "timestamp":
        return [f"{v} = {expression}"]
    if field.column.type is datetime:
        return [f"{v} = {kafka['instant']}"]
    return [f"if {expression} < 0: raise SLOW", f"{v} = {expression}"]


_KEEP, _GIVE_UP, _DEFAULT = "pass", "raise SLOW", "default"
_BLANKS = {
    # (nullable, with a default): (if absent, if null)
    (False, False): (_GIVE_UP, _GIVE_UP),
    (False, True): (_DEFAULT, _GIVE_UP),
    (True, False): (_KEEP, _KEEP),
    (True, True): (_DEFAULT, _KEEP),
}
"""What a field without a value does: `missing` and `null` are for the interpreter to say. A key or version is never
nullable, and its default does not count."""


def _finish(field: Field, v: str, names: dict[str, Any], convert: list[str], blank: Any) -> list[str]:
    """Write the lines that make the column's value of `v`, which is a value, null, or absent.

    `convert` are the lines for a value; `blank` stands for absent: UNSET, or None if that has the same effect as null.
    """
    column = field.column
    absent, null = _BLANKS[column.nullable, column.default is not NODEFAULT and not field.required]
    if absent is _DEFAULT:
        names[f"default_{column.attribute}"] = column.default
        mutable = isinstance(column.default, list | dict)
        absent = f"{v} = copy(default_{column.attribute})" if mutable else f"{v} = default_{column.attribute}"
    if blank is None:
        absent = null
    return _guarded(convert, v, absent, null, blank)


def _guarded(convert: list[str], v: str, absent: str, null: str, blank: Any) -> list[str]:
    """Put the conversion of `v` between the tests for absent and null.

    A conversion is a chain if it is one `if v.__class__ is str:` with its block, as that of `int`. Tests can follow a
    chain, so that the usual value costs one test.

    | absent, null   | conversion is a chain              | other conversion                             |
    |----------------|------------------------------------|----------------------------------------------|
    | both give up   | chain, `elif` neither: give up     | `if` neither: give up, then the conversion   |
    | both keep      | chain                              | `if` a value: the conversion                 |
    | differ         | chain, `elif` absent, `elif` null  | `if` absent, `elif` null, `else` conversion  |
    """
    is_chain = convert[:1] == [f"if {v}.__class__ is str:"] and all(line.startswith(" ") for line in convert[1:])
    neither = f"{v} is None" if blank is None else f"{v} is None or {v} is UNSET"
    if absent != null:
        tests = [f"if {v} is UNSET: {absent}", f"elif {v} is None: {null}"]
        if is_chain:
            return [*convert, f"el{tests[0]}", tests[1]]
        return [*tests, "else:", *indented(convert)] if convert else tests
    if null is _GIVE_UP:
        return [*convert, f"elif {neither}: {null}"] if is_chain else [f"if {neither}: {null}", *convert]
    if is_chain or not convert:
        return convert
    return [f"if not ({neither}):" if blank is UNSET else f"if {v} is not None:", *indented(convert)]


def _convert(field: Field, v: str, names: dict[str, Any], *, raw: bool) -> list[str]:
    """Write the lines that turn a value into the column's; they call the field's `finish` if it is plain, not typed."""
    column, column_type, name = field.column, field.type, field.column.attribute
    if field.from_json is not None:
        return []
    if raw or column_type.hint is None or column.before:
        names[f"finish_{name}"] = field.finish
        return [f"{v} = finish_{name}({v})"]
    names.update({known.format(n=name): value for known, value in column_type.names.items()})
    lines = [line.format(x=v, n=name) for line in column_type.lines]
    for number, function in enumerate(column.after):
        names[f"after_{name}_{number}"] = function
        lines += [f"{v} = after_{name}_{number}({v})", f"if {v} is None: raise SLOW"]
    if column.after:
        names[f"coerce_{name}"] = column_type.coerce
        coerce = f"{v} = coerce_{name}({v})"
        if column.type is str:  # one test instead of the last one and a call: None is no str either
            lines[-1] = f"if not ({v}.__class__ is str and {v}.isprintable()): {coerce}"
        else:
            lines.append(coerce)
    if field.is_checked:
        names[f"limits_{name}"] = field.check
        lines.append(f"{v} = limits_{name}({v})")
    return lines


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
