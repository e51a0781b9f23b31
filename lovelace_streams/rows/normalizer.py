"""From a decoded item to a row, twice: `interpret`, plain and authoritative, and a function generated once a row class.

The generated function works on Structs derived from the row's paths (only what is asked for is decoded) and never
judges: wherever it or the typed decode refuses, the item is decoded plainly and interpreted, and that gives the error
or the row. So a user's function may be called twice for one item, and should have no effect but its result.

Paths are names with dots between; `$.` starts at the message, `$` is all of it, `.` all of the item. A parent that is
null or absent makes the path absent; a parent of another kind is the record's fault. What is read whole *and* in
parts (`user` and `user.id`) is not decoded by type: such a row class is interpreted, which costs some 20 µs a row
instead of one.
"""

import copy
import inspect
import keyword
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, lru_cache
from operator import attrgetter
from typing import Any, Optional, Union

import msgspec
from msgspec import NODEFAULT, UNSET, Raw

from lovelace_streams.errors import DeploymentFault, LovelaceError, RecordFault
from lovelace_streams.records import Envelope, Reason, Record
from lovelace_streams.rows.declaration import Column, From, FromKafka, Row, Skip
from lovelace_streams.rows.types import EPOCH, Kind, Misfit, after_epoch, got, kind_of, limits, loosen, parse

AHEAD_MAX = timedelta(days=1)
"""A version further ahead of now than this is the record's fault: it would win for ever (law 8)."""

MapFunction = Callable[..., Row | Iterable[Row] | Skip]
"""A user's own mapping: gets the item, and the whole message if it takes two arguments."""
Generated = Callable[[Any, Any, Record, datetime], Row]
"""`map(item, message, record, latest version)` on typed Structs; whatever it raises means: interpret."""


# ---- paths ----------------------------------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True):
    """Where a value lies: below the message (`root`) or below the item."""

    root: bool
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> "Place":
        """Read `$.d.guild_id` or `user.id`; raises `ValueError`."""
        if path in ("$", "."):
            return cls(root=path == "$", parts=())
        root = path.startswith("$.")
        parts = tuple((path[2:] if root else path).split("."))
        if not all(parts):
            raise ValueError(
                f"{path!r} is no path: names with dots between, `$.` to start at the message, `.` the item"
            )
        return cls(root=root, parts=parts)

    def below(self, base: str) -> str:
        """The path for messages, absolute: `base` is where the item lies."""
        return ".".join(("$" if self.root else base, *self.parts))


def find(value: Any, parts: tuple[str, ...], base: str = "$") -> Any:
    """Follow names down plain values; UNSET where there is nothing or a parent is null; raises `RecordFault`."""
    for depth, part in enumerate(parts):
        if value.__class__ is not dict:  # asking for a Mapping costs as much as all the rest
            if value is None:
                return UNSET
            if not isinstance(value, Mapping):
                at = ".".join((base, *parts[:depth]))
                raise RecordFault(Reason.WRONG_TYPE, f"expected object, got {got(value)} at {at}")
        value = value.get(part, UNSET)
        if value is UNSET:
            return UNSET
    return value


def getter(place: Place) -> Callable[[Any, Any], Any]:
    """A function of item and message for what lies at a place; None, or an `AttributeError`, where `find` has to tell.

    It costs a third of `find`, and of an item that is interpreted mostly one field is wrong, the last one looked at.
    """
    parts = place.parts
    if len(parts) == 1:
        [name] = parts
        return (lambda _item, root: root.get(name)) if place.root else (lambda item, _root: item.get(name))
    if len(parts) == 2:  # noqa: PLR2004 - which nearly all have
        outer, inner = parts
        if place.root:
            return lambda _item, root: root.get(outer).get(inner)
        return lambda item, _root: item.get(outer).get(inner)
    return lambda _item, _root: None


# ---- one column ---------------------------------------------------------------------------------------------------


