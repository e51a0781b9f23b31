"""The row of a new flow, derived from the topic's newest messages: names and types, never a value."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from lovelace_streams.admin.scaffold.shape import FlowField, FlowShape, name_problem
from lovelace_streams.rows.values import INT_MAX, INT_MIN, json_type_name


def shape_of_objects(objects: Sequence[Mapping[str, Any]]) -> FlowShape | None:
    """Derive the fields from JSON objects, and guess the key; None without a field."""
    values: dict[str, list[Any]] = {}
    for each in objects:
        for name, value in each.items():
            values.setdefault(name, []).append(value)
    taken = set(values)
    fields = tuple(_field(name, seen, len(objects), taken) for name, seen in values.items())
    return shape_of(f"{len(objects)} messages of the topic", fields, values) if fields else None


def shape_of(origin: str, fields: Sequence[FlowField], values: Mapping[str, Sequence[Any]]) -> FlowShape:
    """Make the row of fields, with a guess of its key; `values` of the fields help it."""
    if key := _key(fields, values):
        return FlowShape(origin, (key,), tuple(fields))
    # No field is in every message. The class needs a key nevertheless, and its author knows which.
    others = tuple(field for field in fields if field.name != "id")
    origin = f"{origin}, none of which says what makes a row the same row"
    return FlowShape(origin, ("id",), (FlowField("id", "int"), *others))


def _field(name: str, values: Sequence[Any], messages: int, taken: set[str]) -> FlowField:
    """Make the field of a name; `taken` are the names of fields, to which a new one is added."""
    source = ""
    if problem := name_problem(name):
        name, source = re.sub(r"\W+", "_", name).strip("_").lower(), name
        if source.isidentifier() or name in taken or name_problem(name):
            return FlowField(source, problem=problem)
        taken.add(name)
    present = [value for value in values if value is not None]
    annotation = _annotation(present) if present else "str"
    if not annotation:
        return FlowField(name, problem=f"{' or '.join(sorted(set(map(json_type_name, present))))}: say which")
    return FlowField(name, annotation, optional=len(present) < messages, source=source)


def _annotation(values: Sequence[Any]) -> str:
    """Find the annotation that all of these fit; "" where none does."""
    types = {type(value) for value in values}
    if types == {list}:
        return f"list[{_annotation_of_items([item for value in values for item in value]) or 'Any'}]"
    if types == {str}:
        return next((name for kind, name in ((datetime, "datetime"), (UUID, "UUID")) if _all(kind, values)), "str")
    if types == {int} and all(INT_MIN <= value <= INT_MAX for value in values):
        return "int"
    if types <= {int, Decimal}:
        return "Decimal"
    return {bool: "bool", dict: "dict[str, Any]"}.get(types.pop(), "") if len(types) == 1 else ""


def _annotation_of_items(items: Sequence[Any]) -> str:
    """Find the annotation of a list's items; "" for none, and for lists and objects within lists."""
    return _annotation(items) if items and not {list, dict} & set(map(type, items)) else ""


def _all(kind: Any, values: Iterable[str]) -> bool:
    try:
        converted = [msgspec.convert(value, kind) for value in values]
    except msgspec.ValidationError:
        return False
    return kind is not datetime or all(value.tzinfo is not None for value in converted)


def _key(fields: Sequence[FlowField], values: Mapping[str, Sequence[Any]]) -> str | None:
    """Guess the key: a required number, text or UUID, by its name, else the first that differs in every message."""
    able = [field.name for field in fields if _may_be_key(field)]
    named = [name for name in ("id", "key", "uuid") if name in able] + [n for n in able if n.endswith("_id")]
    distinct = [name for name in able if name in values and len(set(values[name])) == len(values[name])]
    return next(iter([*named, *distinct, *able]), None)


def _may_be_key(field: FlowField) -> bool:
    """Whether it may be the key. `keyed_by` takes names of the message, so a field of another name may not."""
    is_required = not field.problem and not field.optional
    return is_required and not field.source and field.type in {"int", "str", "UUID"}
