"""Arrow's columns of records → the columns of a row class, without a Struct, an item or a row for each message.

A column is read as a whole where its field has nothing to do with a value of its type. Otherwise the lines that
`codegen` writes for the field run in a loop over it. A value that they refuse leaves its message to the items' way,
which says what is wrong.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union

from lovelace_streams.columns import Chunk
from lovelace_streams.formats.avro.arrow import (
    INSTANTS,
    WHOLE_AS_FLOAT,
    Make,
    UnsupportedSchema,
    agreed,
    check_unchanged,
    default_of,
    leaf,
    nulls,
)
from lovelace_streams.formats.avro.resolution import sources
from lovelace_streams.formats.avro.schema import Field as SchemaField
from lovelace_streams.formats.avro.schema import Node
from lovelace_streams.rows.codegen import indented
from lovelace_streams.rows.decode_types import DecodeNode
from lovelace_streams.rows.fields import Field
from lovelace_streams.rows.loops import OF_CHUNK
from lovelace_streams.rows.rules import rules_of
from lovelace_streams.rows.targets import Target
from lovelace_streams.rows.types import SIMPLE

if TYPE_CHECKING:
    import pyarrow as pa

FILLED, NULLS, BLANKS = 0, 1, 2
"""What a place lacks: nothing, values that are null, or any."""
Take = Callable[["pa.StructArray", set[int]], tuple[Sequence[Any], int]]
"""Reads what is at a place of each record, and what it lacks; adds the indexes of records that are left."""
Column = Callable[["pa.StructArray", Chunk, Sequence[int], datetime, set[int]], Sequence[Any]]
"""Makes the values of a field: `column(records, chunk, places, latest, left)`."""


class RowColumns:
    """Makes the columns of a target's row class. Raises `UnsupportedSchema` for one that needs a Struct or a row.

    >>> import pyarrow as pa
    >>> from lovelace_streams import Row
    >>> from lovelace_streams.avro import parse
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> schema = parse({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]})
    >>> records, chunk = pa.StructArray.from_arrays([pa.array(["7", "x"])], ["id"]), None
    >>> RowColumns(Target(Order), schema.root, schema.root).values(records, chunk, [0, 1], None)
    ([[7, None]], {1})
    """

    def __init__(self, target: Target, writer: Node, reader: Node) -> None:
        assert target.row is not None
        self._parents = _names(target.path, writer, reader)
        self._columns = [_column_named(field, target, writer, reader) for field in target.fields]
        if rules_of(target.row):
            raise UnsupportedSchema(f"{target.name} has rules, which look at a row")

    def values(
        self, records: "pa.StructArray", chunk: Chunk, places: Sequence[int], latest: datetime
    ) -> tuple[list[Sequence[Any]], set[int]]:
        """Make a list of values for each field of records at these places of a chunk; and say which ones are left.

        At the indexes of those the values mean nothing.
        """
        left: set[int] = set()
        array: Any = records
        for name in self._parents:
            array = array.field(name)
            left |= nulls(array)  # without an item
        return [column(records, chunk, places, latest, left) for column in self._columns], left


def _names(path: Sequence[str], writer: Node, reader: Node) -> list[str]:
    """Return the writer's names of the records that lead to the items; raises `UnsupportedSchema` without records."""
    names: list[str] = []
    w, r = agreed(writer, reader)
    for part in path:
        if w.kind != "record":
            raise UnsupportedSchema(f"{w.shown} where the rows read a record")
        read, source = _field_of(part, w, r)
        if source is None or read is None:
            raise UnsupportedSchema(f"{writer.shown} without {part}")
        names.append(source.name)
        w, r = agreed(source.type, read.type)
    if w.kind != "record":
        raise UnsupportedSchema(f"{w.shown} where the rows read a record")
    return names


# ---- what is at a place ---------------------------------------------------------------------------------------------


def _place(parts: Sequence[str], node: DecodeNode, hint: Any, writer: Node, reader: Node) -> tuple[Take, str]:
    """Make what reads a place, where the items' way finds `node.blank` if nothing is there; return the kind, too."""
    names: list[str] = []
    w, r = agreed(writer, reader)
    for depth, part in enumerate(parts, 1):
        if w.kind != "record":
            raise UnsupportedSchema(f"{w.shown} where the rows read a record")
        read, source = _field_of(part, w, r)
        is_leaf = depth == len(parts)
        if read is None:
            return _constant(node.blank), ""
        if source is None:
            default = default_of(read)
            if not is_leaf and default is not None:
                raise UnsupportedSchema(f"the default of {part}")
            if hint is not None:
                check_unchanged(default, Union[hint, None])  # noqa: UP007 - some hints have no `|`
            return _constant(default if is_leaf else node.blank), ""
        names.append(source.name)
        if is_leaf:
            make, kind = leaf(hint, source.type, read.type)
            return _at(names, make, node.blank), kind
        w, r = agreed(source.type, read.type)
    raise UnsupportedSchema("a column of the whole message")