class Field:
    """One column with all that its declaration says, worked out."""

    def __init__(self, column: Column, *, required: bool) -> None:
        self.column = column
        self.required = required
        """Key or version: an absent one is `missing`, whatever the default."""
        source = column.source
        self.kafka = source.field if isinstance(source, FromKafka) else None
        self.places = tuple(map(Place.of, source.paths)) if isinstance(source, From) else ()
        alike = column.default is None if column.nullable else required or column.default is NODEFAULT
        self.blank: Any = None if alike else UNSET
        """What stands for an absent value in the generated mapping: None where absent and null come to the same."""
        self.kind = self._kind()
        self.limits = limits(column.meta, self.kind.expected)
        declared = column.before or column.after or column.meta
        self._get = getter(self.places[0]) if self.places and not declared else None
        """What lies at the first place, where no more is declared than a type."""

    def _kind(self) -> Kind:
        column, kafka = self.column, self.kafka
        if kafka == "key" and column.type is bytes:
            return Kind("bytes", bytes)
        allowed = {"timestamp": (datetime, int), "topic": (str,), "partition": (int,), "offset": (int,)}
        if kafka in allowed and column.type not in allowed[kafka]:
            raise TypeError(f"{column.name}: FromKafka({kafka!r}) can't be {column.type!r}")
        try:
            return kind_of(column.type, lenient=column.lenient, epoch=column.epoch)
        except TypeError as error:
            raise TypeError(f"{column.name}: {error}") from None

    def value(self, item: Any, root: Any, record: Record, base: str) -> Any:
        """The column's value, UNSET where the stored one is kept; raises `RecordFault`."""
        if self._get is not None:
            try:
                found = self._get(item, root)
                if found is not None:
                    return self.kind.coerce(found)
            except Misfit as misfit:
                raise misfit.at(self.places[0].below(base)) from None
            except AttributeError:  # a parent is no object: what follows says which
                pass
        raw, path = self._raw(item, root, record, base)
        if raw is UNSET:
            return self._absent(path)
        if raw is None:
            return self._null(path)
        return self.finish(raw, path)

    def _raw(self, item: Any, root: Any, record: Record, base: str) -> tuple[Any, str]:
        if self.kafka is not None:
            return self._from_kafka(record), f"Kafka's {self.kafka}"
        null = None
        for place in self.places:
            found = find(root, place.parts) if place.root else find(item, place.parts, base)
            if found is not UNSET and found is not None:
                return found, place.below(base)
            if found is None and null is None:
                null = place.below(base)
        if null is not None:
            return None, null
        return UNSET, " or ".join(place.below(base) for place in self.places)

    def _from_kafka(self, record: Record) -> Any:
        if self.kafka == "key":
            return self.key(record)
        value = getattr(record.origin or record, self.kafka or "")
        if self.kafka != "timestamp":
            return value
        if value < 0:
            return UNSET
        return self._stamp(value) if self.column.type is datetime else value

    def _stamp(self, timestamp: int) -> datetime:
        try:
            return after_epoch(timestamp * 1000)
        except Misfit as misfit:
            raise misfit.at("Kafka's timestamp") from None

    def key(self, record: Record) -> Any:
        """The message's key: bytes as they are, text for all other types; raises `RecordFault`."""
        if record.key is None or self.column.type is bytes:
            return record.key
        try:
            return record.key.decode()
        except UnicodeDecodeError:
            raise RecordFault(Reason.BAD_VALUE, "expected UTF-8, got other bytes at Kafka's key") from None

    def _absent(self, path: str) -> Any:
        column = self.column
        if not self.required:
            if column.default is not NODEFAULT:
                return copy.copy(column.default)
            if column.nullable:
                return UNSET
        raise RecordFault(Reason.MISSING, f"expected {self.kind.expected}, got nothing at {path}")

    def _null(self, path: str) -> None:
        if not self.column.nullable:
            raise RecordFault(Reason.NULL, f"expected {self.kind.expected}, got null at {path}")

    def finish(self, raw: Any, path: str = "") -> Any:
        """From a value that is there to the column's: functions before, coercion, functions after, constraints."""
        value = raw
        if self.column.before:
            try:
                value = loosen(value) if self.kind.expected != "Decimal" else value
            except Misfit as misfit:
                raise misfit.at(path) from None
            for function in self.column.before:
                value = call(function, value, path)
                if value is None:
                    return self._null(path)
        try:
            value = self.kind.coerce(value)
        except Misfit as misfit:
            raise misfit.at(path) from None
        if self.column.after:
            for function in self.column.after:
                value = call(function, value, path)
                if value is None:
                    return self._null(path)
            path += f" after {name_of(self.column.after[-1])}"
        try:
            return self.limits(self.kind.coerce(value) if self.column.after else value)
        except Misfit as misfit:
            raise misfit.at(path) from None


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in messages."""
    return getattr(function, "__qualname__", type(function).__name__)


def call(function: Callable[[Any], Any], value: Any, path: str, name: str = "") -> Any:
    """Call a user's function; whatever it raises is the record's fault, reason `rule`, told without its text."""
    try:
        return function(value)
    except RecordFault:
        raise
    except ValueError:
        raise RecordFault(Reason.RULE, f"{name or name_of(function)} refuses what is at {path}") from None
    except Exception as error:
        raised = type(error).__name__
        raise RecordFault(Reason.RULE, f"{name or name_of(function)} raised {raised} at {path}") from error


@cache
def fields_of(row_class: type[Row]) -> tuple[Field, ...]:
    """The columns of a row class, worked out once; raises `TypeError` for what can't be a column."""
    table = row_class.__table__
    required = {*table.key, table.version}
    return tuple(Field(column, required=column.name in required) for column in table.columns)


