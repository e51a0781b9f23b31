"""Avro messages → raw items: `AvroDecoder`, and `JsonOrAvro` for a topic with both.

For each schema that wrote messages (`framing`) there is one function that reads them, for what the rows ask for
(`reading`). Its value is then decoded by type, for the generated mapping, where JSON could have given the same value.
The messages of a window that have one schema are read together where that is certain to give the same (`columns`).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import repeat
from typing import Any

import msgspec

from lovelace_streams.columns import Chunk, ColumnLoop, Mapped
from lovelace_streams.errors import DestinationFault, RecordFault
from lovelace_streams.formats.avro.arrow import UnsupportedSchema
from lovelace_streams.formats.avro.chunk_reader import ChunkReader
from lovelace_streams.formats.avro.column_loop import AvroLoop
from lovelace_streams.formats.avro.columns import Columns, columns_are_known, load_libraries
from lovelace_streams.formats.avro.framing import Framing, SchemaSource, framing_of
from lovelace_streams.formats.avro.paths import ImpossiblePath, impossible_paths
from lovelace_streams.formats.avro.reading import Read, Wanted, reading
from lovelace_streams.formats.avro.registry import NoSchema
from lovelace_streams.formats.avro.schema import Node, Schema, load
from lovelace_streams.formats.column_loops import loops_of
from lovelace_streams.formats.decoder import Skipped
from lovelace_streams.formats.events import EventName, Events, EventTargets, Items
from lovelace_streams.formats.items import Found, emit_items, fail_message
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import DeadLetter, Envelope, Reason, Record, SkipReason
from lovelace_streams.rows.normalizer import Normalizer, RawItem
from lovelace_streams.rows.paths import find
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target

UNKNOWN_SECONDS = 60.0
"""An id that the registry does not know is not asked for again for this time."""
GRACE_SECONDS = 3600.0
"""How long a schema is waited for that the registry does not give, while it gives others."""
TOGETHER_MIN = 16
"""Fewer messages of one schema in a window are read one by one."""
READERS_MAX = 1000
"""Writers' schemas that are kept compiled. Beyond that the oldest is dropped."""


