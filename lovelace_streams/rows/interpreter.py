"""An item → a row, field by field: the authoritative way, which the generated one is held to."""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason, Record
from lovelace_streams.rows.coercion import EPOCH
from lovelace_streams.rows.fields import call, fields_of
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.values import json_type_name

AHEAD_MAX = timedelta(days=1)
"""A version further ahead of now than this is the record's fault: it would win for ever (law 8)."""


def interpret(
    row_class: type[Row],
    raw: Any,
    record: Record | None = None,
    root: Any = None,
    now_ms: int | None = None,
    base: str = "$",
) -> Row:
    """Map one plain item to a row, field by field: what a row class means, and what the generated function is held to.

    `root` is the whole message (the item itself where not given), `now_ms` milliseconds since 1970, `base` the item's
    own path for messages. Raises `RecordFault` with reason, path, what was expected and what kind was got.
    """
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    if record is None:
        record = Record("", 0, 0, 0, 0, None, None, [], now_ms)
    if not isinstance(raw, Mapping) and not takes_scalars(row_class):
        raise RecordFault(Reason.WRONG_TYPE, f"expected object, got {json_type_name(raw)} at {base}")
    whole = raw if root is None else root
    values = {field.column.name: field.value(raw, whole, record, base) for field in fields_of(row_class)}
    row: Row = call(lambda given: row_class(**given), values, base, name=f"{row_class.__name__}.__post_init__")
    check_version(row, latest(now_ms))
    return row


@cache
def takes_scalars(row_class: type[Row]) -> bool:
    """Whether an item may be something else than an object: a field is the item itself (`From(".")`)."""
    return any(not place.root and not place.parts for field in fields_of(row_class) for place in field.places)


def check_version(row: Row, limit: datetime) -> None:
    """Raises `RecordFault` where a `datetime` version lies past the limit."""
    version = type(row).__table__.version
    value = getattr(row, version) if version is not None else None
    if isinstance(value, datetime) and value > limit:
        raise RecordFault(Reason.VERSION_IN_FUTURE, f"{version} is more than a day ahead of now")


@lru_cache(maxsize=16)
def latest(now_ms: int) -> datetime:
    """The latest version that is believed at a time."""
    return EPOCH + timedelta(milliseconds=now_ms) + AHEAD_MAX