# ---- the plain way ------------------------------------------------------------------------------------------------


def interpret(
    row_class: type[Row],
    raw: Any,
    record: Record | None = None,
    root: Any = None,
    now_ms: int | None = None,
    base: str = "$",
) -> Row:
    """Map one plain item to a row, field by field: what a row class means, and what the generated function is held to.

    `root` is the whole message (the item itself where not given), `now_ms` milliseconds since 1970, `base` the item's
    own path for messages. Raises `RecordFault` with reason, path, what was expected and what kind was got.
    """
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    if record is None:
        record = Record("", 0, 0, 0, 0, None, None, [], now_ms)
    if not isinstance(raw, Mapping) and not takes_scalars(row_class):
        raise RecordFault(Reason.WRONG_TYPE, f"expected object, got {got(raw)} at {base}")
    whole = raw if root is None else root
    values = {field.column.name: field.value(raw, whole, record, base) for field in fields_of(row_class)}
    row: Row = call(lambda given: row_class(**given), values, base, name=f"{row_class.__name__}.__post_init__")
    check_version(row, latest(now_ms))
    return row


@cache
def takes_scalars(row_class: type[Row]) -> bool:
    """Whether an item may be something else than an object: a field is the item itself (`From(".")`)."""
    return any(not place.root and not place.parts for field in fields_of(row_class) for place in field.places)


def check_version(row: Row, limit: datetime) -> None:
    """Raises `RecordFault` where a `datetime` version lies past the limit."""
    version = type(row).__table__.version
    value = getattr(row, version) if version is not None else None
    if isinstance(value, datetime) and value > limit:
        raise RecordFault(Reason.VERSION_IN_FUTURE, f"{version} is more than a day ahead of now")


@lru_cache(maxsize=16)
def latest(now_ms: int) -> datetime:
    """The latest version that is believed at a time."""
    return EPOCH + timedelta(milliseconds=now_ms) + AHEAD_MAX


# ---- the decode types ---------------------------------------------------------------------------------------------


class _Mixed(Exception):  # noqa: N818
    """Something is read whole and in parts."""


class _Node:
    """What is read at one place: parts of it (`children`), or all of it (`hint`, or as raw JSON)."""

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.leaf = False
        self.hint: Any = None
        self.blank: Any = None
        """What stands for nothing: UNSET, or None where no reader tells it from null."""

    def at(self, parts: tuple[str, ...]) -> "_Node":
        node = self
        for part in parts:
            if node.leaf:
                raise _Mixed
            node = node.children.setdefault(part, _Node())
        return node

    def read(self, hint: Any, blank: Any) -> None:
        if self.children:
            raise _Mixed
        self.hint = hint if not self.leaf or self.hint == hint else None  # read in two ways: raw, for both
        self.blank = UNSET if UNSET in (blank, self.blank) or self.hint is None else None
        self.leaf = True

    def struct(
        self, name: str, item: "_Node | None" = None, *, tag_field: str = "", tag: str = "", **options: Any
    ) -> type[msgspec.Struct]:
        """A Struct type that decodes just this; the `item` node below it may also be a list, whose items stay raw.

        A field that is the tag is an attribute of the class.
        """
        fields: list[tuple[str, Any, Any]] = []
        if tag_field:
            told = self.children.get(tag_field)
            value = tag if told is None or told.hint is not None else Raw(msgspec.json.encode(tag))
            options |= {"tag_field": tag_field, "tag": tag, "namespace": {attribute(tag_field): value}}
        for key, node in self.children.items():
            if key == tag_field:
                continue
            if node.leaf:
                hint = Raw if node.hint is None else Optional[node.hint]  # noqa: UP045
                fields.append((attribute(key), hint, node.blank))
                continue
            inner = node.struct(f"{name}_{attribute(key)}", item)
            if node is item:
                fields.append((attribute(key), Union[inner, list[Raw], None], UNSET))  # noqa: UP007
            else:
                fields.append((attribute(key), Optional[inner], inner()))  # noqa: UP045
        renamed = {attribute(key): key for key in self.children if key != tag_field}
        return msgspec.defstruct(name, fields, gc=False, frozen=True, rename=renamed, **options)


