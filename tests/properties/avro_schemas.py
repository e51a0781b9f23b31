"""Random Avro schemas, and random data of them as bytes, made by an encoder of the tests' own."""

import itertools
import struct
from typing import Any

from fastavro.read import LOGICAL_READERS
from hypothesis import strategies as st

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICALS = (
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "long", "logicalType": "local-timestamp-micros"},
    {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2},
    {"type": "string", "logicalType": "uuid"},
    {"type": "long", "logicalType": "nobody-knows"},
)
RANGES = {
    "date": (-719_162, 2_932_896),
    "time-millis": (0, 86_399_999),
    "time-micros": (0, 86_399_999_999),
    "timestamp-millis": (-62_135_596_800_000, 253_402_300_799_999),
    "timestamp-micros": (-62_135_596_800_000_000, 253_402_300_799_999_999),
}
BOUNDS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}


@st.composite
def schemas(draw: st.DrawFn, *, depth: int = 3) -> dict[str, Any]:
    """A record, with named types that may be used again and records that may hold themselves."""
    numbers = itertools.count()
    return _record(draw, depth, numbers, [])


def _record(draw: st.DrawFn, depth: int, numbers: Any, known: list[str]) -> dict[str, Any]:
    name = f"space.R{next(numbers)}"
    fields = []
    for number in range(draw(st.integers(0, 4))):
        itself = draw(st.integers(0, 9)) == 0
        kind = ["null", name] if itself else _type(draw, depth - 1, numbers, known)
        fields.append({"name": f"f{number}", "type": kind})
    known.append(name)
    return {"type": "record", "name": name, "fields": fields}


def _type(draw: st.DrawFn, depth: int, numbers: Any, known: list[str]) -> Any:
    ways = ["primitive", "primitive", "logical", "enum", "fixed"]
    if known:
        ways.append("known")
    if depth > 0:
        ways += ["array", "map", "union", "record"]
    way = draw(st.sampled_from(ways))
    if way == "primitive":
        return draw(st.sampled_from(PRIMITIVES))
    if way == "logical":
        return dict(draw(st.sampled_from(LOGICALS)))
    if way == "known":
        return draw(st.sampled_from(known))
    if way == "enum":
        return {"type": "enum", "name": f"space.E{next(numbers)}", "symbols": ["A", "B", "C"]}
    if way == "fixed":
        return {"type": "fixed", "name": f"space.F{next(numbers)}", "size": draw(st.integers(1, 4))}
    if way in ("array", "map"):
        return {"type": way, "items" if way == "array" else "values": _type(draw, depth - 1, numbers, known)}
    if way == "record":
        return _record(draw, depth, numbers, known)
    branches: list[Any] = draw(st.lists(st.sampled_from(PRIMITIVES), unique=True, min_size=1, max_size=3))
    if draw(st.booleans()):
        branches.append(_record(draw, depth, numbers, known))
    return branches


