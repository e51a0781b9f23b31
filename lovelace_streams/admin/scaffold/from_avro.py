"""The row of a new flow, read from the schemas that wrote the topic's messages."""

from collections.abc import Sequence

from lovelace_streams.admin.scaffold.from_messages import shape_of
from lovelace_streams.admin.scaffold.shape import FlowField, FlowShape, name_problem
from lovelace_streams.formats.avro.schema import Node, Schema

LOGICAL = {
    "decimal": "Decimal",
    "uuid": "UUID",
    "date": "date",
    "timestamp-millis": "datetime",
    "timestamp-micros": "datetime",
}
KINDS = {
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "string": "str",
    "enum": "str",
    "record": "dict[str, Any]",
    "map": "dict[str, Any]",
}


def shape_of_schemas(schemas: Sequence[Schema]) -> FlowShape | None:
    """Take the fields of the newest schema; those that an earlier one lacks may be absent. None for no record."""
    newest, *earlier = [schema.root for schema in schemas]
    if newest.kind != "record":
        return None
    known = [{field.name for field in root.fields} for root in earlier if root.name == newest.name]
    fields = tuple(
        _field(field.name, field.type, optional=not all(field.name in names for names in known))
        for field in newest.fields
    )
    return shape_of(f"the Avro schema {newest.name}", fields, {})


def _field(name: str, node: Node, *, optional: bool) -> FlowField:
    if problem := name_problem(name):
        return FlowField(name, problem=problem)
    of = node.inner if node.kind == "union" else (node,)
    branches = [branch for branch in of if branch.kind != "null"]
    if len(branches) != 1:
        return FlowField(name, problem=f"{node.shown}: say which")
    annotation = _annotation(branches[0])
    if not annotation:
        return FlowField(name, problem=f"{branches[0].shown}, which no field type holds; a function can convert it")
    return FlowField(name, annotation, optional=optional or len(branches) < len(of))


def _annotation(node: Node) -> str:
    """Find the annotation of a type; "" where there is none."""
    if node.logical is not None:
        return LOGICAL.get(node.logical.name, "")
    if node.kind == "array":
        inner = _annotation(node.inner[0])
        return f"list[{inner if inner and not inner.startswith(('dict', 'list')) else 'Any'}]"
    return KINDS.get(node.kind, "")
