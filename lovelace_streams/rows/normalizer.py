"""Raw items → rows: by the generated function if it accepts the item, else by the interpreter, or by a user's function.

A decoder makes `RawItem`s, each with the Struct that it decoded and with a way to the plain values. `Normalizer` maps
them, one at a time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from lovelace_streams.errors import DeploymentFault, LovelaceError, RecordFault
from lovelace_streams.records import Envelope, Reason, skip_reasons
from lovelace_streams.rows.codegen import Generated
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.functions import apply
from lovelace_streams.rows.interpreter import interpret, latest
from lovelace_streams.rows.json_values import Digits
from lovelace_streams.rows.loops import items_only
from lovelace_streams.rows.paths import find
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target
from lovelace_streams.rows.values import parse

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


def normalizer(*targets: type[Row] | MapFunction | Sequence[type[Row]], skips: Iterable[str] = ()) -> "Normalizer":
    """Make the normalizer of row classes, alone or in sequences, or of one function.

    `skips` are the reasons of the flow's own that functions may skip an item for. Raises `TypeError` for a row class
    that can't be mapped or a function that can't be called, `ValueError` for a reason that can't be one.
    """
    classes = (what for target in targets for what in (target if isinstance(target, Sequence) else (target,)))
    return Normalizer(*classes, skips=skips)


class Normalizer:
    """Makes rows of raw items, as the decoder's target says: of its row class, or by its function.

    `targets` say what is expected: row classes, by their tables (the function of an event may return rows of any). A
    single function replaces the decoder's target.
    """

    def __init__(self, *targets: type[Row] | MapFunction, skips: Iterable[str] = ()) -> None:
        self._skips = skip_reasons(skips)
        expected = [Target(what) for what in targets]
        self._tables = {target.row.__table__.name for target in expected if target.row is not None}
        functions = [target for target in expected if target.function is not None]
        self._function = functions[0] if len(functions) == len(expected) == 1 else None

    @property
    def items_only(self) -> str:
        """Why every item is mapped one by one; "" if the row classes of the targets map them."""
        return f"items become rows by a function, {self._function.name}" if self._function is not None else ""

    def normalize(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """Return the row or rows of an item, or why it is skipped; `now_ms` is milliseconds since 1970.

        Raises `RecordFault` if the item does not fit, `DeploymentFault` as `generated` does.
        """
        raw = envelope.payload
        generated = self.generated(raw.target)
        if generated is not None and raw.item is not None:
            try:
                return generated(raw.item, raw.root, envelope.record, latest(now_ms))
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001, S110 - whatever it raised, the interpreter says what is wrong
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

    def needs_items(self, target: Target) -> str:
        """Say why the items of a decoder's target are mapped one by one; "" if a loop maps them (`rows.loops`).

        >>> from lovelace_streams import Row
        >>> class Order(Row, table="orders", primary_key="id"):
        ...     id: int
        >>> normalizer(Order).needs_items(Target(Order)), normalizer(Order).needs_items(Target(lambda order: order))
        ('', 'items become rows by a function, <lambda>')
        """
        if reason := self.items_only or items_only(target):
            return reason
        try:
            return "" if self.generated(target) is not None else f"{target.name} has too many paths for a field"
        except DeploymentFault as fault:
            return str(fault)

    def interpret(self, envelope: Envelope[RawItem], now_ms: int) -> Row | tuple[Row, ...] | Skip:
        """Do what `normalize` does, for an item that no generated function accepts."""
        raw = envelope.payload
        target = self._function or raw.target
        try:
            item, root = raw.plain()
            if target.function is not None:
                digits = Digits()
                values = digits.hidden(item), digits.hidden(root)
                return apply(target.function, target.takes, *values, envelope.record, now_ms, self._skips, digits)
            assert target.row is not None
            row: Row = interpret(target.row, item, envelope.record, root, now_ms, raw.base, partial=target.partial)
        except LovelaceError:
            raise
        except RecursionError:
            raise RecordFault(Reason.TOO_DEEP) from None
        except Exception as error:  # a mistake of ours that one record found: it must not stop the other records
            raise RecordFault(Reason.BAD_VALUE, f"{type(error).__name__} where it is interpreted") from error
        return row