class AvroDecoder:
    """Decodes Avro messages into items. The schema of an id is asked for once, and compiled for what the rows read.

    - `source` tells which schema wrote a message: a schema (messages are bare), the http address of a registry
      (Confluent's frame), `SingleObject(…)`, or a `Framing`.
    - `what` are the items, as for `JsonDecoder`.
    - `reader` is the flow's own schema. Data is resolved to it: defaults, promotions, aliases. A record of another name
      is a dead letter `unknown_schema`. Without a reader the writer's schema is taken as it is.
    - `timeout` is in seconds, for each request to the registry.
    - `at_once`: read messages of a window together where that is certain to give the same, if the extra `avro-columns`
      is installed.

    Raises `DeploymentFault` for a schema that can't be used. docs/avro.md has examples and all that a dead letter says.
    """

    def __init__(
        self,
        source: SchemaSource | Framing,
        what: type[Row] | Items | Events | MapFunction,
        *,
        reader: SchemaSource | None = None,
        timeout: float = 10.0,
        at_once: bool = True,
    ) -> None:
        self.framing = framing_of(source, timeout)
        self.waits = self.framing.waits
        self.reader = load(reader) if reader is not None else None
        self._at_once = at_once and columns_are_known()
        self._events = EventTargets(what)
        self.skips = self._events.skips
        """The reasons of the flow's own that messages are skipped for."""
        self._types = {id(target): target.message_type() for target in self._events.targets if target.typed}
        self._wanted = _wanted_by(self._events)
        self._reads: dict[Any, Read] = {}
        """Key of a writer's schema → the function that reads one message of it."""
        self._columns: dict[Any, Columns | None] = {}
        """The same key → what reads many; None if they have to be read one by one."""
        self._unknown: dict[Any, tuple[float, str]] = {}
        """Key without a usable schema → when it is asked for again, and why there is none."""
        self.grace = GRACE_SECONDS
        self._failing: dict[Any, float] = {}
        """Key that the registry does not answer for → since when, as long as it answers for others."""
        self._reader = ChunkReader(self._known_together)
        self._in_vain: set[int] = set()
        """Ids of values of this chunk that were read at once in vain: they are read one by one."""
        self._ahead: dict[int, ColumnItem] = {}
        """Id of a record of this window → its item, read together with others."""
        self._waiting: dict[Any, tuple[int, list[Record]]] = {}
        """Key that was not asked for yet → where the datum begins, and the records of this window that wait for it."""

    @property
    def targets(self) -> dict[EventName, Target]:
        """Event → where its items are and what they become; "" if no event is named."""
        return self._events.by_event

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """The flow's own schemas: the reader, and those of bare data or single objects."""
        return (*((self.reader,) if self.reader is not None else ()), *self.framing.schemas)

    def check_paths(self) -> None:
        """Raise `ImpossiblePath` if the rows read a path that the flow's own schemas, where it has some, do not."""
        schemas = [self.reader] if self.reader is not None else self.framing.schemas
        if not schemas:
            return
        roots = [schema.root for schema in schemas]
        found = list(impossible_paths(self._events.field, self._events.targets, roots))
        if found:
            names = " or ".join(root.shown for root in roots)
            raise ImpossiblePath(f"no message of {names} has {'; '.join(found)}: correct the path, or the schema")

    def check(self) -> str:
        """Check that the registry answers, if there is one; raises `DestinationFault` or `DeploymentFault`."""
        check = getattr(self.framing, "check", None)
        return str(check()) if check is not None else "schemas are the flow's own"

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Append the record's items to the three lists, and set `record.items`, as `JsonDecoder.decode` does.

        Raises `DestinationFault` if the registry does not answer, `DeploymentFault` if it refuses the credentials or
        the address. Nothing was appended then: the caller decodes the record again.
        """
        ahead = self._ahead.pop(id(record), None)
        if ahead is not None and ahead.text is not record.value:  # of an earlier record, which was not decoded
            ahead = None
        if ahead is not None and record.origin is None and record.declared in (None, 1):
            record.items = 1  # as `emit_items` would do, which costs 0.8 µs more, of 4 for a message read at once
            oks.append(Envelope(record, 0, ahead))
            return
        try:
            found = ahead or self._items(record.value)
        except RecordFault as fault:
            fail_message(record, errs, step, fault)
            return
        emit_items(record, found, oks, errs, skipped, step)

    # -- one by one ---------------------------------------------------------------------------------------------------

    def _items(self, value: bytes | None) -> Found:
        if value is None:
            return SkipReason.TOMBSTONE
        key, start = self.framing.named(value)
        read = self._reads.get(key) or self._compiled(key)
        root = read(value, start)
        found = self._events.items_of(root, value, "record")
        if read.unlike_json:
            return found
        if isinstance(found, RawItem):
            self._convert(found)
        elif isinstance(found, list):
            self._convert_list(found)
        return found

    def _convert(self, raw: RawItem) -> None:
        """Decode the item by type, for the generated mapping. One that does not fit is interpreted, which says why."""
        target = raw.target
        if not target.typed:
            return
        try:
            root = msgspec.convert(raw.plain_root, self._types[id(target)])
        except (msgspec.ValidationError, RecursionError):
            return
        item = target.item_of(root)
        if item is not None:
            raw.item, raw.root = item, root

    def _convert_list(self, raws: list[RawItem]) -> None:
        """Decode the items of a list by type, each by itself; and their message once, without them."""
        if not raws or not raws[0].target.typed:
            return
        target = raws[0].target
        try:
            root = target.path and msgspec.convert(
                _without_items(raws[0].plain_root, target.path), self._types[id(target)]
            )
        except (msgspec.ValidationError, RecursionError):
            return
        for raw in raws:
            try:
                raw.item = msgspec.convert(raw.plain_item, target.element_type)
            except (msgspec.ValidationError, RecursionError):
                continue
            raw.root = root

    # -- many at once -------------------------------------------------------------------------------------------------

    def look_ahead(self, records: Sequence[Record]) -> None:
        """Read together what can be read so, of the records that `decode` is given next; raises nothing.

        Records whose schema was not asked for yet wait until `decode` has asked, because that may have to wait.
        """
        self._ahead, self._waiting = {}, {}
        in_vain, self._in_vain = self._in_vain, set()
        records = [record for record in records if id(record.value) not in in_vain] if in_vain else records
        for key, start, indexes in self._together([record.value for record in records]):
            self._read_ahead(key, start, [records[index] for index in indexes])

    def _together(self, values: Sequence[bytes | None]) -> Iterator[tuple[Any, int, Sequence[int]]]:
        """Yield the key of each schema that wrote enough values, where their data begin, and their indexes."""
        size = getattr(self.framing, "size", None)
        if size is None or not values:  # a framing of the user's own may not say
            return
        for indexes in _by_frame(values, size):
            if len(indexes) >= TOGETHER_MIN:
                try:
                    key, start = self.framing.named(values[indexes[0]] or b"")
                except RecordFault:
                    continue
                yield key, start, indexes

    def _read_ahead(self, key: Any, start: int, records: list[Record]) -> None:
        """Read records of one schema, whose data begin at `start`."""
        read = self._reads.get(key)
        if read is None:
            self._waiting[key] = start, records
            return
        columns = self._columns[key]
        if columns is None:
            return
        values = [record.value or b"" for record in records]
        messages = columns.read([value[start:] for value in values] if start else values)
        targets = self._events.by_event
        for record, value, message in zip(records, values, messages, strict=True):
            if message is not None:
                event, root = message
                target = targets[event]
                item = target.item_of(root)
                if item is not None:
                    self._ahead[id(record)] = ColumnItem(target, item, root, value, read=read, start=start)

    def needs_items(self, normalizer: Normalizer) -> dict[str, str]:
        """Say of each event why its items are mapped one by one, as far as that is known of the flow's own schemas."""
        one_by_one = self._one_by_one()
        refused = {} if one_by_one else self._refused_events()
        return {
            str(name): normalizer.needs_items(target) or one_by_one or refused[str(name)]
            for name, target in self.targets.items()
        }

    def column_loop(self, normalizer: Normalizer) -> ColumnLoop:
        """Make what decodes and maps a chunk's messages at once."""
        if self._at_once:
            load_libraries()
        return AvroLoop(self._reader, self.targets, loops_of(self._events, normalizer), self._read_in_vain)

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Hear of the chunks that the loop is called for next."""
        self._reader.expect(chunks)

    def _one_by_one(self) -> str:
        """Say why all messages are read one by one; "" if some may be read at once."""
        if not columns_are_known():
            return "the extra avro-columns is not installed"
        if not self._at_once:
            return "AvroDecoder reads one by one: at_once=False"
        has_size = getattr(self.framing, "size", None) is not None  # a framing of the user's own may not say
        return "" if has_size else f"{type(self.framing).__name__} has no size"

    def _refused_events(self) -> dict[str, str]:
        """Say of each event why messages of the flow's own schemas are read one by one; "" if some are not."""
        reasons = dict.fromkeys(map(str, self.targets), "")
        for schema in (self.reader,) if self.reader is not None else self.framing.schemas:
            try:
                refused = self._by_columns(schema).refused
            except UnsupportedSchema as error:
                refused = dict.fromkeys(self.targets, str(error))
            reasons = {str(name): refused.get(name, "") for name in self.targets}
            if not all(reasons.values()):
                break
        return reasons

    def _known_together(self, values: Sequence[bytes | None]) -> Iterator[tuple[Columns, int, Sequence[int]]]:
        """Yield what reads values at once, where their data begin, and their indexes; without those it must ask for."""
        self._in_vain = set()
        for key, start, indexes in self._together(values):
            if key not in self._reads and not self.waits:
                with suppress(RecordFault):
                    self._compiled(key)
            columns = self._columns.get(key)
            if columns is not None:
                yield columns, start, indexes

    def _read_in_vain(self, values: Sequence[bytes | None]) -> None:
        """Note values that were read at once in vain, so that `look_ahead` does not try them again."""
        self._in_vain = set(map(id, values))

    # -- schemas ------------------------------------------------------------------------------------------------------

    def _compiled(self, key: Any) -> Read:
        """Return the function for a writer's schema, made once; raises as `Framing.schema`, `RecordFault` for none."""
        ask_at, why = self._unknown.get(key, (0.0, ""))
        if time.monotonic() < ask_at:
            raise RecordFault(Reason.UNKNOWN_SCHEMA, why)
        try:
            schema = self.framing.schema(key)
            read = self._reading(schema, key)
        except NoSchema as error:
            raise self._no_schema(key, str(error)) from None
        except DestinationFault as fault:
            if self._has_waited_for(key):
                why = f"the registry does not give schema {key} ({fault.code}), and gives others, for {self.grace:g} s"
                raise self._no_schema(key, why) from None
            raise
        self._failing.pop(key, None)
        if len(self._reads) >= READERS_MAX:
            oldest = next(iter(self._reads))
            del self._reads[oldest], self._columns[oldest]
        self._reads[key] = read
        self._columns[key] = self._columns_of(schema)
        if key in self._waiting:
            self._read_ahead(key, *self._waiting.pop(key))
        return read

    def _no_schema(self, key: Any, why: str) -> RecordFault:
        """Note that there is no usable schema, and return the fault of its messages."""
        if len(self._unknown) >= READERS_MAX:
            self._unknown.pop(next(iter(self._unknown)))
        self._unknown[key] = (time.monotonic() + UNKNOWN_SECONDS, why)
        return RecordFault(Reason.UNKNOWN_SCHEMA, why)

    def _has_waited_for(self, key: Any) -> bool:
        """Whether the registry has answered for others, and not for this key, for as long as it is waited for.

        If it answers for none it is an outage, after which the time begins anew.
        """
        answers_another = getattr(self.framing, "answers_another", None)
        if answers_another is None or not answers_another(key):
            self._failing.pop(key, None)
            return False
        if key not in self._failing and len(self._failing) >= READERS_MAX:
            self._failing.pop(next(iter(self._failing)))
        return time.monotonic() - self._failing.setdefault(key, time.monotonic()) >= self.grace

    def _reading(self, writer: Schema, key: Any) -> Read:
        reader = self.reader or writer
        if not _is_same_record(reader.root, writer.root):
            which = f"schema {key} is of" if isinstance(key, int) else "it is of"
            raise NoSchema(f"{which} {writer.root.shown}, the flow reads {reader.root.shown}")
        try:
            return reading(writer.root, reader.root, self._wanted)[0]
        except (RecursionError, SyntaxError, MemoryError):
            raise NoSchema("a schema that is too large") from None

    def _columns_of(self, writer: Schema) -> Columns | None:
        with suppress(UnsupportedSchema):
            return self._by_columns(writer) if self._at_once else None
        return None

    def _by_columns(self, writer: Schema) -> Columns:
        """Return what reads many messages of a schema; raises `UnsupportedSchema` if they are read one by one."""
        return Columns(writer, self.reader or writer, self._wanted, self.targets, self._types, self._events.field)


