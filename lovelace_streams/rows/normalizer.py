"""Raw items → rows: by the generated function where it can, else by the interpreter."""

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


class Message(msgspec.Struct, gc=False):
    """A message that holds a list of items: parsed plainly at most once for all of them that need it."""

    text: bytes
    parsed: Any = UNSET

    def plain(self) -> Any:
        """The whole of it as `parse` gives it."""
        if self.parsed is UNSET:
            self.parsed = parse(self.text)
        return self.parsed


class RawItem(msgspec.Struct, gc=False):
    """One item as decoded: by type where that went well (`item`, `root`), and the way to its plain values."""

    target: Target
    item: Any
    """The typed Struct; None where the item is to be interpreted."""
    root: Any
    text: Any = None
    """JSON of the item, where `message` is set, else of the message."""
    message: Message | None = None
    """The message where it holds a list of items."""
    plain_item: Any = UNSET
    plain_root: Any = UNSET

    @property
    def base(self) -> str:
        """The item's path for messages; without its number, so that equal faults look equal (law 5, fail fast)."""
        return self.target.base if self.message is None else f"{self.target.base}[]"

    def plain(self) -> tuple[Any, Any]:
        """The item and its message as plain values; the message only where somebody asks for it."""
        if self.plain_item is not UNSET:
            return self.plain_item, self.plain_root
        if self.message is not None:
            return parse(bytes(self.text)), self.message.plain() if self.target.root_wanted else {}
        root = parse(self.text)
        return find(root, self.target.path), root


class Normalizer:
    """Makes rows of raw items; the row class (or function) is the one that the decoder was told.

    `targets` say what is expected: row classes by their tables (an event's own function is free to make any). A single
    function takes the place of what the decoder was told.
    """

    def __init__(self, *targets: type[Row] | MapFunction) -> None:
        made = [Target(what) for what in targets]
        self._tables = {target.row.__table__.name for target in made if target.row is not None}
        functions = [target for target in made if target.function is not None]
        self._function = functions[0] if len(functions) == len(made) == 1 else None

    def normalize(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """One item's row, rows, or why it is passed over; raises `RecordFault`, and what `generated` raises."""
        raw = envelope.payload
        made = self.generated(raw.target)
        if made is not None and raw.item is not None:
            try:
                return made(raw.item, raw.root, envelope.record, latest(now_ms))
            except Exception:  # noqa: BLE001, S110 - whatever it was, the plain way below says what it is
                pass
        return self.interpret(envelope, now_ms)

    def generated(self, target: Target) -> Generated | None:
        """The function for items that were decoded by type; None where all are interpreted.

        Raises `DeploymentFault` where decoder and normalizer were told different things.
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
        """The same for an item that no generated function takes, or that it refuses."""
        raw = envelope.payload
        try:
            item, root = raw.plain()
            chosen = self._function or raw.target
            if chosen.function is not None:
                return apply(chosen, _with_floats(item, raw.base), _with_floats(root, "$"), now_ms)
            assert chosen.row is not None
            return interpret(chosen.row, item, envelope.record, root, now_ms, raw.base)
        except LovelaceError:
            raise
        except RecursionError:
            raise RecordFault(Reason.TOO_DEEP) from None
        except Exception as error:  # a mistake of ours, found by one record: it stops nobody else's
            raise RecordFault(Reason.BAD_VALUE, f"{type(error).__name__} where it is interpreted") from error


def normalizer(*targets: type[Row] | MapFunction | Sequence[type[Row]]) -> Normalizer:
    """What `normalize` runs; raises `TypeError` for a row class that can't be mapped."""
    return Normalizer(*(each for it in targets for each in (it if isinstance(it, Sequence) else (it,))))


def _with_floats(value: Any, path: str) -> Any:
    """Plain values with Python's floats, for a user's function; raises `RecordFault`."""
    try:
        return decimals_to_floats(value)
    except ConversionError as misfit:
        raise misfit.at(path) from None


def apply(target: Target, item: Any, root: Any, now_ms: int) -> Row | tuple[Row, ...] | Skip:
    """Call a user's mapping: all of its rows or none; no rows are `filtered`. Raises `RecordFault`, `rule` mostly."""
    function = target.function
    assert function is not None
    name = name_of(function)
    try:
        made = function(item, root) if target.root_wanted else function(item)
        if isinstance(made, Skip):
            return made
        rows = (made,) if isinstance(made, Row) or not isinstance(made, Iterable) else tuple(made)
    except RecordFault:
        raise
    except ValueError:
        raise RecordFault(Reason.RULE, f"{name} refuses it") from None
    except Exception as error:
        raise RecordFault(Reason.RULE, f"{name} raised {type(error).__name__}") from error
    for row in rows:
        if not isinstance(row, Row):
            raise RecordFault(Reason.RULE, f"{name} made a {type(row).__name__} instead of a row")
        _check_made(row, name, now_ms)
    if not rows:
        return Skip("filtered")
    return made if isinstance(made, Row) else rows


def _check_made(row: Row, name: str, now_ms: int) -> None:
    """Hold a row that a function made to its class, as a mapped one is."""
    for field in fields_of(type(row)):
        column = field.column
        value = getattr(row, column.name)
        path = f"{type(row).__name__}.{column.name} made by {name}"
        if value is UNSET and column.nullable:
            continue
        if value is UNSET:
            raise RecordFault(Reason.MISSING, f"expected {field.kind.expected}, got nothing at {path}")
        if value is None and column.nullable:
            continue
        if value is None:
            raise RecordFault(Reason.NULL, f"expected {field.kind.expected}, got null at {path}")
        try:
            setattr(row, column.name, field.limits(field.kind.coerce(value)))
        except ConversionError as misfit:
            raise misfit.at(path) from None
    check_version(row, latest(now_ms))