def _field_of(name: str, writer: Node, reader: Node) -> tuple[SchemaField | None, SchemaField | None]:
    """Return a field of the reader's record, and the writer's that it is read from; None where there is none."""
    return next(((field, source) for field, source in sources(reader, writer) if field.name == name), (None, None))


def _constant(value: Any) -> Take:
    def constant(records: "pa.StructArray", left: set[int]) -> tuple[Sequence[Any], int]:
        return [value] * len(records), BLANKS

    return constant


def _at(names: Sequence[str], make: Make, blank: Any) -> Take:
    *parents, name = names

    def take(records: "pa.StructArray", left: set[int]) -> tuple[Sequence[Any], int]:
        array: Any = records
        absent: set[int] = set()
        for parent in parents:
            array = array.field(parent)
            absent |= nulls(array)
        array = array.field(name)
        values = make(array, left)
        if absent:
            return [blank if index in absent else value for index, value in enumerate(values)], BLANKS
        return values, NULLS if array.null_count else FILLED

    return take


# ---- what becomes of it ---------------------------------------------------------------------------------------------


def _column_named(field: Field, target: Target, writer: Node, reader: Node) -> Column:
    try:
        return _column(field, target, writer, reader)
    except UnsupportedSchema as error:
        raise UnsupportedSchema(f"{target.name}.{field.column.attribute} reads {error}") from None


def _column(field: Field, target: Target, writer: Node, reader: Node) -> Column:
    lines = target.field_writer(OF_CHUNK)
    nodes = [lines.node_of(place) for place in field.places]
    raw = not nodes or any(node.hint is None for node in nodes)
    if field.from_json is not None:
        raise UnsupportedSchema("JSON of any kind")
    places = []
    for place, node in zip(field.places, nodes, strict=True):
        parts = place.parts if place.root else (*target.path, *place.parts)
        places.append(_place(parts, node, None if raw else node.hint, writer, reader))
    takes = [take for take, _ in places]
    reads = [f"r{number}" for number in range(len(takes))]
    lines.add_value(field, [(read, False) for read in reads], raw=raw)
    before = len(lines.lines)
    lines.check_version((field,))
    each = _generated(field, lines.lines, reads, lines.names)
    if takes and not raw and len(lines.lines) == before and all(_is_kept(field, kind) for _, kind in places):
        return _whole(takes, each, nullable=field.column.nullable)
    return lambda records, chunk, places, latest, left: each(
        chunk, places, latest, left, *(take(records, left)[0] for take in takes)
    )


_EXACT = (
    (SIMPLE[int], ("int", "long")),
    (SIMPLE[float], ("float", "double", WHOLE_AS_FLOAT)),
    (SIMPLE[datetime], tuple(INSTANTS)),
)
"""A column's type, and the kinds whose values are of that very type."""


def _is_kept(field: Field, kind: str) -> bool:
    """Whether a value of this kind is the column's as it is."""
    if field.column.after or field.is_checked:
        return False
    if not field.type.lines:
        return True
    if field.column.type == list[int]:
        return kind in ("int[]", "long[]")
    return any(field.type is exact and kind in kinds for exact, kinds in _EXACT)


Each = Callable[..., list[Any]]
"""`each(chunk, places, latest, left, values of each read)` → the values of a field."""


def _generated(field: Field, lines: list[str], reads: list[str], names: dict[str, Any]) -> Each:
    """Compile the loop over a column; its docstring is its source."""
    v = f"v_{field.column.attribute}"
    columns = [f"c_{read}" for read in reads]
    of_chunk = [OF_CHUNK[field.kafka].partition("[")[0]] if field.kafka is not None else []
    body = [
        f"def each({', '.join(['chunk', 'places', 'latest', 'left', *columns])}):",
        *(f"    {name} = chunk.{name}" for name in of_chunk),
        "    values = []; add = values.append",
        f"    for {', '.join(['place', *reads])}, in zip({', '.join(['places', *columns])}):",
        "        try:",
        *indented(indented(indented(lines))),
        "        except KeyboardInterrupt:",
        "            raise",
        "        except BaseException:",
        "            left.add(len(values))",
        f"            {v} = None",
        f"        add({v})",
        "    return values",
    ]
    source = "\n".join(body) + "\n"
    exec(compile(source, f"<column {field.column.attribute}>", "exec"), names)  # noqa: S102 - made of attribute names alone
    function: Each = names["each"]
    function.__doc__ = source
    return function


def _whole(takes: Sequence[Take], each: Each, *, nullable: bool) -> Column:
    """Make what takes a column as it is, where the first place has a value, or one may be null."""
    first, *others = takes

    def whole(
        records: "pa.StructArray", chunk: Chunk, places: Sequence[int], latest: datetime, left: set[int]
    ) -> Sequence[Any]:
        values, lack = first(records, left)
        if lack == FILLED or (lack == NULLS and nullable and not others):
            return values
        return each(chunk, places, latest, left, values, *(take(records, left)[0] for take in others))

    return whole
