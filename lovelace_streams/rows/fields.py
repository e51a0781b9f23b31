"""`Field`: one column with everything that its declaration needs at run time, and its value from a plain item.

A value goes one way: found at the first path that has one (or in the Kafka message), functions before, coercion,
functions after, constraints. Absent and null leave that way early: what they become is in docs/rows.md.
"""

import copy
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from msgspec import NODEFAULT, UNSET

from lovelace_streams.errors import RecordFault, shown
from lovelace_streams.records import Reason, Record
from lovelace_streams.rows.coercion import after_epoch
from lovelace_streams.rows.constraints import constraint_check
from lovelace_streams.rows.context import NoContextError
from lovelace_streams.rows.declaration import Column, From, FromKafka
from lovelace_streams.rows.json_values import Digits
from lovelace_streams.rows.metaclass import RowMeta
from lovelace_streams.rows.paths import JsonPath, find, getter
from lovelace_streams.rows.types import ColumnType, column_type, lenient_type
from lovelace_streams.rows.values import ConversionError, ExactFloat

KAFKA_TYPES = {"timestamp": (datetime, int), "topic": (str,), "partition": (int,), "offset": (int,)}
"""The types that a column from Kafka may have; a key may have any."""

_EMPTY: Any = object()
"""Stands for empty text that is no value."""


@cache
def fields_of(row_class: RowMeta) -> tuple["Field", ...]:
    """Return the fields of a row class; raises `TypeError` for a type or constraint that no column can have."""
    table = row_class.__table__
    required = {*table.key, table.version}
    return tuple(Field(column, required=column.name in required) for column in table.columns)


def check_partial(row_class: RowMeta) -> None:
    """Raise `TypeError` for a class that no partial event can have: each column of several paths has to be keepable.

    Only `T | None` without a default may be left out of a row (`Table.partial`).
    """
    for field in fields_of(row_class):
        column = field.column
        if field.keeps and not (column.nullable and column.default is NODEFAULT):
            raise TypeError(
                f"{row_class.__name__}.{column.attribute} has several paths, and a partial event may have to keep what"
                " is stored: declare it `T | None` without a default"
            )