def attribute(key: str) -> str:
    """A JSON name as the name of an attribute: itself where it can be one."""
    if key.isidentifier() and key.isascii() and not keyword.iskeyword(key) and not key.startswith(("_", "k_")):
        return key
    return "k_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in key)


class Target:
    """Where items lie (`path`) and what they become: a row class, or what a function makes of them.

    `message_type` and `element_type` decode a message with one item and an item of a list; None where items are
    interpreted: for functions, and for what is read whole and in parts.
    """

    def __init__(self, what: type[Row] | MapFunction, path: str = "$") -> None:
        place = Place.of(path if path.startswith("$") else f"$.{path}")
        self.path = place.parts
        self.locate = attrgetter(".".join(map(attribute, self.path))) if self.path else None
        """Takes the item, or list of items, out of the message's Struct."""
        self.base = place.below("$")
        self.row: type[Row] | None = what if isinstance(what, type) and issubclass(what, Row) else None
        self.function: MapFunction | None = None if self.row is not None else what
        self.fields: tuple[Field, ...] = ()
        self.root_wanted = False
        self._message: _Node | None = None
        self._item = _Node()
        if self.row is not None:
            self.fields = fields_of(self.row)
            self.root_wanted = any(place.root for field in self.fields for place in field.places)
            self._derive()
        elif not callable(what):
            raise TypeError(f"items become a Row class or what a function makes of them, not {what!r}")
        else:
            self.root_wanted = _takes_two(what)

    @property
    def name(self) -> str:
        """For messages."""
        return self.row.__name__ if self.row is not None else name_of(self.function or Target)

    @property
    def typed(self) -> bool:
        """Whether items are decoded by type."""
        return self._message is not None

    def _derive(self) -> None:
        message, item = _Node(), _Node()
        try:
            below = message.at(self.path)
            for field in self.fields:
                for place in field.places:
                    hint = None if field.column.before else field.kind.hint
                    (message if place.root else below).at(place.parts).read(hint, field.blank)
            if message.leaf or below.leaf:
                return
            for field in self.fields:  # as the message has it, so that both Structs read a place in one way
                for place in field.places:
                    if not place.root:
                        node = below.at(place.parts)
                        item.at(place.parts).read(node.hint, node.blank)
        except _Mixed:
            return
        self._message, self._item = message, item

    def takes_tag(self, name: str) -> bool:
        """Whether this name at the top of the message may be the tag of a union: what is read of it is a text."""
        node = self._message.children.get(name) if self._message is not None else None
        return node is None or (node.leaf and node.hint in (str, None))

    def message_type(self, **options: Any) -> type[msgspec.Struct]:
        """The Struct of a whole message; `options` are msgspec's (the tag)."""
        assert self._message is not None
        item = self._message.at(self.path) if self.path else None
        return self._message.struct(f"{self.name}_message", item, **options)

    @cached_property
    def element_type(self) -> type[msgspec.Struct]:
        """The Struct of an item that lies in a list."""
        return self._item.struct(f"{self.name}_item")

    @cached_property
    def map(self) -> Generated:
        """The function for this row class."""
        assert self._message is not None
        return _generate(self, self._message, self._item)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have none
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) > 1


# ---- the generated way --------------------------------------------------------------------------------------------


