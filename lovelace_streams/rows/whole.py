"""Columns finished whole: what the lines of `types` make of one value, made of all values of a column at once, in C.

A quick way never judges. A column that it refuses is halved until it is known which values these are, and each of them
goes through `Field.finish`, which has the last word. So both ways end the same, and one odd value costs itself.
"""

from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from types import GenericAlias
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, UnsetType

from lovelace_streams.rows.coercion import to_str
from lovelace_streams.rows.fields import Field
from lovelace_streams.rows.types import INT_HINT, SIMPLE

Quick = Callable[[list[Any]], list[Any]]
"""Values as they were decoded by type, none of them absent or null → the column's values; raises anything else."""

_BLANKS = frozenset({type(None), UnsetType})


class WholeColumn:
    """Finishes the columns of one field.

    >>> from lovelace_streams.rows import Row
    >>> from lovelace_streams.rows.fields import fields_of
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> finish = WholeColumn(fields_of(Order)[0], integers)
    >>> finish(["7", 8]), finish(["7", "x", "007"])
    (([7, 8], []), ([7, None, 7], [1]))
    """

    def __init__(self, field: Field, quick: Quick) -> None:
        self._quick = quick
        self._finish = field.finish

    def __call__(self, values: list[Any]) -> tuple[list[Any], list[int]]:
        """Return the column's values, and the indexes of those that are refused."""
        if _BLANKS.isdisjoint(map(type, values)):
            return self._finished(values)
        there = [index for index, value in enumerate(values) if value is not None and value is not UNSET]
        finished, refused = self._finished([values[index] for index in there])
        made = list(values)
        for index, value in zip(there, finished, strict=True):
            made[index] = value
        return made, [there[index] for index in refused]

    def _finished(self, values: list[Any]) -> tuple[list[Any], list[int]]:
        try:
            return self._quick(values), []
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a user's function may raise any
            if len(values) == 1:
                return self._judged(values[0])
        half = len(values) // 2
        made, refused = self._finished(values[:half])
        more, others = self._finished(values[half:])
        return made + more, refused + [half + index for index in others]

    def _judged(self, value: Any) -> tuple[list[Any], list[int]]:
        try:
            return [self._finish(value)], []
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - as above
            return [None], [0]


def whole_of(field: Field) -> Quick | None:
    """Return the quick way of a field's columns; None if each value is finished by itself, as it is read."""
    column = field.column
    has_default = column.default is not NODEFAULT and not field.required
    if not field.places or column.before or has_default or field.is_checked or field.empty_is_null:
        return None
    if column.after:
        is_text = field.type is SIMPLE[str] and len(column.after) == 1
        return partial(_texts, column.after[0]) if is_text else None
    if field.type is SIMPLE[int]:
        return integers
    return lists_of_integers if field.type.hint == GenericAlias(list, (SIMPLE[int].hint,)) else None


def integers(values: list[Any]) -> list[int]:
    """Convert integers and their texts."""
    if _has_texts(values):
        return msgspec.convert(values, list[INT_HINT], strict=False)
    return values


def lists_of_integers(values: list[Any]) -> list[list[int]]:
    """Convert lists of them."""
    if _has_texts(set(chain.from_iterable(values))):
        return msgspec.convert(values, list[list[INT_HINT]], strict=False)
    return values


def _has_texts(values: Collection[Any]) -> bool:
    """Whether some are texts; raises `ValueError` for one that msgspec reads as an integer and `to_int` does not: 1e3.

    What is neither sign nor digits may be one. Whether a text of these is an integer of 64 bits, msgspec tells.
    """
    kinds = set(map(type, values))
    if str not in kinds:
        return False
    texts = values if len(kinds) == 1 else [value for value in values if value.__class__ is str]
    digits = "".join(texts).replace("-", "")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError
    return True


def _texts(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    made = list(map(function, values))
    to_str("".join(made))  # refuses NUL and lone surrogates; what is no text can't be joined
    return made
