"""`ColumnType`: how values of each declarable type are decoded and coerced.

Every type has a plain side, `coerce`, which is authoritative. The common types have a fast side, too: msgspec decodes a
value by `hint`, and `lines` of generated code finish it. The fast side may refuse a value that the plain side accepts.
It must never accept one that the plain side refuses, or give another value.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from lovelace_streams.errors import shown
from lovelace_streams.records import Reason
from lovelace_streams.rows.coercion import (
    choice_of,
    epoch_of,
    to_bool,
    to_date,
    to_datetime,
    to_decimal,
    to_float,
    to_int,
    to_lenient_bool,
    to_lenient_float,
    to_lenient_str,
    to_str,
    to_uuid,
    utc,
    wrong_type,
)
from lovelace_streams.rows.constraints import constraint_check
from lovelace_streams.rows.declaration import EPOCH_UNITS, Scale
from lovelace_streams.rows.json_values import json_of, json_of_text, object_of_text
from lovelace_streams.rows.values import INT_MAX, INT_MIN, ConversionError


class ColumnType(msgspec.Struct, frozen=True):
    """How values of one type are decoded and coerced."""

    expected: str
    """The name of the type in messages."""
    coerce: Callable[[Any], Any]
    """Plain value → column value; raises `ConversionError`."""
    hint: Any = None
    """The type that msgspec decodes; None: the value is read as raw JSON, and coerced."""
    lines: tuple[str, ...] = ()
    """Python that finishes `{x}`, decoded by `hint` and neither None nor UNSET; `raise SLOW` asks the plain side."""
    names: Mapping[str, Any] = {}
    """The names that `lines` use; `{n}` is the column's name, in names that belong to one column."""
    from_json: Callable[[bytes], Any] | None = None
    """A quicker way from raw JSON to what `coerce` gives; whatever it raises asks the plain side."""


# ---- types without parameters ---------------------------------------------------------------------------------------


INT_HINT = Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
_FLOORS = (0, 0, *(10**digits for digits in range(1, 19)))
"""By length, the least number that needs so many digits. A text of that length that is no smaller has no room for a
sign, a space or `_`, which int() accepts. This is cheaper than to test for digits. A text that is less plain, or too
long (IndexError), is left to `to_int`."""
_INT_LINES = (
    "if {x}.__class__ is str:",
    f"    if not ({{x}}.isascii() and FLOORS[len({{x}})] <= ({{x}} := int({{x}})) <= {INT_MAX}): raise SLOW",
)
_INTS_LINES = (  # a loop: up to Python 3.11 a comprehension is a call, which is a third of the cost of short lists
    "ints = []",
    "for e in {x}:",
    f"    if e.__class__ is str and e.isascii() and FLOORS[len(e)] <= (n := int(e)) <= {INT_MAX}: ints.append(n)",
    "    else: ints.append(integer(e))",
    "{x} = ints",
)
_EPOCH_HINT = INT_HINT | float | str
SIMPLE: dict[Any, ColumnType] = {
    int: ColumnType("int", to_int, INT_HINT | str, _INT_LINES, {"FLOORS": _FLOORS}),
    str: ColumnType("str", to_str, str),  # a message with an escaped NUL never gets here: the decoder has looked for it
    bool: ColumnType("bool", to_bool, bool),
    float: ColumnType("float", to_float, float | int, ("if {x}.__class__ is int: {x} = float({x})",)),
    Decimal: ColumnType("Decimal", to_decimal),
    datetime: ColumnType(
        "datetime", to_datetime, datetime, ("if {x}.tzinfo is not UTC: {x} = utc({x})",), {"utc": utc}
    ),
    date: ColumnType("date", to_date, date),
    UUID: ColumnType("UUID", to_uuid, UUID),
    Any: ColumnType("JSON", json_of("JSON", (), None), from_json=json_of_text),
    object: ColumnType("JSON", json_of("JSON", (), None), from_json=json_of_text),
    dict: ColumnType("object", json_of("object", (Mapping,), None), from_json=object_of_text),
}
LENIENT: dict[Any, ColumnType] = {
    str: ColumnType("str", to_lenient_str),
    bool: ColumnType("bool", to_lenient_bool),
    float: ColumnType("float", to_lenient_float),
}
EPOCHS = {
    unit: ColumnType(
        f"datetime as {unit} since 1970",
        epoch_of(nanoseconds),
        _EPOCH_HINT,
        ("{x} = epoch_{n}({x})",),
        {"epoch_{n}": epoch_of(nanoseconds)},
    )
    for unit, nanoseconds in EPOCH_UNITS.items()
}


# ---- the type of a declaration --------------------------------------------------------------------------------------


def column_type(declared: Any, *, lenient: bool = False, epoch: str | None = None) -> ColumnType:  # noqa: PLR0911 - a table
    """Return the `ColumnType` of a declared type; raises `TypeError` for a type that no column can have.

    >>> column_type(list[int]).expected, column_type(list[int]).coerce(["7", 8])
    ('list of int', [7, 8])
    """
    if epoch is not None and declared is datetime:
        return EPOCHS[epoch]
    if epoch is not None and declared is not int:
        raise TypeError("Epoch is for datetime and int")
    if lenient and declared in LENIENT:
        return LENIENT[declared]
    try:
        if declared in SIMPLE:
            return SIMPLE[declared]
    except TypeError:  # not hashable: not simple
        pass
    origin = get_origin(declared)
    if origin is Literal or (isinstance(declared, type) and issubclass(declared, Enum)):
        return _choice_type(declared)
    if declared is list or origin is list:
        return _list_type(*(get_args(declared) or (Any,)), lenient=lenient)
    if origin is dict:
        is_any_object = get_args(declared) == (str, Any)
        return SIMPLE[dict] if is_any_object else ColumnType("object", json_of("object", (Mapping,), declared))
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        return ColumnType("object", json_of("object", (Mapping,), declared))
    raise TypeError(f"a column can't be {shown(declared)}")


