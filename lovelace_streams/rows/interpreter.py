"""Item → row, field by field: the authoritative way, which defines what the generated functions must do.

It takes plain values (as `values.parse` reads them), names the path of what is wrong, and costs some 20 µs a row.
"""

import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason, Record
from lovelace_streams.rows.coercion import EPOCH, number_since_1970
from lovelace_streams.rows.declaration import Column
from lovelace_streams.rows.fields import call, fields_of
from lovelace_streams.rows.metaclass import RowMeta
from lovelace_streams.rows.rules import check_rules
from lovelace_streams.rows.values import json_type_name

AHEAD_MAX = timedelta(days=1)
"""A version further ahead of now than this is the record's fault: it would win for ever (law 8)."""
NO_RECORD = Record("", 0, 0, 0, 0, None, None, [], -1)


def interpret(
    row_class: RowMeta,
    raw: Any,
    record: Record | None = None,
    root: Any = None,
    now_ms: int | None = None,
    base: str = "$",
    *,
    partial: bool = False,
) -> Any:
    """Map one plain item to a row of the class.

    `root` is the whole message (by default the item itself), `now_ms` milliseconds since 1970 (by default now), `base`
    the path of the item for messages, `partial` whether its event is partial (`Items`). Without a `record` there is
    nothing to read from Kafka. Raises `RecordFault` with reason, path, what was expected and which kind was found.
    """
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    if record is None:
        record = NO_RECORD
    if not isinstance(raw, Mapping) and not takes_scalars(row_class):
        raise RecordFault(Reason.WRONG_TYPE, f"expected object, got {json_type_name(raw)} at {base}")
    whole = raw if root is None else root
    fields = fields_of(row_class)
    values = {field.column.attribute: field.value(raw, whole, record, base, partial=partial) for field in fields}
    row = call(lambda given: row_class(**given), values, base, name=f"{row_class.__name__}.__post_init__")
    check_rules(row, base)
    check_version(row, latest(now_ms))
    return row


@cache
def takes_scalars(row_class: RowMeta) -> bool:
    """Whether an item may be something else than an object: a field is the item itself (`From(".")`)."""
    return any(not place.root and not place.parts for field in fields_of(row_class) for place in field.places)


def check_version(row: Any, limit: datetime) -> None:
    """Raise `RecordFault` if the row has a version past the limit, as far as that can be told (`has_bound`)."""
    column = type(row).__table__.version_column
    if (
        column is not None
        and has_bound(column)
        and getattr(row, column.attribute) > limit_of(column.type, column.epoch, limit)
    ):
        raise RecordFault(Reason.VERSION_IN_FUTURE, f"{column.name} is more than a day ahead of now")


def has_bound(version: Column) -> bool:
    """Whether a version of the future can be told: it is an instant, a day, or a number with a unit (`Epoch`)."""
    return version.type in (datetime, date) or (version.type is int and version.epoch is not None)


@lru_cache(maxsize=64)
def limit_of(kind: Any, unit: str | None, limit: datetime) -> Any:
    """Return an instant as a version of this type, and of this unit if it is a number."""
    if kind is date:
        return limit.date()
    return limit if kind is datetime else number_since_1970(limit, unit or "")


@lru_cache(maxsize=16)
def latest(now_ms: int) -> datetime:
    """Return the latest version that is accepted at a time, given in milliseconds since 1970."""
    return EPOCH + timedelta(milliseconds=now_ms) + AHEAD_MAX
