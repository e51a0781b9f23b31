"""JSON messages → raw items.

    EVENTS = Events("type", {"order": Items("order", Order), "orders": Items("batch", Order)}, Skip("unknown_event"))
    decoder = JsonDecoder(EVENTS)      # or JsonDecoder(Order), if every message is one item
                                       # or JsonDecoder(Items("$", Order)), if a message may be a list of them

There are two ways. Nearly every message is decoded by type: into a Struct derived from the paths of the rows, which has
only what they read. A message that this refuses is read plainly, and its items are interpreted one by one. So one bad
member does not cost its chunk (law 7), and the plain way names what is wrong.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Union

import msgspec
from msgspec import UNSET, Raw, UnsetType

from lovelace_streams.columns import ColumnLoop
from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.column_loops import loops_of
from lovelace_streams.formats.decoder import Skipped
from lovelace_streams.formats.events import EventName, Events, EventTargets, Items
from lovelace_streams.formats.items import Found, emit_items, fail_message
from lovelace_streams.formats.json_columns import JsonLoop, Lists, RawItems
from lovelace_streams.formats.limits import NUL, check_text, has_nul
from lovelace_streams.records import DeadLetter, Envelope, Record, SkipReason
from lovelace_streams.rows.decode_types import can_be_decoded
from lovelace_streams.rows.normalizer import Message, Normalizer, RawItem
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target
from lovelace_streams.rows.values import INT_MAX, INT_MIN, parse

REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError, KeyError)
"""Raised by decoding by type, or by locating the items in a Struct: the message is read plainly."""
Locations = dict[type, tuple[Target, Callable[[Any], Any] | None]]
"""The Struct of a message → its target, and what takes the items out of it. `list`: a list of items."""


class JsonDecoder:
    """Decodes JSON messages into items of a row class, of a function, or of `Events`. Holds nothing between messages.

    Raises `TypeError` for a row class with a column that can't be.

    >>> from lovelace_streams import JsonDecoder, Record, Row
    >>> class User(Row, table="users", primary_key="id"):
    ...     id: int
    >>> oks, errs, skipped = [], [], []
    >>> JsonDecoder(User).decode(Record("users", 0, 0, 0, 1, None, b'{"id": 7}', [], -1), oks, errs, skipped)
    >>> [envelope.payload.plain()[0] for envelope in oks]
    [{'id': 7}]
    """

    waits = False
    """It asks no server."""

    def __init__(self, what: type[Row] | Items | Events | MapFunction) -> None:
        self._events = EventTargets(what)
        self.skips = self._events.skips
        """The reasons of the flow's own that messages are skipped for."""
        self._element_decoders = {
            id(target): msgspec.json.Decoder(target.element_type).decode
            for target in self._events.targets
            if target.typed
        }
        self._locations: Locations = {}
        self._decode_name: Callable[[bytes], Any] | None = None
        """Decodes nothing but the name of the event, as `name`; None if the messages of all events are read plainly."""
        self._decode_typed = self._typed_decode(self._locations)

    @property
    def targets(self) -> dict[EventName, Target]:
        """Event → where its items are and what they become; "" if no event is named."""
        return self._events.by_event

    def needs_items(self, normalizer: Normalizer) -> dict[str, str]:
        """Say of each event why its items are mapped one by one; see `SupportsColumns`."""
        return {str(name): normalizer.needs_items(target) for name, target in self.targets.items()}

    def column_loop(self, normalizer: Normalizer) -> ColumnLoop:
        """Make what decodes and maps a chunk's messages at once."""
        loops = loops_of(self._events, normalizer)
        locations: Locations = {}
        decode = self._typed_decode(locations, listed=True)
        by_kind = {
            kind: loops[id(target)]
            for kind, (target, _) in (locations | self._locations).items()
            if id(target) in loops
        }
        raw_locations: Locations = {}
        raws = RawItems(self._typed_decode(raw_locations, raw=True), raw_locations)
        return JsonLoop(decode, by_kind, Lists(self._decode_typed, self._locations), raws)

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Append the record's items to the three lists, and set `record.items`; raises nothing.

        A message fails as a whole if it does not decode, holds no items, or holds another number than its header says:
        it counts as many items as the header says, 1 without one. Of a replay only the items that it names are taken.
        """
        self.decode_all((Envelope(record, 0, b""),), oks, errs, skipped, step)

    def decode_all(
        self,
        window: Iterable[Envelope[bytes]],
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Do what `decode` does for each, in one loop: the usual message, one item that is decoded by type, costs few
        calls.

        Some checks are here because msgspec has none. It checks UTF-8 only in the fields that it decodes, and accepts
        an escaped NUL; the generated mapping expects that a typed item has none.
        """
        decode, locations, add = self._decode_typed, self._locations, oks.append
        for envelope in window:
            record = envelope.record
            value = record.value
            if value is None:
                emit_items(record, SkipReason.TOMBSTONE, oks, errs, skipped, step)
                continue
            try:
                check_text(value)
                root = decode(value)
                target, locate = locations[root.__class__]
                node = root if locate is None else locate(root)
            except RecordFault as fault:
                fail_message(record, errs, step, fault)
                continue
            except REFUSALS:
                self._decode_plainly(record, value, oks, errs, skipped, step)
                continue
            if (
                node is not None
                and node is not UNSET
                and node.__class__ is not list
                and (record.declared is None or record.declared == 1)
                and record.origin is None
                and not has_nul(value)
            ):
                record.items = 1
                add(Envelope(record, 0, RawItem(target, node, root, value)))
            elif (found := self._typed_items(target, root, node, value)) is not None:
                emit_items(record, found, oks, errs, skipped, step)
            else:
                self._decode_plainly(record, value, oks, errs, skipped, step)

    # -- the typed way ------------------------------------------------------------------------------------------------

    def _typed_items(self, target: Target, root: Any, node: Any, value: bytes) -> RawItem | list[RawItem] | None:
        """Make items of a message that was decoded by type; None if it has to be read plainly."""
        with_nul = has_nul(value)
        if node.__class__ is list:
            return self._list_items(target, root, node, Message(value), with_nul=with_nul)
        if with_nul or node is None or node is UNSET:
            return None
        return RawItem(target, node, root, value)

    def _list_items(
        self, target: Target, root: Any, raws: list[Raw], message: Message, *, with_nul: bool
    ) -> list[RawItem]:
        """Make items of a list, each decoded by itself; one that is refused, or has a NUL, is left to interpret."""
        decode = self._element_decoders[id(target)]
        items = []
        for raw in raws:
            item = None
            if not (with_nul and NUL in bytes(raw)):
                try:
                    item = decode(raw)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    item = None
            items.append(RawItem(target, item, root, raw, message))
        return items

    def _typed_decode(self, locations: Locations, *, listed: bool = False, raw: bool = False) -> Callable[[bytes], Any]:
        """Make a function from a message to its Struct, which raises one of `REFUSALS` for any other message.

        It notes the Structs in `locations`. `listed`: the items of a list are Structs, too. `raw`: no value has a type.
        """
        typed = {name: target for name, target in self._events.by_event.items() if target.typed}
        field = self._events.field
        if not typed or field == "" or not can_be_decoded(field or ""):
            return _refuse
        if field is None:
            (target,) = typed.values()
            message: Any = _message_type(target, locations, listed=listed, raw=raw)
            if self._events.takes_list:
                locations[list] = target, None
                message = Union[message, list[target.element_type if listed else Raw]]  # type: ignore[misc]  # noqa: UP007
            return msgspec.json.Decoder(message).decode
        name = ("name", str | int | None | UnsetType, UNSET)
        event = msgspec.defstruct("Event", [name], rename={"name": field}, gc=False)
        self._decode_name = msgspec.json.Decoder(event).decode
        if self._can_be_tags(field, typed):
            types = [
                _message_type(target, locations, listed=listed, raw=raw, tag_field=field, tag=name)
                for name, target in typed.items()
            ]
            return _decode_by_tag(types, field, next(iter(typed)))
        by_name = {name: _message_type(target, locations, listed=listed, raw=raw) for name, target in typed.items()}
        return _decode_by_name(self._decode_name, by_name)

    def _can_be_tags(self, field: str, typed: dict[EventName, Target]) -> bool:
        """Whether the names are tags as msgspec has them, and the rows read the field as it is."""
        [kind, *others] = {type(name) for name in typed}
        if others or (kind is int and not all(INT_MIN <= int(name) <= INT_MAX for name in typed)):
            return False
        return all(target.takes_tag(field, kind) for target in typed.values())

    # -- the plain way ------------------------------------------------------------------------------------------------

    def _decode_plainly(
        self,
        record: Record,
        value: bytes,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str,
    ) -> None:
        try:
            found = self._plain_items(value)
        except RecordFault as fault:
            fail_message(record, errs, step, fault)
            return
        emit_items(record, found, oks, errs, skipped, step)

    def _plain_items(self, value: bytes) -> Found:
        """Find the items; of a message of another event no more is read than its name."""
        if self._decode_name is not None:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                name = self._decode_name(value).name
                if name not in self._events.by_event:
                    return self._events.without_items(name)
        return self._events.items_of(parse(value), value)