class Slow(Exception):  # noqa: N818
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

    Raises `Slow` where there are none.
    """
    if timestamp < 0:
        raise Slow
    return EPOCH + timedelta(0, 0, 0, timestamp)


def _generate(target: Target, message: _Node, item: _Node) -> Generated:
    """Write the function that reads attributes and makes the row, and compile it. `map.__doc__` is its source."""
    row_class = target.row
    assert row_class is not None
    names: dict[str, Any] = {
        "UNSET": UNSET, "SLOW": Slow, "UTC": UTC, "plain": plain, "stamp": stamp, "copy": copy.copy, "Row": row_class,
        "replace": msgspec.structs.replace,
    }  # fmt: skip
    lines: list[str] = []
    if any(field.kafka for field in target.fields):
        lines.append("if record.origin is not None: raise SLOW")
    parents: dict[tuple[bool, tuple[str, ...]], str] = {(True, ()): "message", (False, ()): "item"}

    def parent(place: Place, tree: _Node, parts: tuple[str, ...]) -> str:
        known = parents.get((place.root, parts))
        if known is None:
            above = parent(place, tree, parts[:-1])
            known = parents[place.root, parts] = f"p{len(parents)}_{attribute(parts[-1])}"
            lines.append(f"{known} = {above}.{attribute(parts[-1])}")
            if not (place.root and parts == target.path):
                lines.append(f"if {known} is None: {known} = no_{known}")
                names[f"no_{known}"] = tree.at(parts).struct("Nothing", message.at(target.path))()
        return known

    for field in target.fields:
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
    if version is not None and next(f for f in target.fields if f.column.name == version).column.type is datetime:
        lines.append(f"if v_{version} > latest: raise SLOW")
    made = ", ".join(f"{field.column.name}=v_{field.column.name}" for field in target.fields)
    if hasattr(row_class, "__post_init__"):
        lines.append(f"return Row({made})")
    else:  # up to Python 3.11 a Struct whose metaclass is written in Python is made three times quicker so (0.15 µs)
        names["blank"] = row_class(**dict.fromkeys(row_class.__struct_fields__, UNSET))
        lines.append(f"return replace(blank, {made})")
    body = "\n".join(f"    {line}" for line in lines)
    source = f"def map(item, message, record, latest):\n{body}\n"
    exec(compile(source, f"<map of {target.name}>", "exec"), names)  # noqa: S102 - made of attribute names alone
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


# ---- items and their normalizer -----------------------------------------------------------------------------------


class Message(msgspec.Struct, gc=False):
    """A message that holds a list of items: parsed plainly at most once for all of them that need it."""

    text: bytes
    parsed: Any = UNSET

    def plain(self) -> Any:
        """The whole of it as `parse` gives it."""
        if self.parsed is UNSET:
            self.parsed = parse(self.text)
        return self.parsed


class RawItem(msgspec.Struct, gc=False):
    """One item as decoded: by type where that went well (`item`, `root`), and the way to its plain values."""

    target: Target
    item: Any
    """The typed Struct; None where the item is to be interpreted."""
    root: Any
    text: Any = None
    """JSON of the item, where `message` is set, else of the message."""
    message: Message | None = None
    """The message where it holds a list of items."""
    plain_item: Any = UNSET
    plain_root: Any = UNSET

    @property
    def base(self) -> str:
        """The item's path for messages; without its number, so that equal faults look equal (law 5, fail fast)."""
        return self.target.base if self.message is None else f"{self.target.base}[]"

    def plain(self) -> tuple[Any, Any]:
        """The item and its message as plain values; the message only where somebody asks for it."""
        if self.plain_item is not UNSET:
            return self.plain_item, self.plain_root
        if self.message is not None:
            return parse(bytes(self.text)), self.message.plain() if self.target.root_wanted else {}
        root = parse(self.text)
        return find(root, self.target.path), root


