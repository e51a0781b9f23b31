"""A user's mapping function: which arguments it takes, and what becomes of anything that it returns or raises.

Whatever a function does with one item costs no other item (law 5): an exception, a value that is no row, and rows
without an end are the item's fault, reason `rule`, told by the function's name and never by a value.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import ITEMS_MAX, Reason, Record
from lovelace_streams.rows.context import RecordContext
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.fields import fault_of, fields_of, name_of
from lovelace_streams.rows.interpreter import check_version, latest
from lovelace_streams.rows.json_values import Digits
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.rules import check_rules
from lovelace_streams.rows.values import ConversionError

CONTEXT = "of"
"""The name of the parameter that gets the `RecordContext`."""


class Parameters(msgspec.Struct, frozen=True):
    """What a mapping function takes beside the item."""

    root: bool = False
    """The whole message, by position."""
    context: bool = False
    """The `RecordContext`, by the name `of`."""


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Read a function's signature. Raises `TypeError` if it can't be called with an item."""
    name = name_of(function)
    if any(inspect.iscoroutinefunction(each) for each in (function, getattr(function, "__call__", None))):  # noqa: B004
        raise TypeError(f"{name} is async, and a mapping function returns rows: write `def`, not `async def`")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have none
        return Parameters()
    others = [p for p in parameters if p.name != CONTEXT]
    positional = [p for p in others if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if not positional and not any(p.kind is p.VAR_POSITIONAL for p in others):
        raise TypeError(f"{name} takes no item: a mapping function is `def {name}(item)`")
    unknown = [p.name for p in others if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(required) > 2 or unknown:  # noqa: PLR2004 - item and message
        raise TypeError(
            f"{name} takes {', '.join([p.name for p in required] + unknown)}, and a mapping function gets the item and"
            f" the whole message by position, and Kafka's values as `{CONTEXT}`: `def {name}(item, root, *, {CONTEXT})`"
        )
    return Parameters(root=len(required) > 1, context=len(others) < len(parameters))


def apply(
    function: Callable[..., Any],
    takes: Parameters,
    item: Any,
    root: Any,
    record: Record,
    now_ms: int,
    skips: Collection[str],
    digits: Digits,
) -> Row | tuple[Row, ...] | Skip:
    """Call a mapping function, and hold its rows to their classes: all of them, or none.

    No rows at all are `Skip("filtered")`. `skips` are the reasons that it may skip an item for, `digits` those of the
    numbers in `item` and `root`. Raises `RecordFault`, mostly with reason `rule`.
    """
    name = name_of(function)
    try:
        context = {CONTEXT: RecordContext.of(record)} if takes.context else {}
        made = function(item, root, **context) if takes.root else function(item, **context)
        rows = _rows(made)
    except BaseException as error:  # noqa: BLE001 - as `fault_of`
        raise fault_of(error, name) from None
    if len(rows) == 1 and isinstance(rows[0], Skip):
        return _declared(rows[0], name, skips)
    if len(rows) > ITEMS_MAX:
        raise RecordFault(Reason.RULE, f"{name} made more than {ITEMS_MAX} rows of one item")
    for row in rows:
        if not isinstance(row, Row):
            raise RecordFault(Reason.RULE, f"{name} made a {type(row).__name__} instead of a row")
        _check_row(row, name, now_ms, digits)
    if not rows:
        return Skip("filtered")
    return rows[0] if isinstance(made, Row) else rows


def _rows(made: Any) -> tuple[Any, ...]:
    """Return what a function made as a tuple. Text and mappings can be iterated over, and hold no rows."""
    if isinstance(made, Row | str | bytes | Mapping) or not isinstance(made, Iterable):
        return (made,)
    return tuple(islice(made, ITEMS_MAX + 1))  # a generator may have no end


def _declared(skip: Skip, name: str, skips: Collection[str]) -> Skip:
    if skip.reason in skips:
        return skip
    raise RecordFault(
        Reason.RULE,
        f"{name} skips it for a reason that the flow does not declare: normalize(…, skips=(…)) names the reasons of its"
        " own",
    )


def _check_row(row: Row, name: str, now_ms: int, digits: Digits) -> None:
    """Hold a row that a function returned to its class, as a mapped row is."""
    kind = type(row)
    try:
        fields = fields_of(kind)
    except TypeError as error:  # no table, or a column that can't be: the text is about the class
        raise RecordFault(Reason.RULE, f"{name} made a {kind.__name__}, which is no row of a table: {error}") from None
    for field in fields:
        column = field.column
        value = getattr(row, column.attribute, UNSET)  # `del row.id` leaves none
        path = f"{kind.__name__}.{column.attribute} made by {name}"
        if (value is UNSET or value is None) and column.nullable:
            msgspec.structs.force_setattr(row, column.attribute, value)
            continue
        if value is UNSET:
            raise RecordFault(Reason.MISSING, f"expected {field.type.expected}, got nothing at {path}")
        if value is None:
            raise RecordFault(Reason.NULL, f"expected {field.type.expected}, got null at {path}")
        try:
            made = field.check(field.type.coerce(digits.restored(value)))
            msgspec.structs.force_setattr(row, column.attribute, made)
        except ConversionError as error:
            raise error.at(path) from None
    check_rules(row, f"the {kind.__name__} made by {name}")
    check_version(row, latest(now_ms))
