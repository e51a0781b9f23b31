"""Raw items → rows: by the generated function if it accepts the item, else by the interpreter, or by a user's function.

A decoder makes `RawItem`s, each with the Struct that it decoded and with a way to the plain values. `Normalizer` maps
them, one at a time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from lovelace_streams.errors import DeploymentFault, LovelaceError, RecordFault
from lovelace_streams.records import Envelope, Reason
from lovelace_streams.rows.codegen import Generated
from lovelace_streams.rows.coercion import decimals_to_floats
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.fields import fields_of, name_of
from lovelace_streams.rows.interpreter import check_version, interpret, latest
from lovelace_streams.rows.paths import find
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target
from lovelace_streams.rows.values import ConversionError, parse

# ---- what a decoder makes -------------------------------------------------------------------------------------------


class Message(msgspec.Struct, gc=False):
    """A message with a list of items, shared by them: it is parsed plainly at most once."""

    text: bytes
    parsed: Any = UNSET

    def plain(self) -> Any:
        """Return the whole message as plain values."""
        if self.parsed is UNSET:
            self.parsed = parse(self.text)
        return self.parsed


class RawItem(msgspec.Struct, gc=False):
    """One item as decoded: its Struct and that of its message if typed decoding went well, and its plain values."""

    target: Target
    item: Any
    """The item's Struct; None if the item is to be interpreted."""
    root: Any
    """The message's Struct."""
    text: Any = None
    """The JSON of the item if `message` is set, else of the whole message."""
    message: Message | None = None
    """The message of an item that is one of a list."""
    plain_item: Any = UNSET
    """Plain values of item and message, if the decoder has them already."""
    plain_root: Any = UNSET

    @property
    def base(self) -> str:
        """The path of the item for messages, without its number: equal faults must look equal (law 5, fail fast)."""
        return self.target.base if self.message is None else f"{self.target.base}[]"

    def plain(self) -> tuple[Any, Any]:
        """Return item and message as plain values; the message is `{}` for an item of a list that does not read it."""
        if self.plain_item is not UNSET:
            return self.plain_item, self.plain_root
        if self.message is not None:
            return parse(bytes(self.text)), self.message.plain() if self.target.root_wanted else {}
        root = parse(self.text)
        return find(root, self.target.path), root


# ---- what becomes of it ---------------------------------------------------------------------------------------------


def normalizer(*targets: type[Row] | MapFunction | Sequence[type[Row]]) -> "Normalizer":
    """Make the normalizer of row classes, alone or in sequences, or of one function.

    Raises `TypeError` for a row class that can't be mapped.
    """
    return Normalizer(*(what for target in targets for what in (target if isinstance(target, Sequence) else (target,))))


class Normalizer:
    """Makes rows of raw items, as the decoder's target says: of its row class, or by its function.

    `targets` say what is expected: row classes, by their tables (the function of an event may return rows of any). A
    single function replaces the decoder's target.
    """

    def __init__(self, *targets: type[Row] | MapFunction) -> None:
        expected = [Target(what) for what in targets]
        self._tables = {target.row.__table__.name for target in expected if target.row is not None}
        functions = [target for target in expected if target.function is not None]
        self._function = functions[0] if len(functions) == len(expected) == 1 else None

    def normalize(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """Return the row or rows of an item, or why it is skipped; `now_ms` is milliseconds since 1970.

        Raises `RecordFault` if the item does not fit, `DeploymentFault` as `generated` does.
        """
        raw = envelope.payload
        generated = self.generated(raw.target)
        if generated is not None and raw.item is not None:
            try:
                return generated(raw.item, raw.root, envelope.record, latest(now_ms))
            except Exception:  # noqa: BLE001, S110 - whatever it raised, the interpreter says what is wrong
                pass
        return self.interpret(envelope, now_ms)

    def generated(self, target: Target) -> Generated | None:
        """Return the function for items that were decoded by type; None if all are interpreted.

        Raises `DeploymentFault` for a table that this normalizer does not expect.
        """
        if self._function is not None:
            return None
        if target.row is not None and target.row.__table__.name not in self._tables:
            raise DeploymentFault(f"decode gives items of {target.name}, which normalize was not told of")
        try:
            return target.map if target.typed else None
        except (SyntaxError, RecursionError, MemoryError):  # more paths for a field than Python nests
            return None

    def interpret(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """Do what `normalize` does, for an item that no generated function accepts."""
        raw = envelope.payload
        target = self._function or raw.target
        try:
            item, root = raw.plain()
            if target.function is not None:
                return apply(target, _with_floats(item, raw.base), _with_floats(root, "$"), now_ms)
            assert target.row is not None
            row: Row = interpret(target.row, item, envelope.record, root, now_ms, raw.base)
        except LovelaceError:
            raise
        except RecursionError:
            raise RecordFault(Reason.TOO_DEEP) from None
        except Exception as error:  # a mistake of ours that one record found: it must not stop the other records
            raise RecordFault(Reason.BAD_VALUE, f"{type(error).__name__} where it is interpreted") from error
        return row


# ---- a user's function ----------------------------------------------------------------------------------------------


def _with_floats(value: Any, path: str) -> Any:
    """Return plain values with Python's floats, for a user's function; raises `RecordFault`."""
    try:
        return decimals_to_floats(value)
    except ConversionError as error:
        raise error.at(path) from None


def apply(target: Target, item: Any, root: Any, now_ms: int) -> Row | tuple[Row, ...] | Skip:
    """Call the target's function, and hold its rows to their classes: all of them, or none.

    No rows at all are `Skip("filtered")`. Raises `RecordFault`, mostly with reason `rule`.
    """
    function = target.function
    assert function is not None
    name = name_of(function)
    try:
        result = function(item, root) if target.root_wanted else function(item)
        if isinstance(result, Skip):
            return result
        rows = (result,) if isinstance(result, Row) or not isinstance(result, Iterable) else tuple(result)
    except RecordFault:
        raise
    except ValueError:
        raise RecordFault(Reason.RULE, f"{name} refuses it") from None
    except Exception as error:
        raise RecordFault(Reason.RULE, f"{name} raised {type(error).__name__}") from error
    for row in rows:
        if not isinstance(row, Row):
            raise RecordFault(Reason.RULE, f"{name} made a {type(row).__name__} instead of a row")
        _check_row(row, name, now_ms)
    if not rows:
        return Skip("filtered")
    return result if isinstance(result, Row) else rows


def _check_row(row: Row, name: str, now_ms: int) -> None:
    """Hold a row that a function returned to its class, as a mapped row is."""
    for field in fields_of(type(row)):
        column = field.column
        value = getattr(row, column.name)
        path = f"{type(row).__name__}.{column.name} made by {name}"
        if (value is UNSET or value is None) and column.nullable:
            continue
        if value is UNSET:
            raise RecordFault(Reason.MISSING, f"expected {field.type.expected}, got nothing at {path}")
        if value is None:
            raise RecordFault(Reason.NULL, f"expected {field.type.expected}, got null at {path}")
        try:
            setattr(row, column.name, field.check(field.type.coerce(value)))
        except ConversionError as error:
            raise error.at(path) from None
    check_version(row, latest(now_ms))