def _message_type(target: Target, locations: Locations, **options: Any) -> type[msgspec.Struct]:
    message_type = target.message_type(**options)
    locations[message_type] = target, target.locate
    return message_type


def _decode_by_tag(types: list[type[msgspec.Struct]], field: str, name: EventName) -> Callable[[bytes], Any]:
    """Decode in one pass: the name of the event is the tag of a union."""
    if len(types) == 1:  # msgspec takes a message without a tag for a Struct that is alone; in a union it does not
        another = f"not {name}" if isinstance(name, str) else int(not name)
        types.append(msgspec.defstruct("Another", [], tag_field=field, tag=another))
    return msgspec.json.Decoder(Union[tuple(types)]).decode  # noqa: UP007


def _decode_by_name(
    decode_name: Callable[[bytes], Any], types: dict[EventName, type[msgspec.Struct]]
) -> Callable[[bytes], Any]:
    """Decode in two passes, the first for the name: some row reads that field as another type than the name's."""
    decoders = {name: msgspec.json.Decoder(kind).decode for name, kind in types.items()}

    def decode(value: bytes) -> Any:
        return decoders[decode_name(value).name](value)

    return decode


def _refuse(value: bytes) -> Any:
    """Stand in for typed decoding where all messages are read plainly."""
    raise msgspec.DecodeError