def named_types(schema: Any, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """Every named type of a schema."""
    found = {} if found is None else found
    if isinstance(schema, list):
        for each in schema:
            named_types(each, found)
    elif isinstance(schema, dict):
        if "name" in schema:
            found[schema["name"]] = schema
        for key in ("items", "values", "type"):
            named_types(schema.get(key), found)
        for field in schema.get("fields", ()):
            named_types(field["type"], found)
    return found


class Data:
    """Draws data of a schema as a tree of (schema, value), and writes it as bytes."""

    def __init__(self, schema: Any) -> None:
        self.named = named_types(schema)

    def draw(self, draw: st.DrawFn, schema: Any, depth: int = 6) -> tuple[Any, Any]:
        """A value: plain, or of drawn values where the type holds others; a union's is its branch's, with its index."""
        schema = self.named.get(schema, schema) if isinstance(schema, str) else schema
        if isinstance(schema, list):
            index = 0 if depth <= 0 else draw(st.integers(0, len(schema) - 1))
            return ["union", index], self.draw(draw, schema[index], depth - 1)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind == "record":
            return schema, {f["name"]: self.draw(draw, f["type"], depth - 1) for f in schema["fields"]}
        if kind in ("array", "map"):
            inner = schema["items" if kind == "array" else "values"]
            size = 0 if depth <= 0 else draw(st.integers(0, 3))
            made = [self.draw(draw, inner, depth - 1) for _ in range(size)]
            if kind == "array":
                return schema, made
            return schema, {f"k{number}": each for number, each in enumerate(made)}
        if kind == "enum":
            return schema, draw(st.sampled_from(schema["symbols"]))
        if kind == "fixed":
            return schema, draw(st.binary(min_size=schema["size"], max_size=schema["size"]))
        return schema, self._plain(draw, schema, kind)

    def _plain(self, draw: st.DrawFn, schema: Any, kind: str) -> Any:
        logical = schema.get("logicalType", "") if isinstance(schema, dict) else ""
        if logical == "decimal":
            limit = 10 ** schema["precision"] - 1
            number = draw(st.integers(-limit, limit))
            return number.to_bytes(draw(st.integers(4, 6)), "big", signed=True)
        if logical == "uuid":
            return str(draw(st.uuids()))
        if kind in BOUNDS:
            low, high = RANGES.get(logical.removeprefix("local-"), BOUNDS[kind])
            return draw(st.integers(low, high))
        return {
            "null": lambda: None,
            "boolean": lambda: draw(st.booleans()),
            "float": lambda: draw(st.floats(width=32)),
            "double": lambda: draw(st.floats()),
            "bytes": lambda: draw(st.binary(max_size=4)),
            "string": lambda: draw(st.one_of(st.text(max_size=4), st.sampled_from(["\0", "A", "B"]))),
        }[kind]()


def write(drawn: tuple[Any, Any], sizes: bool = False) -> bytes:
    """The bytes of drawn data; with `sizes`, blocks say how many bytes they have."""
    schema, value = drawn
    if isinstance(schema, list):
        return varint(schema[1]) + write(value, sizes)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return b"".join(write(each, sizes) for each in value.values())
    if kind in ("array", "map"):
        entries = (
            [write(v, sizes) for v in value]
            if kind == "array"
            else [write(("string", key)) + write(each, sizes) for key, each in value.items()]
        )
        return blocks(entries, sizes)
    if kind == "enum":
        return varint(schema["symbols"].index(value))
    if kind in ("int", "long"):
        return varint(value)
    if kind == "string":
        return varint(len(value.encode())) + value.encode()
    if kind == "bytes":
        return varint(len(value)) + value
    return {
        "null": lambda: b"",
        "boolean": lambda: bytes([value]),
        "float": lambda: struct.pack("<f", value),
        "double": lambda: struct.pack("<d", value),
        "fixed": lambda: value,
    }[kind]()


def blocks(entries: list[bytes], sizes: bool) -> bytes:
    """Entries as one block, none where there are none, and the end."""
    if not entries:
        return b"\0"
    body = b"".join(entries)
    head = varint(-len(entries)) + varint(len(body)) if sizes else varint(len(entries))
    return head + body + b"\0"


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte.

    >>> varint(-1), varint(64), varint(2**63 - 1).hex()
    (b'\\x01', b'\\x80\\x01', 'feffffffffffffffff01')
    """
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# ---- a reader of one's own ----------------------------------------------------------------------------------------

PROMOTED = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
ADDED = (
    ("long", 7, 7),
    (["null", "string"], None, None),
    ({"type": "array", "items": "int"}, [1], [1]),
    ({"type": "int", "logicalType": "date"}, 0, LOGICAL_READERS["int-date"](0)),
    ("bytes", "\u00ff", b"\xff"),
)
"""Types of fields that only the reader has, with a default as JSON and as a value."""


class Reader:
    """A writer's schema, changed at random into a reader's: promoted, in and out of unions, renamed, more and less."""

    def __init__(self, draw: st.DrawFn, writer: Any) -> None:
        self._draw = draw
        self._named = named_types(writer)
        self._defined: dict[str, str] = {}
        self.schema = self.type(writer)

    def type(self, schema: Any, *, within: bool = False) -> Any:
        """The reader's type for a writer's."""
        way = self._draw(st.sampled_from(["same"] * 4 + ["promoted", "promoted", "union", "other"]))
        if way == "other" and within:
            return self._draw(st.sampled_from(PRIMITIVES))
        if way == "union" and within and not isinstance(schema, list):
            made = self.type(schema)
            others = [each for each in ("null", "int", "string") if _kind(each) != _kind(made)]
            return made if isinstance(made, list) else self._draw(st.permutations([made, *others]))
        if isinstance(schema, list):
            left = self._draw(st.permutations(schema))[: self._draw(st.integers(1, len(schema)))]
            if way == "promoted" and len(left) == 1:
                return self.type(left[0])
            made = [self.type(each) for each in left]
            return [each for n, each in enumerate(made) if _kind(each) not in map(_kind, made[:n])]
        if isinstance(schema, str) and schema in self._named:
            return self._defined.get(schema) or self.type(self._named[schema])
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind in ("record", "enum", "fixed"):
            return self._defined.get(schema["name"]) or self._of_name(kind, schema)
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return {**schema, inner: self.type(schema[inner], within=True)}
        if way == "promoted":
            return self._draw(st.sampled_from([schema, kind, *PROMOTED.get(kind, ())]))
        return schema

    def _of_name(self, kind: str, schema: Any) -> Any:
        name, more = schema["name"], {}
        if self._defined and self._draw(st.integers(0, 5)) == 0:
            more = {"name": f"{name}x", "aliases": [name]}
        elif self._defined and self._draw(st.integers(0, 5)) == 0:
            more = {"name": f"elsewhere.{name.rpartition('.')[2]}"}
        self._defined[name] = more.get("name", name)
        if kind == "enum":
            symbols = self._draw(st.permutations(schema["symbols"]))[: self._draw(st.integers(1, 3))]
            default = {"default": symbols[0]} if self._draw(st.booleans()) else {}
            return {**schema, **more, "symbols": symbols, **default}
        if kind == "fixed":
            return {**schema, **more}
        return {**schema, **more, "fields": list(self._fields(schema["fields"]))}

    def _fields(self, fields: Any) -> Any:
        for field in self._draw(st.permutations(fields)):
            way = self._draw(st.sampled_from(["same"] * 5 + ["gone", "renamed"]))
            if way == "gone":
                continue
            made = {"name": field["name"], "type": self.type(field["type"], within=True)}
            yield {**made, "name": f"new_{field['name']}", "aliases": [field["name"]]} if way == "renamed" else made
        if self._draw(st.integers(0, 3)) == 0:
            kind, default, _ = self._draw(st.sampled_from(ADDED))
            yield {"name": "added", "type": kind, "default": default}
        if self._draw(st.integers(0, 19)) == 0:
            yield {"name": "wanted", "type": "int"}


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    kind = schema["type"] if isinstance(schema, dict) else schema
    return schema["name"] if isinstance(schema, dict) and "name" in schema else kind


class NoMatch(Exception):  # noqa: N818
    """What the specification calls an error."""


class Oracle:
    """What a reader makes of drawn data, said by the specification's sentences one by one, slowly."""

    def __init__(self, reader: Any) -> None:
        self._named = named_types(reader)
        self._reader = reader

    def value(self, drawn: tuple[Any, Any]) -> Any:
        """The whole of it; raises `NoMatch`."""
        return self._value(drawn, self._reader)

    def _value(self, drawn: tuple[Any, Any], reader: Any) -> Any:
        schema, value = drawn
        if isinstance(schema, list):  # "if writer's is a union": its branch decides
            return self._value(value, reader)
        reader = self._named.get(reader, reader) if isinstance(reader, str) else reader
        if isinstance(
            reader, list
        ):  # "the first schema in the reader's union that matches", the same type before others
            ranked = sorted(reader, key=lambda branch: -self._rank(schema, branch))
            return self._value(drawn, ranked[0])
        if not self._rank(schema, reader):
            raise NoMatch
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind == "record":
            return dict(self._fields(value, reader))
        if kind == "array":
            return [self._value(each, reader["items"]) for each in value]
        if kind == "map":
            return {key: self._value(each, reader["values"]) for key, each in value.items()}
        if kind == "enum":
            if value not in reader["symbols"] and "default" not in reader:
                raise NoMatch
            return value if value in reader["symbols"] else reader["default"]
        return self._leaf(schema, kind, value, reader)

    def _fields(self, values: dict[str, Any], reader: Any) -> Any:
        for field in reader["fields"]:
            name = next((n for n in (field["name"], *field.get("aliases", ())) if n in values), None)
            if name is not None:
                yield field["name"], self._value(values[name], field["type"])
            elif "default" in field:
                yield field["name"], next(v for t, d, v in ADDED if t == field["type"] and d == field["default"])
            else:
                raise NoMatch

    def _leaf(self, schema: Any, kind: str, value: Any, reader: Any) -> Any:
        wanted = reader["type"] if isinstance(reader, dict) else reader
        if kind in ("int", "long") and wanted in ("float", "double"):
            value = float(value)
        elif kind == "string" and wanted == "bytes":
            value = value.encode()
        elif kind == "bytes" and wanted == "string":
            try:
                value = value.decode()
            except UnicodeDecodeError:
                raise NoMatch from None
        logical = reader.get("logicalType") if isinstance(reader, dict) else None
        written = schema if isinstance(schema, dict) and "logicalType" in schema else None
        read = LOGICAL_READERS.get(f"{wanted}-{logical}")
        if read is None:
            return value
        if written is not None and logical != "decimal":
            read = LOGICAL_READERS.get(f"{kind}-{written['logicalType']}", read)
        try:
            return read(value, reader, None)
        except (ValueError, OverflowError):
            raise NoMatch from None

    def _rank(self, writer: Any, reader: Any) -> int:
        reader = self._named.get(reader, reader) if isinstance(reader, str) else reader
        w = writer["type"] if isinstance(writer, dict) else writer
        r = reader["type"] if isinstance(reader, dict) else reader
        if w != r:
            return int(r in PROMOTED.get(w, ()) and _units_match(writer, reader))
        if w in ("record", "enum", "fixed"):
            if writer["name"] == reader["name"]:
                return 3
            last = writer["name"].rpartition(".")[2] == reader["name"].rpartition(".")[2]
            return 2 * (last or writer["name"] in reader.get("aliases", ()))
        return 2 * _units_match(writer, reader)


def _units_match(writer: Any, reader: Any) -> bool:
    w, r = (each.get("logicalType") if isinstance(each, dict) else None for each in (writer, reader))
    if "nobody-knows" in (w, r) or None in (w, r) or w == r:
        return True
    return "-" in w and w.rpartition("-")[0] == r.rpartition("-")[0]
