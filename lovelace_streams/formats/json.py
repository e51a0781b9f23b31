"""JSON messages to raw items: which events hold which items, and where.

    EVENTS = Events("type", {"order": Items("order", Order), "orders": Items("batch", Order)}, Skip("unknown_event"))
    decoder = JsonDecoder(EVENTS)      # or JsonDecoder(Order), where a message is one item

Only what the rows ask for is decoded, into Structs derived from their paths. A message that these refuse is parsed
plainly and its items are interpreted one by one, so that one bad member does not cost its chunk (law 7).
"""

from collections.abc import Callable, Iterable
from typing import Any, Union

import msgspec
from msgspec import UNSET, Raw

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.items import emit_items, fail_message, items_at
from lovelace_streams.formats.limits import DEEP_BYTES_MIN, SHALLOW_BYTES, check_depth, check_utf8
from lovelace_streams.records import DeadLetter, Envelope, Reason, Record, SkipReason
from lovelace_streams.rows.normalizer import Message, RawItem
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target
from lovelace_streams.rows.values import json_type_name, parse


class JsonDecoder:
    """Decodes one record at a time; holds nothing between records. `what` is a row class, a function, or `Events`."""

    waits = False
    """It asks nobody."""

    def __init__(self, what: type[Row] | Events | MapFunction) -> None:
        self._events = what if isinstance(what, Events) else None
        found = what.events if isinstance(what, Events) else {"": Items("$", what)}
        made: dict[tuple[Any, str], Target] = {}
        for items in found.values():
            made.setdefault((items.row, items.path), Target(items.row, items.path))
        self._targets = {name: made[items.row, items.path] for name, items in found.items()}
        self._elements = {
            id(target): msgspec.json.Decoder(target.element_type).decode for target in made.values() if target.typed
        }
        self._head: Callable[[bytes], Any] | None = None
        """Reads an event's name alone."""
        self._locations: dict[type, tuple[Target, Callable[[Any], Any] | None]] = {}
        """The Struct of a message → its target, and what takes the items out of it."""
        self._decode_typed = self._typed_decode()

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[tuple[SkipReason, Envelope[Any]]],
        step: str = "decode",
    ) -> None:
        """Append the record's items to the three lists, and set `record.items`; raises nothing.

        What ends a message whole (it does not decode, holds no items, or another number than its header says) counts
        as many items as the header says, one without a header. Of a replay only the items that it names are taken.
        """
        self._decode(self._read, record, oks, errs, skipped, step)

    def _decode(
        self,
        read: Callable[[Any], RawItem | list[RawItem] | SkipReason],
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[tuple[SkipReason, Envelope[Any]]],
        step: str,
    ) -> None:
        try:
            found = read(record.value)
        except RecordFault as fault:
            fail_message(record, errs, step, fault)
            return
        emit_items(record, [found] if isinstance(found, RawItem) else found, oks, errs, skipped, step)

    def decode_all(
        self,
        window: Iterable[Envelope[bytes]],
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[tuple[SkipReason, Envelope[Any]]],
        step: str = "decode",
    ) -> None:
        """`decode` for each: in one loop for a message that holds one item and decodes by type, as nearly all do."""
        decode, locations, add = self._decode_typed or _no_type, self._locations, oks.append
        for envelope in window:
            record = envelope.record
            value = record.value
            if value is None:
                self.decode(record, oks, errs, skipped, step)
                continue
            try:
                if not value.isascii():
                    check_utf8(value)
                size = len(value)
                if size > SHALLOW_BYTES and size + 3 * (value.rfind(b"[") - value.find(b"[")) > DEEP_BYTES_MIN:
                    check_depth(value)
                root = decode(value)
                target, locate = locations[root.__class__]
                node = root if locate is None else locate(root)
            except RecordFault as fault:
                fail_message(record, errs, step, fault)
                continue
            except _REFUSALS:
                self._decode(self._decode_untyped, record, oks, errs, skipped, step)
                continue
            if (
                node is not None
                and node is not UNSET
                and node.__class__ is not list
                and (record.declared is None or record.declared == 1)
                and record.origin is None
                and (_BACKSLASH not in value or _NUL not in value)
            ):
                record.items = 1
                add(Envelope(record, 0, RawItem(target, node, root, value)))
            elif (found := self._items(target, root, node, value)) is not None:
                emit_items(record, found, oks, errs, skipped, step)
            else:
                self.decode(record, oks, errs, skipped, step)

    def _typed_decode(self) -> Callable[[bytes], Any] | None:
        """A function from a message to its Struct, that raises `DecodeError` for all else; None if all is plain.

        The event's name is the tag of a union, which decodes in one pass; a field of its own, found in a pass before,
        where a row reads that field as anything but text.
        """
        targets = {name: target for name, target in self._targets.items() if target.typed}
        if not targets:
            return None
        if self._events is None:
            (target,) = targets.values()
            return msgspec.json.Decoder(self._message_type(target)).decode
        field = self._events.field
        event = msgspec.defstruct("Event", [("name", str | None, None)], rename={"name": field}, gc=False)
        head: Callable[[bytes], Any] = msgspec.json.Decoder(event).decode
        self._head = head
        if all(target.takes_tag(field) for target in targets.values()):
            types = [self._message_type(target, tag_field=field, tag=name) for name, target in targets.items()]
            if len(types) == 1:  # alone, a Struct is taken for what a message is that has no tag; in a union it is not
                types.append(msgspec.defstruct("Another", [], tag_field=field, tag=f"not {next(iter(targets))}"))
            return msgspec.json.Decoder(Union[tuple(types)]).decode  # noqa: UP007
        decoders = {n: msgspec.json.Decoder(self._message_type(t)).decode for n, t in targets.items()}

        def by_head(value: bytes) -> Any:
            decode = decoders.get(head(value).name)
            if decode is None:
                raise msgspec.ValidationError
            return decode(value)

        return by_head

    def _message_type(self, target: Target, **options: Any) -> type[msgspec.Struct]:
        made = target.message_type(**options)
        self._locations[made] = target, target.locate
        return made

    def _read(self, value: bytes | None) -> RawItem | list[RawItem] | SkipReason:
        """What a message holds; raises `RecordFault`, but only after the plain way was tried.

        msgspec refuses a lone surrogate anywhere in a message and takes bytes that are not UTF-8 in fields that nobody
        reads; that no NUL is in it is what the generated mapping relies on.
        """
        if value is None:
            return SkipReason.TOMBSTONE
        if not value.isascii():
            check_utf8(value)
        if len(value) > SHALLOW_BYTES:
            check_depth(value)
        if self._decode_typed is not None:
            try:
                root = self._decode_typed(value)
                target, locate = self._locations[root.__class__]
                found = self._items(target, root, root if locate is None else locate(root), value)
            except _REFUSALS:
                return self._decode_untyped(value)
            if found is not None:
                return found
        return self._read_plainly(value)

    def _decode_untyped(self, value: bytes) -> RawItem | list[RawItem] | SkipReason:
        """What a message holds that decoding by type refused; raises `RecordFault`."""
        return self._otherwise if self._is_unknown_event(value) else self._read_plainly(value)

    def _is_unknown_event(self, value: bytes) -> bool:
        """Whether a message names an event that is none of ours, as far as that shows without reading all of it."""
        try:
            return self._head is not None and self._head(value).name not in self._targets
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def _items(self, target: Target, root: Any, node: Any, value: bytes) -> list[RawItem] | None:
        """The items of a message that decoded by type; None where it is to be read plainly."""
        nul = _BACKSLASH in value and _NUL in value  # one byte is found quicker than six
        if node.__class__ is list:
            return self._items_of(target, root, node, Message(value), nul=nul)
        if nul or node is None or node is UNSET:
            return None  # the plain way says what it is
        return [RawItem(target, node, root, value)]

    def _items_of(self, target: Target, root: Any, raws: list[Raw], message: Message, *, nul: bool) -> list[RawItem]:
        decode = self._elements[id(target)]
        items = []
        for raw in raws:
            item = None
            if not (nul and _NUL in bytes(raw)):
                try:
                    item = decode(raw)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    item = None  # it is interpreted, alone
            items.append(RawItem(target, item, root, raw, message))
        return items

    def _read_plainly(self, value: bytes) -> RawItem | list[RawItem] | SkipReason:
        root = parse(value)
        if not isinstance(root, dict):
            raise RecordFault(Reason.WRONG_TYPE, f"expected object, got {json_type_name(root)} at $")
        name = "" if self._events is None else root.get(self._events.field)
        target = self._targets.get(name) if isinstance(name, str) else None
        if target is None:
            return self._otherwise
        return items_at(target, root, value)

    @property
    def _otherwise(self) -> SkipReason:
        return SkipReason.UNKNOWN_EVENT if self._events is None else self._events.otherwise


_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError, KeyError)
"""What decoding by type and locating the items raise, where the plain way says what it is."""


def _no_type(value: bytes) -> Any:
    """Stands for a decoder where all messages are read plainly."""
    raise msgspec.DecodeError


_BACKSLASH, _NUL = ord("\\"), b"\\u0000"
