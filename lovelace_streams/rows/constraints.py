"""Constraints that a row declares by `msgspec.Meta` and `Scale`, as one check for each column.

msgspec would check them only where it decodes by type. They hold after the functions of a column, so they are ours.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from lovelace_streams.records import Reason
from lovelace_streams.rows.decimals import is_multiple
from lovelace_streams.rows.declaration import Scale
from lovelace_streams.rows.values import ConversionError

_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
    "multiple_of": lambda value, bound: (
        is_multiple(value, Decimal(repr(bound))) if isinstance(value, Decimal) else value % bound == 0
    ),
}
_SHAPES: dict[str, Callable[[Any, Any], bool]] = {
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    "min_length": lambda value, bound: len(value) >= bound,
    "max_length": lambda value, bound: len(value) <= bound,
}
_NUMBERS = ("int", "float", "Decimal")
_ALLOWED = {
    **dict.fromkeys(_BOUNDS, _NUMBERS),
    "pattern": ("str",),
    **dict.fromkeys(("min_length", "max_length"), ("str", "list", "object")),
}
"""Constraint → how the names of the types begin that may have it."""


def constraint_check(
    metas: tuple[msgspec.Meta, ...], expected: str, scale: Scale | None = None
) -> Callable[[Any], Any]:
    """Make a function that returns a value that keeps all constraints, and raises `ConversionError` for another.

    `expected` is the name of the column's type. The reason is `out_of_range` for a bound or a scale, `bad_value` for a
    length or a pattern. A declared scale may round the value. Raises `TypeError` at once for a constraint that the type
    can't have.

    >>> constraint_check((msgspec.Meta(ge=0),), "int")(7)
    7
    """
    checks = [
        (holds, bound, reason, name)
        for meta in metas
        for tests, reason in ((_BOUNDS, Reason.OUT_OF_RANGE), (_SHAPES, Reason.BAD_VALUE))
        for name, holds in tests.items()
        if (bound := getattr(meta, name)) is not None
    ]
    for _, _, _, name in checks:
        if not expected.startswith(_ALLOWED[name]):
            raise TypeError(f"{name} is no constraint for {expected}")

    if scale is not None and expected != "Decimal":
        raise TypeError(f"Scale is for Decimal, not for {expected}")

    def check(value: Any) -> Any:
        if scale is not None and (value := scale.applied(value)) is None:
            raise ConversionError(
                Reason.OUT_OF_RANGE, f"Decimal with at most {scale.digits} digits after the point", "one with more"
            )
        for holds, bound, reason, name in checks:
            if not holds(value, bound):
                raise ConversionError(reason, f"{expected} with {name}={bound!r}", "one without")
        return value

    return check
