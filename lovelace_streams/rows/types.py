"""What a JSON value becomes in a column: one `ColumnType` for each type that a row may declare.

Every kind has a plain side, `coerce` (a value as `parse` gives it → the column's value, or `ConversionError`), which is
authoritative, and a fast side for the common types: the `hint` that msgspec decodes by and the `lines` that finish the
job in generated code. The fast side may refuse what the plain one takes; it may never take what the plain one refuses.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from lovelace_streams.records import Reason
from lovelace_streams.rows.coercion import (
    choice_of,
    epoch_of,
    json_of,
    to_bool,
    to_date,
    to_datetime,
    to_decimal,
    to_float,
    to_int,
    to_lenient_bool,
    to_lenient_str,
    to_str,
    to_uuid,
    utc,
    wrong_type,
)
from lovelace_streams.rows.constraints import constraint_check
from lovelace_streams.rows.values import INT_MAX, INT_MIN, ConversionError


class ColumnType(msgspec.Struct, frozen=True):
    """How values of one type are taken."""

    expected: str
    """Its name in messages."""
    coerce: Callable[[Any], Any]
    hint: Any = None
    """What msgspec decodes it as; None: read as raw JSON and given to `coerce`."""
    lines: tuple[str, ...] = ()
    """Python that finishes `{x}`, decoded by `hint` and neither None nor UNSET; `raise SLOW` asks the plain side."""
    names: Mapping[str, Any] = {}
    """What `lines` refer to; `{n}` is the column's name, for what is a column's own."""


def _list(element: ColumnType, element_null: bool, constraint_check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    expected = f"list of {element.expected}"

    def coerce(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise wrong_type(expected, value)
        taken: list[Any] = []
        for inner in value:
            if inner is None and element_null:
                taken.append(None)
                continue
            if inner is None:
                raise ConversionError(Reason.WRONG_TYPE, element.expected, "null", "[]")
            try:
                taken.append(constraint_check(element.coerce(inner)))
            except ConversionError as misfit:
                misfit.where = "[]" + misfit.where
                raise
        return taken

    return coerce


_INT_HINT = Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
_FLOORS = (0, 0, *(10**digits for digits in range(1, 19)))
"""By length, the least number that needs so many digits: one that does leaves no room for signs, spaces or `_`, which
int() takes. Cheaper than asking for digits; what is not so plain (or too long: IndexError) is left to `to_int`."""
_INT_LINES = (
    "if {x}.__class__ is str:",
    f"    if not ({{x}}.isascii() and FLOORS[len({{x}})] <= ({{x}} := int({{x}})) <= {INT_MAX}): raise SLOW",
)
_INTS_LINES = (  # a loop, as a comprehension is a call up to Python 3.11: a third of the cost of short lists
    "ints = []",
    "for e in {x}:",
    f"    if e.__class__ is str and e.isascii() and FLOORS[len(e)] <= (n := int(e)) <= {INT_MAX}: ints.append(n)",
    "    else: ints.append(integer(e))",
    "{x} = ints",
)
_EPOCH_HINT = _INT_HINT | float | str
SIMPLE: dict[Any, ColumnType] = {
    int: ColumnType("int", to_int, _INT_HINT | str, _INT_LINES, {"FLOORS": _FLOORS}),
    str: ColumnType("str", to_str, str),  # that no NUL is in the message is seen to before
    bool: ColumnType("bool", to_bool, bool),
    float: ColumnType("float", to_float, float | int, ("if {x}.__class__ is int: {x} = float({x})",)),
    Decimal: ColumnType("Decimal", to_decimal),
    datetime: ColumnType(
        "datetime", to_datetime, datetime, ("if {x}.tzinfo is not UTC: {x} = utc({x})",), {"utc": utc}
    ),
    date: ColumnType("date", to_date, date),
    UUID: ColumnType("UUID", to_uuid, UUID),
    Any: ColumnType("JSON", json_of("JSON", (), None)),
    object: ColumnType("JSON", json_of("JSON", (), None)),
    dict: ColumnType("object", json_of("object", (Mapping,), None)),
}
LENIENT: dict[Any, ColumnType] = {str: ColumnType("str", to_lenient_str), bool: ColumnType("bool", to_lenient_bool)}
EPOCHS = {
    unit: ColumnType(
        f"datetime as {unit} since 1970",
        epoch_of(scale),
        _EPOCH_HINT,
        ("{x} = epoch_{n}({x})",),
        {"epoch_{n}": epoch_of(scale)},
    )
    for unit, scale in (("ms", 1_000), ("s", 1_000_000))
}


def column_type(declared: Any, *, lenient: bool = False, epoch: str | None = None) -> ColumnType:  # noqa: PLR0911 - a table
    """The kind of a declared type; raises `TypeError` for one that no column can be."""
    if epoch is not None:
        if declared is not datetime:
            raise TypeError("Epoch is for datetime")
        return EPOCHS[epoch]
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
        loose = get_args(declared) == (str, Any)
        return SIMPLE[dict] if loose else ColumnType("object", json_of("object", (Mapping,), declared))
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        return ColumnType("object", json_of("object", (Mapping,), declared))
    raise TypeError(f"a column can't be {declared!r}")


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
    metas: tuple[Any, ...] = ()
    nullable = False
    if get_origin(declared) in (Union, UnionType):
        members = [member for member in get_args(declared) if member is not type(None)]
        if len(members) != 1:
            raise TypeError(f"a list can't be of {declared!r}")
        declared, nullable = members[0], True
    if get_origin(declared) is Annotated:
        declared, *metas_ = get_args(declared)
        metas = tuple(mark for mark in metas_ if isinstance(mark, msgspec.Meta))
    element = column_type(declared, lenient=lenient)
    coerce = _list(element, nullable, constraint_check(metas, element.expected))
    expected = f"list of {element.expected}"
    if metas or nullable or declared not in (int, str, bool, float, date, UUID):
        return ColumnType(expected, coerce)
    if declared is int:
        return ColumnType(
            expected, coerce, GenericAlias(list, (element.hint,)), _INTS_LINES, {"integer": to_int, "FLOORS": _FLOORS}
        )
    if declared is float:
        return ColumnType(expected, coerce, GenericAlias(list, (element.hint,)), ("{x} = [float(e) for e in {x}]",))
    return ColumnType(expected, coerce, GenericAlias(list, (element.hint,)))


SCALARS = frozenset({bool, int, float, str, Decimal, datetime, date, UUID})
"""Types that a column of a database holds as one value of its own; all others travel as JSON, or as a list."""


def scalar(declared: Any) -> Any:
    """The plain type under an Enum or Literal, `dict` for whatever is JSON, and the type itself otherwise.

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
