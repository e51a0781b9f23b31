"""Random Avro schemas, and random data of them as bytes, made by an encoder of the tests' own."""

import itertools
import struct
from typing import Any

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
            "string": lambda: draw(st.text(max_size=4)),
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