def lenient_type(declared: Any, plain: ColumnType) -> tuple[ColumnType, bool]:
    """Return a type as a field that is `Lenient` has it, and whether empty text is no value of it.

    It is none but of text, of JSON of any kind, and of a choice that has it. Types that msgspec would refuse it for are
    decoded plainly: text formats have many empty fields.
    """
    try:
        is_value = declared in (str, Any, object) or plain.coerce("") == ""
    except ConversionError:
        is_value = False
    takes_text = plain.hint is None or str in get_args(plain.hint)
    if is_value or takes_text:
        return plain, not is_value
    return ColumnType(plain.expected, plain.coerce), True


def _choice_type(declared: Any) -> ColumnType:
    is_enum = isinstance(declared, type)
    members = {m.value: m for m in declared} if is_enum else {value: value for value in get_args(declared)}
    expected = declared.__name__ if is_enum else "one of a Literal"
    coerce = choice_of(expected, members)
    if {type(value) for value in members} == {str}:
        lines = ("{x} = members_{n}.get({x})", "if {x} is None: raise SLOW")
        return ColumnType(expected, coerce, str, lines, {"members_{n}": members})
    return ColumnType(expected, coerce)


def _list_type(declared: Any, *, lenient: bool) -> ColumnType:
    """Return the type of a list, of a declared type that may be `T | None` and have constraints."""
    nullable = False
    if get_origin(declared) in (Union, UnionType):
        members = [member for member in get_args(declared) if member is not type(None)]
        if len(members) != 1:
            raise TypeError(f"a list can't be of {declared!r}")
        declared, nullable = members[0], True
    metas: tuple[Any, ...] = ()
    scale: Scale | None = None
    if get_origin(declared) is Annotated:
        declared, *marks = get_args(declared)
        metas = tuple(mark for mark in marks if isinstance(mark, msgspec.Meta))
        scale = next((mark for mark in marks if isinstance(mark, Scale)), None)
    element = column_type(declared, lenient=lenient)
    expected = f"list of {element.expected}"
    if lenient:
        element, empty_is_null = lenient_type(declared, element)
    else:
        empty_is_null = False
    check = constraint_check(metas, element.expected, scale)
    coerce = _to_list(element, check, nullable=nullable, empty_is_null=empty_is_null)
    if metas or nullable or lenient or declared not in (int, str, bool, float, date, UUID):
        return ColumnType(expected, coerce)
    lines, names = _LIST_LINES.get(declared, ((), {}))
    return ColumnType(expected, coerce, GenericAlias(list, (element.hint,)), lines, names)


_LIST_LINES: dict[Any, tuple[tuple[str, ...], dict[str, Any]]] = {
    int: (_INTS_LINES, {"integer": to_int, "FLOORS": _FLOORS}),
    float: (("{x} = [float(e) for e in {x}]",), {}),
}
"""Type of the elements → the lines that finish a list of them, with their names; other lists need none."""


def _to_list(
    element: ColumnType, check: Callable[[Any], Any], *, nullable: bool, empty_is_null: bool
) -> Callable[[Any], Any]:
    """Make a function for lists of a type; `check` holds each element to its constraints."""
    expected = f"list of {element.expected}"

    def coerce(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise wrong_type(expected, value)
        elements: list[Any] = []
        for each in value:
            inner = None if empty_is_null and each == "" else each
            if inner is None and not nullable:
                raise ConversionError(Reason.WRONG_TYPE, element.expected, "null", "[]")
            try:
                elements.append(None if inner is None else check(element.coerce(inner)))
            except ConversionError as error:
                error.where = "[]" + error.where
                raise
        return elements

    return coerce


# ---- the type for a database ----------------------------------------------------------------------------------------


SCALARS = frozenset({bool, int, float, str, Decimal, datetime, date, UUID})
"""Types that a database holds as one value. All others are sent as JSON, or as a list."""


def scalar(declared: Any) -> Any:
    """Return the plain type of a declared one: of an Enum or Literal that of its values, `dict` for all kinds of JSON.

    >>> scalar(Literal["a", "b"]), scalar(list[int]), scalar(dict[str, int])
    (<class 'str'>, list[int], <class 'dict'>)
    """
    values: Sequence[Any] = ()
    if get_origin(declared) is Literal:
        values = get_args(declared)
    elif isinstance(declared, type) and issubclass(declared, Enum):
        values = [member.value for member in declared]
    if values:
        return int if all(type(value) is int for value in values) else str
    if declared in SCALARS:
        return declared
    if get_origin(declared) is list and scalar(get_args(declared)[0]) in SCALARS:
        return list[scalar(get_args(declared)[0])]  # type: ignore[misc]
    return dict