class ColumnItem(RawItem):
    """An item that was read together with others. Its plain values are read one by one, if they are asked for."""

    read: Read | None = None
    start: int = 0
    """Where the datum begins in the message."""

    def plain(self) -> tuple[Any, Any]:
        """Return item and message as plain values."""
        assert self.read is not None
        root = self.read(self.text, self.start)
        return find(root, self.target.path), root


def _by_frame(values: Sequence[bytes | None], size: int) -> Iterable[Sequence[int]]:
    """Return the indexes of values whose first bytes are the same."""
    frame = (values[0] or b"")[:size]
    with suppress(TypeError):  # None among them
        if len(frame) == size and all(map(bytes.startswith, values, repeat(frame))):  # type: ignore[arg-type]
            return (range(len(values)),)
    by_frame: dict[bytes, list[int]] = {}
    for index, value in enumerate(values):
        if value is not None:
            by_frame.setdefault(value[:size], []).append(index)
    return by_frame.values()


def _is_same_record(reader: Node, writer: Node) -> bool:
    """Whether the writer's record is the reader's, by full name or alias. At the top a last name is not enough."""
    if reader.kind == writer.kind == "array":
        return _is_same_record(reader.inner[0], writer.inner[0])
    if reader.kind != "record" or writer.kind != "record":
        return reader.kind == writer.kind
    return writer.name in (reader.name, *reader.aliases)