class Normalizer:
    """Makes rows of raw items; the row class (or function) is the one that the decoder was told.

    `targets` say what is expected: row classes by their tables (an event's own function is free to make any). A single
    function takes the place of what the decoder was told.
    """

    def __init__(self, *targets: type[Row] | MapFunction) -> None:
        made = [Target(what) for what in targets]
        self._tables = {target.row.__table__.name for target in made if target.row is not None}
        functions = [target for target in made if target.function is not None]
        self._function = functions[0] if len(functions) == len(made) == 1 else None

    def normalize(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """One item's row, rows, or why it is passed over; raises `RecordFault`, and what `generated` raises."""
        raw = envelope.payload
        made = self.generated(raw.target)
        if made is not None and raw.item is not None:
            try:
                return made(raw.item, raw.root, envelope.record, latest(now_ms))
            except Exception:  # noqa: BLE001, S110 - whatever it was, the plain way below says what it is
                pass
        return self.interpret(envelope, now_ms)

    def generated(self, target: Target) -> Generated | None:
        """The function for items that were decoded by type; None where all are interpreted.

        Raises `DeploymentFault` where decoder and normalizer were told different things.
        """
        if self._function is not None:
            return None
        if target.row is not None and target.row.__table__.name not in self._tables:
            raise DeploymentFault(f"decode gives items of {target.name}, which normalize was not told of")
        try:
            return target.map if target.typed else None
        except (SyntaxError, RecursionError, MemoryError):  # more paths for a field than Python nests
            return None

    def interpret(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """The same for an item that no generated function takes, or that it refuses."""
        raw = envelope.payload
        try:
            item, root = raw.plain()
            chosen = self._function or raw.target
            if chosen.function is not None:
                return apply(chosen, loose(item, raw.base), loose(root, "$"), now_ms)
            assert chosen.row is not None
            return interpret(chosen.row, item, envelope.record, root, now_ms, raw.base)
        except LovelaceError:
            raise
        except RecursionError:
            raise RecordFault(Reason.TOO_DEEP) from None
        except Exception as error:  # a mistake of ours, found by one record: it stops nobody else's
            raise RecordFault(Reason.BAD_VALUE, f"{type(error).__name__} where it is interpreted") from error


def normalizer(*targets: type[Row] | MapFunction | Sequence[type[Row]]) -> Normalizer:
    """What `normalize` runs; raises `TypeError` for a row class that can't be mapped."""
    return Normalizer(*(each for it in targets for each in (it if isinstance(it, Sequence) else (it,))))


def loose(value: Any, path: str) -> Any:
    """Plain values with Python's floats, for a user's function; raises `RecordFault`."""
    try:
        return loosen(value)
    except Misfit as misfit:
        raise misfit.at(path) from None


def apply(target: Target, item: Any, root: Any, now_ms: int) -> Row | tuple[Row, ...] | Skip:
    """Call a user's mapping: all of its rows or none; no rows are `filtered`. Raises `RecordFault`, `rule` mostly."""
    function = target.function
    assert function is not None
    name = name_of(function)
    try:
        made = function(item, root) if target.root_wanted else function(item)
        if isinstance(made, Skip):
            return made
        rows = (made,) if isinstance(made, Row) or not isinstance(made, Iterable) else tuple(made)
    except RecordFault:
        raise
    except ValueError:
        raise RecordFault(Reason.RULE, f"{name} refuses it") from None
    except Exception as error:
        raise RecordFault(Reason.RULE, f"{name} raised {type(error).__name__}") from error
    for row in rows:
        if not isinstance(row, Row):
            raise RecordFault(Reason.RULE, f"{name} made a {type(row).__name__} instead of a row")
        _check_made(row, name, now_ms)
    if not rows:
        return Skip("filtered")
    return made if isinstance(made, Row) else rows


def _check_made(row: Row, name: str, now_ms: int) -> None:
    """Hold a row that a function made to its class, as a mapped one is."""
    for field in fields_of(type(row)):
        column = field.column
        value = getattr(row, column.name)
        path = f"{type(row).__name__}.{column.name} made by {name}"
        if value is UNSET and column.nullable:
            continue
        if value is UNSET:
            raise RecordFault(Reason.MISSING, f"expected {field.kind.expected}, got nothing at {path}")
        if value is None and column.nullable:
            continue
        if value is None:
            raise RecordFault(Reason.NULL, f"expected {field.kind.expected}, got null at {path}")
        try:
            setattr(row, column.name, field.limits(field.kind.coerce(value)))
        except Misfit as misfit:
            raise misfit.at(path) from None
    check_version(row, latest(now_ms))
