"""Which of a reader's types a writer's value becomes: "Schema Resolution" of the specification, without any bytes.

https://avro.apache.org/docs/1.12.0/specification/#schema-resolution leaves some choices; here the one is taken that
keeps values right. Of a reader's union the branch of the same type comes before one that a value is promoted to. Two
logical types of one base match only if a value means the same in both.
"""

from lovelace_streams.formats.avro.logical import Logical
from lovelace_streams.formats.avro.schema import Field, Node

PROMOTIONS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_CONVERTIBLE = (
    {"timestamp-millis", "timestamp-micros"},
    {"local-timestamp-millis", "local-timestamp-micros"},
    {"time-millis", "time-micros"},
)


def matches(writer: Node, reader: Node) -> int:
    """Rate how two types match that are no unions: 0 not at all, 1 by promotion, 2 the same, 3 by full name too."""
    if writer.kind != reader.kind:
        promoted = reader.kind in PROMOTIONS.get(writer.kind, ())
        return int(promoted and _logicals_match(writer, reader))
    if writer.name:
        if writer.name == reader.name:
            rating = 3
        elif _last(writer.name) == _last(reader.name) or writer.name in reader.aliases:
            rating = 2
        else:
            return 0
        if writer.kind == "fixed" and not (writer.size == reader.size and _logicals_match(writer, reader)):
            return 0
        return rating
    return 2 * _logicals_match(writer, reader)


def branch_for(writer: Node, union: Node) -> Node | None:
    """Return the branch of a reader's union that a writer's value (of no union) becomes; None if no branch matches.

    It is the best match, and the first of equals.
    """
    best = max(union.inner, key=lambda branch: matches(writer, branch), default=None)
    return best if best is not None and matches(writer, best) else None


def sources(reader: Node, writer: Node) -> list[tuple[Field, Field | None]]:
    """Return each field of the reader's record with the writer's field that it is read from; None: it has none.

    A field is read by its name, else by the reader's aliases. One that is read by its name is no alias of another.
    """
    left = {field.name: field for field in writer.fields}
    found = {field.name: left.pop(field.name) for field in reader.fields if field.name in left}
    for field in reader.fields:
        alias = next((name for name in field.aliases if name in left), None)
        if field.name not in found and alias is not None:
            found[field.name] = left.pop(alias)
    return [(field, found.get(field.name)) for field in reader.fields]


def logical_of(writer: Node, reader: Node) -> Logical | None:
    """Return how a number or text is understood: as the reader declares it, in the unit in which it was written."""
    if reader.logical is None or writer.logical is None or reader.logical.name == "decimal":
        return reader.logical
    return writer.logical


def _logicals_match(writer: Node, reader: Node) -> bool:
    w, r = writer.logical, reader.logical
    if w is None or r is None or w.name == r.name:
        return w is None or r is None or w.scale == r.scale
    return any({w.name, r.name} <= units for units in _CONVERTIBLE)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