def _without_items(root: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the message with an empty list where its items are."""
    name, *below = path
    return root | {name: _without_items(root[name], tuple(below)) if below else []}


# ---- what the rows read ---------------------------------------------------------------------------------------------


def _wanted_by(events: EventTargets) -> Wanted | None:
    """Return the names that the rows read, with what they read below each; None: all, for a function sees all."""
    wanted: Wanted = {events.field: None} if events.field is not None else {}
    for target in events.targets:
        if target.row is None:
            if target.root_wanted or not target.path:
                return None
            _want(wanted, target.path)
            continue
        _want(wanted, target.path, whole=False)
        for field in target.fields:
            for place in field.places:
                parts = place.parts if place.root else (*target.path, *place.parts)
                if not parts:  # a column of the whole message
                    return None
                _want(wanted, parts)
    return wanted


def _want(wanted: Wanted, parts: tuple[str, ...], *, whole: bool = True) -> None:
    """Note that a place is read: the `whole` of it, or only that it is there."""
    for depth, part in enumerate(parts):
        if whole and depth == len(parts) - 1:
            wanted[part] = None
            return
        below = wanted.setdefault(part, {})
        if below is None:  # all of it is read already
            return
        wanted = below


# ---- a topic with both formats --------------------------------------------------------------------------------------


class JsonOrAvro:
    """Decodes a topic with both formats, told apart by the first byte.

    Confluent's frame begins with a zero byte and a single object with C3, which no JSON does. Bare data can't be told
    from JSON. Raises as the Avro decoder does.
    """

    def __init__(self, json: JsonDecoder, avro: AvroDecoder) -> None:
        self._json = json
        self.avro = avro
        self.waits = avro.waits
        self.skips = (*json.skips, *avro.skips)

    @property
    def grace(self) -> float:
        """How long the Avro decoder waits for a schema that the registry does not give, while it gives others."""
        return self.avro.grace

    @grace.setter
    def grace(self, seconds: float) -> None:
        self.avro.grace = seconds

    @property
    def targets(self) -> dict[EventName, Target]:
        """Event → where its items are and what they become; "" if no event is named."""
        return self._json.targets

    def check(self) -> str:
        """Check what the Avro decoder needs."""
        return self.avro.check()

    def look_ahead(self, records: Sequence[Record]) -> None:
        """Show the Avro decoder its messages."""
        self.avro.look_ahead([record for record in records if _is_avro(record)])

    def needs_items(self, normalizer: Normalizer) -> dict[str, str]:
        """Say of each event why its items are mapped one by one in both formats; "" if one may have a loop."""
        as_avro = self.avro.needs_items(normalizer)
        return {name: reason and as_avro.get(name, "") for name, reason in self._json.needs_items(normalizer).items()}

    def column_loop(self, normalizer: Normalizer) -> ColumnLoop:
        """Make the loop of each format; a chunk goes through that of its first message, which leaves the others."""
        loops: list[ColumnLoop | None] = [
            None if all(decoder.needs_items(normalizer).values()) else decoder.column_loop(normalizer)
            for decoder in (self._json, self.avro)
        ]

        def columns(chunk: Chunk, latest: datetime) -> Mapped:
            loop = loops[_begins_avro(chunk.values[0])]
            return Mapped([], list(range(len(chunk)))) if loop is None else loop(chunk, latest)

        return columns

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Tell the Avro decoder of its chunks."""
        self.avro.expect([chunk for chunk in chunks if _begins_avro(chunk.values[0])])

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[Skipped],
        step: str = "decode",
    ) -> None:
        """Decode by the decoder of the message's format."""
        chosen = self.avro if _is_avro(record) else self._json
        chosen.decode(record, oks, errs, skipped, step)


def _is_avro(record: Record) -> bool:
    return _begins_avro(record.value)


def _begins_avro(value: bytes | None) -> bool:
    return bool(value) and value[0] in b"\0\xc3"  # type: ignore[index]
