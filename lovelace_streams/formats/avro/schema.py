"""An Avro schema as a graph of nodes: names resolved, defaults as values, ready to be compared and compiled.

fastavro decides whether a schema is valid (names, defaults, references). It decodes nothing here.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.formats.avro.logical import Logical, converter
from lovelace_streams.formats.limits import DEPTH_MAX, nesting

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
REQUIRED = msgspec.UNSET
"""The default of a field that has none."""


class Node(msgspec.Struct, eq=False):
    """A type. A named type is one object wherever it is used, so a recursive schema is a cycle."""

    kind: str
    """`record`, `enum`, `fixed`, `array`, `map`, `union`, or a primitive's name."""
    name: str = ""
    """The full name of a record, enum or fixed."""
    aliases: tuple[str, ...] = ()
    logical: Logical | None = None
    fields: tuple["Field", ...] = ()
    symbols: tuple[str, ...] = ()
    default: str | None = None
    """The default of an enum, for symbols that it does not have."""
    size: int = 0
    inner: tuple["Node", ...] = ()
    """The type of an array's items or a map's values; the branches of a union."""

    @property
    def shown(self) -> str:
        """The name, the logical type, or the kind, for messages."""
        if self.kind == "union":
            return " or ".join(branch.shown for branch in self.inner)
        return self.name or (self.logical.name if self.logical else self.kind)


class Field(msgspec.Struct, eq=False):
    """A field of a record; `default` is a value as a reader gets it, REQUIRED if there is none."""

    name: str
    aliases: tuple[str, ...]
    type: Node
    default: Any = REQUIRED


class Schema(msgspec.Struct, eq=False):
    """A parsed schema: `root` is its graph, `text` what it was parsed from."""

    root: Node
    text: Any
    path: Path | None = None
    """The file that it was read from."""

    @property
    def name(self) -> str:
        """The full name of its record."""
        return self.root.name

    @property
    def usable_text(self) -> Any:
        """The text without the logical types that are ignored: fastavro refuses a schema for some of them."""
        return _usable(self.text)

    def fingerprint(self) -> bytes:
        """Return CRC-64-AVRO of the canonical form: eight bytes, as the single-object encoding has them."""
        return bytes.fromhex(fingerprint(to_parsing_canonical_form(self.usable_text), "CRC-64-AVRO"))


def parse(text: Any, references: Iterable[Any] = ()) -> Schema:
    """Parse a schema from its JSON, as text or parsed; `references` are schemas that it names. Raises `ValueError`.

    >>> parse({"type": "record", "name": "shop.Order", "fields": [{"name": "id", "type": "long"}]}).name
    'shop.Order'
    """
    named: dict[str, Any] = {}
    try:
        for reference in references:
            fastavro.parse_schema(_usable(_plain(reference)), named)
        plain = _plain(text)
        parsed = fastavro.parse_schema(_usable(plain), named)
        graph = _Graph(named)
        root = graph.node(parsed)
        graph.finish()
    except Exception as error:
        raise ValueError(f"no Avro schema ({type(error).__name__})") from error
    return Schema(root, plain)


def load(source: str | Path | Mapping[str, Any] | Schema) -> Schema:
    """Return a schema: from the path of a file, from its JSON, or as it is. Raises `DeploymentFault`."""
    if isinstance(source, Schema):
        return source
    try:
        if not isinstance(source, str | Path):
            return parse(dict(source))
        return msgspec.structs.replace(parse(Path(source).read_text()), path=Path(source).resolve())
    except (OSError, ValueError) as error:
        what = source if isinstance(source, str | Path) else "as given"
        why = error.strerror if isinstance(error, OSError) else error
        raise DeploymentFault(f"schema {what} can't be used: {why}") from None


def _plain(text: Any) -> Any:
    """Return JSON without fastavro's marks: a copy that shares nothing, in which names are as the text has them."""
    if not isinstance(text, str):
        text = json.dumps(text)
    if nesting(text.encode()) > DEPTH_MAX // 2:
        raise ValueError("nested too deeply")
    return json.loads(text)


