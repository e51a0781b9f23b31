"""`rule`: a method of a row class that judges several fields together."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from lovelace_streams.rows.fields import fault_of
from lovelace_streams.rows.metaclass import RowMeta

F = TypeVar("F", bound=Callable[[Any], Any])
"""The method that is marked."""
_FIELDS = "__rule_fields__"


def rule(*fields: str) -> Callable[[F], F]:
    """Mark a method of a row class as a rule over the fields that it reads.

    It refuses the row by returning False or raising `ValueError`: the item is a dead letter `rule`, with the name of
    the method. True and None accept it. It is asked only if none of its fields is absent (`UNSET`); a null is a value,
    and is asked. Rules are asked in their order, after all fields are converted; the first that refuses is told. Raises
    `TypeError` without fields, and the class at first use for a name that is no field of it.

    >>> from lovelace_streams import Row, rule
    >>> from lovelace_streams.testing import mapped
    >>> class Stay(Row, table="stays", primary_key="id"):
    ...     id: int
    ...     first: int
    ...     last: int
    ...     @rule("first", "last")
    ...     def ends_after_it_begins(self) -> bool:
    ...         return self.first <= self.last
    >>> print(mapped(Stay, {"id": 1, "first": 9, "last": 3}))
    0 rows; dead letter in normalize: rule: Stay.ends_after_it_begins refuses what is at $ (first, last)
    """
    if not fields or not all(isinstance(field, str) for field in fields):
        raise TypeError("a rule names the fields that it reads: @rule('starts_at', 'ends_at')")

    def mark(function: F) -> F:
        setattr(function, _FIELDS, fields)
        return function

    return mark


class Rule(msgspec.Struct, frozen=True):
    """A rule of a row class."""

    name: str
    """`Stay.ends_after_it_begins`, for messages."""
    fields: tuple[str, ...]
    function: Callable[[Any], Any]

    def refuses(self, row: Any) -> bool:
        """Whether it refuses a row; raises what the method raises."""
        accepted = self.function(row)
        return accepted is not None and not accepted


@cache
def rules_of(row_class: RowMeta) -> tuple[Rule, ...]:
    """Return the rules of a row class, those of its bases first. Raises `TypeError` for one that could never judge."""
    found: dict[str, Any] = {}
    for base in reversed(row_class.__mro__):
        for name, value in vars(base).items():
            if hasattr(value, _FIELDS) or name in found:
                found[name] = value
    columns = {column.attribute for column in row_class.__table__.columns}
    rules = []
    for name, function in found.items():
        fields = getattr(function, _FIELDS, None)
        if fields is None:  # a class may replace a rule of its base by something else, which drops it
            continue
        full_name = f"{row_class.__name__}.{name}"
        _check(full_name, function, fields, columns)
        rules.append(Rule(full_name, fields, function))
    return tuple(rules)


def _check(name: str, function: Any, fields: tuple[str, ...], columns: set[str]) -> None:
    for field in fields:
        if field not in columns:
            raise TypeError(f"{name} reads {field!r}, which is no field of the row")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} is async, and a rule answers at once: write `def`, not `async def`")
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} is a generator, which accepts every row: return True or False")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise TypeError(f"{name} takes more or less than the row: write `def rule(self)`") from None


def check_rules(row: Any, base: str) -> None:
    """Raise `RecordFault` if a rule of the row's class refuses it; `base` is the path of the item."""
    row_class: Any = type(row)
    for each in rules_of(row_class):
        if any(getattr(row, field) is UNSET for field in each.fields):
            continue
        where = f"{base} ({', '.join(each.fields)})"
        try:
            refused = each.refuses(row)
        except BaseException as error:  # noqa: BLE001 - as `fault_of`
            raise fault_of(error, each.name, where) from None
        if refused:
            raise fault_of(ValueError(), each.name, where)
