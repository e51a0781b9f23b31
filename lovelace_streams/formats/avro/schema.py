"""An Avro schema as a graph of nodes: names resolved, defaults as values, ready to be compared and compiled.

fastavro judges whether a schema is one (names, defaults, references); nothing is decoded by it.
"""

import json
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
    """A type. Named ones are one object wherever they are used, so a recursive schema is a cycle."""

    kind: str
    """`record`, `enum`, `fixed`, `array`, `map`, `union`, or a primitive's name."""
    name: str = ""
    """Full name of a record, enum or fixed."""
    aliases: tuple[str, ...] = ()
    logical: Logical | None = None
    fields: tuple["Field", ...] = ()
    symbols: tuple[str, ...] = ()
    default: str | None = None
    """An enum's own, for symbols that it does not know."""
    size: int = 0
    inner: tuple["Node", ...] = ()
    """Items of an array, values of a map, branches of a union."""

    @property
    def shown(self) -> str:
        """For messages: the name, the logical type, or the kind."""
        if self.kind == "union":
            return " or ".join(branch.shown for branch in self.inner)
        return self.name or (self.logical.name if self.logical else self.kind)


class Field(msgspec.Struct, eq=False):
    """A record's field; `default` is a value of its type as a reader gets it, REQUIRED where there is none."""

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

    def fingerprint(self) -> bytes:
        """CRC-64-AVRO of the canonical form, as the single-object encoding writes it (little-endian)."""
        return bytes.fromhex(fingerprint(to_parsing_canonical_form(self.text), "CRC-64-AVRO"))


def parse(text: Any, references: Iterable[Any] = ()) -> Schema:
    """A schema from its JSON, as text or parsed; `references` are schemas that it names. Raises `ValueError`."""
    named: dict[str, Any] = {}
    try:
        for each in references:
            fastavro.parse_schema(_plain(each), named)
        plain = _plain(text)
        parsed = fastavro.parse_schema(plain, named)
        graph = _Graph(named)
        root = graph.node(parsed)
        graph.finish()
    except Exception as error:
        raise ValueError(f"no Avro schema ({type(error).__name__})") from error
    return Schema(root, plain)


def load(source: "str | Path | Mapping[str, Any] | Schema") -> Schema:
    """A schema from a file, its JSON, or as it is; raises `DeploymentFault`."""
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
    """JSON without fastavro's marks: parsed anew, so that nothing is shared and names mean what they say here."""
    if not isinstance(text, str):
        text = json.dumps(text)
    if nesting(text.encode()) > DEPTH_MAX // 2:
        raise ValueError("nested too deeply")
    return json.loads(text)


class _Graph:
    """Makes nodes of what fastavro parsed, where every name is full."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._nodes: dict[str, Node] = {}
        self._defaults: list[tuple[Field, Any]] = []

    def node(self, schema: Any) -> Node:  # noqa: PLR0911 - a table
        """The node of a parsed schema."""
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
        made = self._nodes[name] = Node(kind, name, aliases, logical)
        made.symbols = tuple(schema.get("symbols", ()))
        made.default = schema.get("default") if kind == "enum" else None
        made.size = schema.get("size", 0)
        made.fields = tuple(map(self._field, schema.get("fields", ())))
        return made

    def _field(self, field: Any) -> Field:
        made = Field(field["name"], tuple(field.get("aliases", ())), self.node(field["type"]))
        if "default" in field:
            self._defaults.append((made, field["default"]))
        return made

    def finish(self) -> None:
        """Defaults become values when all types are known; raises `ValueError`."""
        for field, default in self._defaults:
            field.default = value_of(field.type, default)


def _logical(schema: Mapping[str, Any]) -> Logical | None:
    """The logical type of a schema, None where it has none that holds for its type."""
    name, kind = schema.get("logicalType"), schema["type"]
    if name == "decimal" and kind in ("bytes", "fixed"):
        return Logical(name, schema["precision"], schema.get("scale", 0))
    if name == "uuid" and (kind == "string" or (kind == "fixed" and schema["size"] == 16)):  # noqa: PLR2004 - 128 bits
        return Logical(name)
    return Logical(str(name)) if _BASES.get(str(name)) == kind else None


_BASES = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
}


# ---- defaults -----------------------------------------------------------------------------------------------------


def value_of(node: Node, default: Any) -> Any:
    """A default's JSON as a value of the type; raises `ValueError` where it is none."""
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
        return [value_of(node.inner[0], each) for each in default]
    elif kind == "map" and isinstance(default, dict):
        return {key: value_of(node.inner[0], each) for key, each in default.items()}
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