class _Graph:
    """Makes nodes of a schema as fastavro parsed it, in which every name is full."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._nodes: dict[str, Node] = {}
        self._defaults: list[tuple[Field, Any]] = []

    def node(self, schema: Any) -> Node:  # noqa: PLR0911 - a table
        """Return the node of a parsed schema."""
        if isinstance(schema, list):
            return Node("union", inner=tuple(map(self.node, schema)))
        if isinstance(schema, str):
            if schema in PRIMITIVES:
                return Node(schema)
            return self._nodes.get(schema) or self.node(self._named[schema])
        kind = schema["type"]
        if not isinstance(kind, str) or kind not in {*PRIMITIVES, "array", "map", "record", "error", "enum", "fixed"}:
            return self.node(kind)  # {"type": {…}} or {"type": "a.Name"}
        if kind in ("array", "map"):
            return Node(kind, inner=(self.node(schema["items" if kind == "array" else "values"]),))
        logical = _logical(schema)
        if kind in PRIMITIVES:
            return Node(kind, logical=logical)
        return self._of_name("record" if kind == "error" else kind, schema, logical)

    def _of_name(self, kind: str, schema: Any, logical: Logical | None) -> Node:
        name = schema["name"]
        if name in self._nodes:
            return self._nodes[name]
        space = name.rpartition(".")[0]
        aliases = tuple(a if "." in a or not space else f"{space}.{a}" for a in schema.get("aliases", ()))
        node = self._nodes[name] = Node(kind, name, aliases, logical)  # known before its fields, which may hold it
        node.symbols = tuple(schema.get("symbols", ()))
        node.default = schema.get("default") if kind == "enum" else None
        node.size = schema.get("size", 0)
        node.fields = tuple(map(self._field, schema.get("fields", ())))
        return node

    def _field(self, schema: Any) -> Field:
        field = Field(schema["name"], tuple(schema.get("aliases", ())), self.node(schema["type"]))
        if "default" in schema:
            self._defaults.append((field, schema["default"]))
        return field

    def finish(self) -> None:
        """Turn defaults into values, now that all types are known; raises `ValueError`."""
        for field, default in self._defaults:
            field.default = value_of(field.type, default)


# ---- logical types --------------------------------------------------------------------------------------------------


def _logical(schema: Mapping[str, Any]) -> Logical | None:
    """Return the logical type of a schema; None if it has none that its type can have.

    "Language implementations must ignore unknown logical types when reading, and should use the underlying Avro type.
    If a logical type is invalid, for example a decimal with scale greater than its precision, then implementations
    should ignore the logical type": https://avro.apache.org/docs/1.12.0/specification/#logical-types
    """
    name, kind = schema.get("logicalType"), schema["type"]
    if name == "decimal":
        return _decimal(schema)
    if name == "uuid" and (kind == "string" or (kind == "fixed" and schema.get("size") == 16)):  # noqa: PLR2004 - 128 bits
        return Logical(name)
    return Logical(str(name)) if isinstance(kind, str) and _BASES.get(str(name)) == kind else None


def _decimal(schema: Mapping[str, Any]) -> Logical | None:
    kind, precision, scale = schema["type"], schema.get("precision"), schema.get("scale", 0)
    if kind not in ("bytes", "fixed") or not (type(precision) is type(scale) is int and 0 <= scale <= precision > 0):
        return None
    if kind == "fixed":
        size = schema.get("size")
        if not isinstance(size, int) or precision > math.floor((8 * size - 1) * math.log10(2)):
            return None
    return Logical("decimal", precision, scale)


_BASES = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
}


def _usable(schema: Any) -> Any:
    """Return a copy of a schema's JSON without the logical types that are ignored."""
    if isinstance(schema, list):
        return [_usable(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    usable = {key: _usable(inner) if key in ("type", "items", "values") else inner for key, inner in schema.items()}
    if isinstance(schema.get("fields"), list):
        usable["fields"] = [_usable(field) for field in schema["fields"]]
    if "logicalType" in schema and "type" in schema and _logical(schema) is None:
        del usable["logicalType"]
    return usable


def read_differently(one: Node, other: Node) -> str | None:
    """Return the path of a value that two schemas of one canonical form read differently; None if there is none.

    The canonical form has all that tells types apart but their logical types.
    """
    return next(_differences(one, other, "$", set()), None)


def _differences(one: Node, other: Node, path: str, seen: set[int]) -> Iterator[str]:
    if one.logical != other.logical:
        yield path
    if id(one) in seen:
        return
    if one.name:
        seen.add(id(one))
    below = {"array": "[]", "map": "{}"}.get(one.kind, "")
    for first, second in zip(one.inner, other.inner, strict=True):
        yield from _differences(first, second, path + below, seen)
    for field, same in zip(one.fields, other.fields, strict=True):
        yield from _differences(field.type, same.type, f"{path}.{field.name}", seen)


# ---- defaults -----------------------------------------------------------------------------------------------------


def value_of(node: Node, default: Any) -> Any:
    """Turn the JSON of a default into a value of the type; raises `ValueError` if it is none."""
    value = _base_value(node, default)
    return converter(node.logical, node.kind)(value) if node.logical is not None else value


def _base_value(node: Node, default: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 - a table
    kind = node.kind
    if kind == "union":
        for branch in node.inner:
            try:
                return value_of(branch, default)
            except ValueError:
                continue
    elif kind == "null" and default is None:
        return None
    elif kind == "boolean" and isinstance(default, bool):
        return default
    elif kind in _RANGES and isinstance(default, int) and not isinstance(default, bool):
        if default in _RANGES[kind]:
            return default
    elif kind in ("float", "double") and isinstance(default, int | float) and not isinstance(default, bool):
        return float(default)
    elif kind == "string" and isinstance(default, str):
        return default
    elif kind in ("bytes", "fixed") and isinstance(default, str):
        raw = default.encode("latin-1")  # UnicodeEncodeError is a ValueError
        if kind == "bytes" or len(raw) == node.size:
            return raw
    elif kind == "enum" and default in node.symbols:
        return default
    elif kind == "array" and isinstance(default, list):
        return [value_of(node.inner[0], item) for item in default]
    elif kind == "map" and isinstance(default, dict):
        return {key: value_of(node.inner[0], value) for key, value in default.items()}
    elif kind == "record" and isinstance(default, dict):
        return dict(_fields_of(node, default))
    raise ValueError(f"a default that is no {node.shown}")


def _fields_of(node: Node, default: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field in node.fields:
        if field.name in default:
            yield field.name, value_of(field.type, default[field.name])
        elif field.default is not REQUIRED:
            yield field.name, field.default
        else:
            raise ValueError(f"a default without {field.name}")


_RANGES = {"int": range(-(2**31), 2**31), "long": range(-(2**63), 2**63)}