class Field:
    """One column, ready to be filled. Raises `TypeError` for a type or constraint that no column can have."""

    def __init__(self, column: Column, *, required: bool) -> None:
        self.column = column
        self.required = required
        """Part of the key, or the version: if it is absent the reason is `missing`, whatever the default."""
        source = column.source
        self.kafka = source.field if isinstance(source, FromKafka) else None
        self.places = tuple(map(JsonPath.of, source.paths)) if isinstance(source, From) else ()
        same = column.default is None if column.nullable else required or column.default is NODEFAULT
        self.blank: Any = None if same else UNSET
        """Stands for an absent value in the generated mapping: None where absent and null have the same effect."""
        self.type, self.empty_is_null = self._column_type(), False
        """`empty_is_null`: whether empty text is no value, because the field is `Lenient`."""
        if column.lenient and self.places:
            self.type, self.empty_is_null = lenient_type(column.type, self.type)
        self.check = self._check()
        """Returns a value that keeps the column's constraints, and raises `ConversionError` for another."""
        self.keeps = len(self.places) > 1 and not required
        """Whether a partial event keeps it where a path before the first value is absent. A key is never kept."""
        self.is_checked = bool(column.meta) or column.scale is not None
        has_more = column.before or column.after or self.is_checked or self.empty_is_null
        self.from_json = self.type.from_json if self.places and not has_more else None
        """The type's, for a column that declares no more than a type."""
        self.skips_empty = self.empty_is_null and not column.before
        """Whether empty text is passed over for the next path; functions before get it, and may make a value of it."""
        self._get = getter(self.places[0]) if self.places and not has_more else None
        """A quick look at the first path, for a column that declares no more than a type."""

    def _column_type(self) -> ColumnType:
        column, kafka = self.column, self.kafka
        if kafka == "key" and column.type is bytes:
            return ColumnType("bytes", bytes)
        if kafka in KAFKA_TYPES and column.type not in KAFKA_TYPES[kafka]:
            raise TypeError(f"{column.attribute}: FromKafka({kafka!r}) can't be {shown(column.type)}")
        try:
            return column_type(column.type, lenient=column.lenient, epoch=column.epoch)
        except TypeError as error:
            raise TypeError(f"{column.attribute}: {error}") from None

    def _check(self) -> Callable[[Any], Any]:
        try:
            return constraint_check(self.column.meta, self.type.expected, self.column.scale)
        except TypeError as error:
            raise TypeError(f"{self.column.attribute}: {error}") from None

    def value(self, item: Any, root: Any, record: Record, base: str, *, partial: bool = False) -> Any:
        """Return the column's value, UNSET where the stored one is kept; raises `RecordFault`.

        `item` and `root` (the message) are plain values, `base` is the path of the item for messages. `partial` is that
        of the event.
        """
        if self._get is not None:
            try:
                found = self._get(item, root)
                if found is not None:
                    return self.type.coerce(found)
            except ConversionError as error:
                raise error.at(self.places[0].below(base)) from None
            except AttributeError:  # a parent is no object: `_raw` says which
                pass
        raw, path = self._raw(item, root, record, base, stop=partial and self.keeps)
        if raw is UNSET:
            return self._absent(path)
        if raw is None:
            return self._null(path)
        if raw is _EMPTY:
            return self._empty(path)
        return self.finish(raw, path)

    # -- where the raw value comes from -------------------------------------------------------------------------------

    def _raw(self, item: Any, root: Any, record: Record, base: str, *, stop: bool) -> tuple[Any, str]:
        """Find the first value, else a null, else `_EMPTY`, else UNSET, and its path for messages.

        `stop` at the first absent path.
        """
        if self.kafka is not None:
            return self._from_kafka(record), f"Kafka's {self.kafka}"
        null = empty = None
        for place in self.places:
            found = find(root, place.parts) if place.root else find(item, place.parts, base)
            if self.skips_empty and found == "":
                empty = empty or place.below(base)
                continue
            if found is not UNSET and found is not None:
                return found, place.below(base)
            if found is UNSET and stop:
                return UNSET, ""
            if found is None and null is None:
                null = place.below(base)
        if null is not None:
            return None, null
        if empty is not None:
            return _EMPTY, empty
        return UNSET, " or ".join(place.below(base) for place in self.places)

    def _from_kafka(self, record: Record) -> Any:
        if self.kafka == "key":
            return self.key(record.key)
        value = getattr(record.origin or record, self.kafka or "")
        if self.kafka != "timestamp":
            return value
        if value < 0:
            return UNSET
        return self._instant(value) if self.column.type is datetime else value

    def _instant(self, timestamp: int) -> datetime:
        try:
            return after_epoch(timestamp * 1000)
        except ConversionError as error:
            raise error.at("Kafka's timestamp") from None

    def key(self, key: bytes | None) -> Any:
        """Return a message's key: bytes for a `bytes` column, else text; raises `RecordFault` if it is not UTF-8."""
        if key is None or self.column.type is bytes:
            return key
        try:
            return key.decode()
        except UnicodeDecodeError:
            raise RecordFault(Reason.BAD_VALUE, "expected UTF-8, got other bytes at Kafka's key") from None

    # -- what becomes of it -------------------------------------------------------------------------------------------

    def _absent(self, path: str) -> Any:
        column = self.column
        if not self.required:
            if column.default is not NODEFAULT:
                return copy.copy(column.default)
            if column.nullable:
                return UNSET
        raise RecordFault(Reason.MISSING, f"expected {self.type.expected}, got nothing at {path}")

    def _null(self, path: str) -> None:
        if not self.column.nullable:
            raise RecordFault(Reason.NULL, f"expected {self.type.expected}, got null at {path}")

    def _empty(self, path: str) -> Any:
        """Return what empty text becomes: the default, else null."""
        column = self.column
        if column.default is not NODEFAULT and not self.required:
            return copy.copy(column.default)
        if not column.nullable:
            raise RecordFault(Reason.NULL, f"expected {self.type.expected}, got empty text at {path}")
        return None

    def finish(self, raw: Any, path: str = "") -> Any:
        """Turn a value that is neither absent nor null into the column's; raises `RecordFault`.

        In this order: functions before, coercion, functions after, constraints.
        """
        value = raw
        if self.column.before:
            digits = Digits()
            value = digits.hidden(value) if self.type.expected != "Decimal" else value
            for function in self.column.before:
                value = call(function, value, path)
                if value is None:
                    return self._null(path)
            value = digits.restored(value)
        if self.empty_is_null and value == "":
            return self._empty(path)
        try:
            value = self.type.coerce(value)
        except ConversionError as error:
            raise error.at(path) from None
        if self.column.after:
            digits = Digits()
            value = digits.hidden(value, ExactFloat)
            for function in self.column.after:
                value = call(function, value, path)
                if value is None:
                    return self._null(path)
            value = digits.restored(value)
            path += f" after {name_of(self.column.after[-1])}"
        try:
            return self.check(self.type.coerce(value) if self.column.after else value)
        except ConversionError as error:
            raise error.at(path) from None


def call(function: Callable[[Any], Any], value: Any, path: str, name: str = "") -> Any:
    """Call a user's function. An exception of its own becomes the record's fault, reason `rule`, without its text."""
    try:
        return function(value)
    except BaseException as error:  # noqa: BLE001 - as `fault_of`
        raise fault_of(error, name or name_of(function), path) from None


def fault_of(error: BaseException, name: str, path: str = "") -> RecordFault:
    """Return the record's fault for what a user's function raised; raises `KeyboardInterrupt` again.

    `SystemExit` and a panic of Rust, which is no `Exception`, are the record's fault, too: the next worker would read
    the same record and end in the same way. The text of an exception may hold a value, and is left out (law 10).
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, RecordFault):
        reason = error.reason if isinstance(error.reason, Reason) else Reason.RULE
        detail, code = (text if isinstance(text, str) else "" for text in (error.detail, error.code))
        return RecordFault(reason, detail, code)
    if isinstance(error, NoContextError):
        return RecordFault(Reason.RULE, f"{name}: {error}")
    if isinstance(error, ValueError):
        return RecordFault(Reason.RULE, f"{name} refuses {f'what is at {path}' if path else 'it'}")
    return RecordFault(Reason.RULE, f"{name} raised {type(error).__name__}{f' at {path}' if path else ''}")


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for messages."""
    return getattr(function, "__qualname__", type(function).__name__)
