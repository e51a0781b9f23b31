"""Avro messages to raw items: which schema wrote a message, and what its rows read of it."""

import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.avro.columns import Columns, UnsupportedSchema, columns_are_known
from lovelace_streams.formats.avro.reading import Read, Wanted, reading
from lovelace_streams.formats.avro.registry import NoSchema, Registry
from lovelace_streams.formats.avro.schema import Node, Schema, load
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.items import emit_items, fail_message, items_at
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import DeadLetter, Envelope, Reason, Record, SkipReason
from lovelace_streams.rows.normalizer import RawItem
from lovelace_streams.rows.paths import find
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target
from lovelace_streams.rows.values import json_type_name

UNKNOWN_SECONDS = 60.0
"""How long an id that the registry does not know is not asked for again."""
WORTH = 16
"""Fewer messages of one schema in a window are read one by one."""
READERS_MAX = 1000
"""Writers' schemas that are kept compiled; past it the oldest is let go."""

SchemaSource = str | Path | Mapping[str, Any] | Schema
"""A schema: the path of an .avsc, its JSON, or one that is parsed."""


class Framing(Protocol):
    """Says which schema wrote a message, by what stands before the datum."""

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """Those that are known without asking."""

    waits: bool
    """Whether `schema` may raise a `DestinationFault`."""

    size: int
    """So many bytes say which schema it is: equal ones, the same."""

    def named(self, message: bytes) -> tuple[Any, int]:
        """The key of the writer's schema, and where the datum begins; raises `RecordFault`."""

    def schema(self, key: Any) -> Schema:
        """The schema of a key; raises `NoSchema`, `DestinationFault`, `DeploymentFault`."""


class Bare:
    """No frame: every message is a datum of one schema."""

    waits = False
    size = 0

    def __init__(self, source: SchemaSource) -> None:
        self._schema = load(source)
        self.schemas: tuple[Schema, ...] = (self._schema,)

    def named(self, message: bytes) -> tuple[Any, int]:  # noqa: ARG002
        """The one schema, the whole message."""
        return None, 0

    def schema(self, key: Any) -> Schema:  # noqa: ARG002
        """The one schema."""
        return self._schema


class SingleObject:
    """Avro's single-object encoding: C3 01, then the fingerprint of one of these schemas (the versions of a record).

    >>> from lovelace_streams.avro import AvroDecoder, SingleObject
    >>> order = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    >>> decoder = AvroDecoder(SingleObject(order), lambda order: None, reader=order)
    """

    waits = False
    _MARK, size = b"\xc3\x01", 10

    def __init__(self, *sources: SchemaSource) -> None:
        self.schemas: tuple[Schema, ...] = tuple(map(load, sources))
        self._by_fingerprint = {schema.fingerprint(): schema for schema in self.schemas}

    def named(self, message: bytes) -> tuple[Any, int]:
        """The fingerprint."""
        if not message.startswith(self._MARK) or len(message) < self.size:
            raise RecordFault(Reason.NOT_AVRO, "no single-object encoding: C3 01 and the schema's fingerprint")
        return message[2 : self.size], self.size

    def schema(self, key: Any) -> Schema:
        """The schema that has this fingerprint."""
        if key not in self._by_fingerprint:
            raise NoSchema("none of the schemas has this fingerprint")
        return self._by_fingerprint[key]


class Confluent:
    """Confluent's frame: a zero byte, four bytes of the schema's id in a registry, which is asked once for each id."""

    waits = True
    schemas: tuple[Schema, ...] = ()
    size = 5
    _FRAME = struct.Struct(">BI")

    def __init__(self, registry: Registry | str, timeout: float = 10.0) -> None:
        self.registry = registry if isinstance(registry, Registry) else Registry(registry, timeout)

    def named(self, message: bytes) -> tuple[Any, int]:
        """The id."""
        if len(message) < self._FRAME.size or message[0] != 0:
            raise RecordFault(Reason.NOT_AVRO, "no Confluent frame: a zero byte and the schema's id")
        return self._FRAME.unpack_from(message)[1], self._FRAME.size

    def check(self) -> str:
        """That the registry answers; raises `DestinationFault` or `DeploymentFault`."""
        return self.registry.check()

    def schema(self, key: Any) -> Schema:
        """What the registry says."""
        return self.registry.schema(key)


class AvroDecoder:
    """Decodes one record at a time; an id's schema is asked for once, and compiled for what the rows read of it.

    `source` says which schema wrote a message: a schema (then messages are bare), a registry's http address
    (Confluent's frame), `SingleObject(…)`, or a `Framing`. `what` are the items, as for `JsonDecoder`. With a `reader`,
    the flow's own schema, what was written is resolved to it: defaults, promotions, aliases; another record than the
    reader (by full name or alias) is nobody's here: `unknown_schema`. Without one the writer's schema is taken as it
    is. `at_once`: messages of a window are read together where that is certain to be the same, if the extra
    `avro-columns` is installed. Raises `DeploymentFault` for a schema that can't be used.
    """

    def __init__(
        self,
        source: "SchemaSource | Framing",
        what: type[Row] | Items | Events | MapFunction,
        *,
        reader: SchemaSource | None = None,
        timeout: float = 10.0,
        at_once: bool = True,
    ) -> None:
        self.framing = _framing(source, timeout)
        self._at_once = at_once and columns_are_known()
        self.reader = load(reader) if reader is not None else None
        self._events = what if isinstance(what, Events) else None
        found = what.events if isinstance(what, Events) else {"": what if isinstance(what, Items) else Items("$", what)}
        self.targets = {name: Target(items.row, items.path) for name, items in found.items()}
        """Event → where its items lie and what they become; "" where no event is named."""
        self._types = {id(target): target.message_type() for target in self.targets.values() if target.typed}
        self._wanted = _wanted(self.targets.values(), self._events)
        self._reads: dict[Any, Read] = {}
        self._columns: dict[Any, Columns | None] = {}
        self._ahead: dict[int, Unread] = {}
        self._waiting: dict[Any, tuple[int, list[Record]]] = {}
        self._unknown: dict[Any, tuple[float, str]] = {}
        self.waits = self.framing.waits

    def check(self) -> str:
        """That whoever is asked for schemas answers; raises `DestinationFault` or `DeploymentFault`."""
        look = getattr(self.framing, "check", None)
        return str(look()) if look is not None else "schemas are the flow's own"

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """The flow's own: the reader, and what messages are bare data or single objects of."""
        return (*((self.reader,) if self.reader is not None else ()), *self.framing.schemas)

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[tuple[SkipReason, Envelope[Any]]],
        step: str = "decode",
    ) -> None:
        """Append the record's items to the three lists, and set `record.items`, as `JsonDecoder.decode` does.

        Raises `DestinationFault` where the registry does not answer, `DeploymentFault` where it refuses us; nothing
        was appended then: decode the record again.
        """
        ahead = self._ahead.pop(id(record), None)
        if ahead is not None and ahead.text is not record.value:  # of another record, that was not decoded
            ahead = None
        if ahead is not None and record.origin is None and record.declared in (None, 1):
            record.items = 1
            oks.append(Envelope(record, 0, ahead))
            return
        try:
            found = ahead or self._items(record.value)
        except RecordFault as fault:
            fail_message(record, errs, step, fault)
            return
        emit_items(record, [found] if isinstance(found, RawItem) else found, oks, errs, skipped, step)

    def look_ahead(self, records: Sequence[Record]) -> None:
        """Read what can be read at once, of the records that `decode` is about to be given; raises nothing.

        What is of a schema that was not asked for yet waits until `decode` has asked, which may have to wait itself.
        """
        self._ahead, self._waiting = {}, {}
        alike: dict[bytes, list[Record]] = {}
        size = getattr(self.framing, "size", None)  # somebody's own framing may not say
        for record in records if size is not None else ():
            if record.value is not None:
                alike.setdefault(record.value[:size], []).append(record)
        for some in alike.values():
            if len(some) >= WORTH:
                with suppress(RecordFault):
                    self._read_ahead(*self.framing.named(some[0].value or b""), some)

    def _read_ahead(self, key: Any, start: int, records: list[Record]) -> None:
        """Of one schema."""
        read = self._reads.get(key)
        if read is None:
            self._waiting[key] = start, records
            return
        columns = self._columns[key]
        if columns is None:
            return
        values = [record.value or b"" for record in records]
        found = columns.read([value[start:] for value in values] if start else values)
        for record, value, typed in zip(records, values, found, strict=True):
            if typed is not None:
                target, root = self.targets[typed[0]], typed[1]
                try:
                    item = root if target.locate is None else target.locate(root)
                except AttributeError:
                    continue
                if isinstance(item, msgspec.Struct):
                    self._ahead[id(record)] = Unread(target, item, root, value, read=read, start=start)

    def _items(self, value: bytes | None) -> RawItem | list[RawItem] | SkipReason:
        if value is None:
            return SkipReason.TOMBSTONE
        key, start = self.framing.named(value)
        read = self._reads.get(key) or self._compiled(key)
        root = read(value, start)
        if not isinstance(root, dict):
            raise RecordFault(Reason.WRONG_TYPE, f"expected record, got {json_type_name(root)} at $")
        name = "" if self._events is None else root.get(self._events.field)
        target = self.targets.get(name) if isinstance(name, str) else None
        if target is None:
            assert self._events is not None
            return self._events.otherwise
        found = items_at(target, root, value)
        if target.typed and found and not read.unlike_json:
            if isinstance(found, RawItem):
                self._type(found)
            else:
                self._type_all(target, found)
        return found

    def _type(self, found: RawItem) -> None:
        """Decode the item by type, for the generated mapping; what does not fit is interpreted, which says why."""
        target = found.target
        try:
            root = msgspec.convert(found.plain_root, self._types[id(target)])
            item = root if target.locate is None else target.locate(root)
        except (msgspec.ValidationError, AttributeError, RecursionError):
            return
        if isinstance(item, msgspec.Struct):
            found.item, found.root = item, root

    def _type_all(self, target: Target, found: list[RawItem]) -> None:
        """Items of a list, each by itself; the message once, without them."""
        try:
            root = msgspec.convert(_emptied(found[0].plain_root, target.path), self._types[id(target)])
        except (msgspec.ValidationError, RecursionError):
            return
        for each in found:
            try:
                each.item = msgspec.convert(each.plain_item, target.element_type)
            except (msgspec.ValidationError, RecursionError):
                continue
            each.root = root

    def _compiled(self, key: Any) -> Read:
        """The function for a writer's schema, made once; raises as `Framing.schema`, with `RecordFault` for none."""
        until, why = self._unknown.get(key, (0.0, ""))
        if time.monotonic() >= until:
            try:
                schema = self.framing.schema(key)
                made = self._reading(schema, key)
            except NoSchema as error:
                why = str(error)
            else:
                if len(self._reads) >= READERS_MAX:
                    let_go = next(iter(self._reads))
                    del self._reads[let_go], self._columns[let_go]
                self._reads[key] = made
                self._columns[key] = self._by_columns(schema)
                if key in self._waiting:
                    self._read_ahead(key, *self._waiting.pop(key))
                return made
            if len(self._unknown) >= READERS_MAX:
                self._unknown.pop(next(iter(self._unknown)))
            self._unknown[key] = (time.monotonic() + UNKNOWN_SECONDS, why)
        raise RecordFault(Reason.UNKNOWN_SCHEMA, why)

    def _reading(self, writer: Schema, key: Any) -> Read:
        reader = self.reader or writer
        if not reads(reader.root, writer.root):
            which = f"schema {key} is of" if isinstance(key, int) else "it is of"
            raise NoSchema(f"{which} {writer.root.shown}, the flow reads {reader.root.shown}")
        try:
            return reading(writer.root, reader.root, self._wanted)[0]
        except (RecursionError, SyntaxError, MemoryError):
            raise NoSchema("a schema that is too large") from None

    def _by_columns(self, writer: Schema) -> Columns | None:
        """How data of a writer are read at once; None where one by one is the only way."""
        types = {name: self._types[id(target)] for name, target in self.targets.items() if target.typed}
        if not types or not self._at_once:
            return None
        event = self._events.field if self._events is not None else None
        try:
            return Columns(writer, self.reader or writer, self._wanted, types, event)
        except UnsupportedSchema:
            return None


class Unread(RawItem):
    """An item that was read with others at once; one by one where somebody wants its plain values."""

    read: Read | None = None
    start: int = 0

    def plain(self) -> tuple[Any, Any]:
        """The item and its message."""
        assert self.read is not None
        root = self.read(self.text, self.start)
        return find(root, self.target.path), root


def reads(reader: Node, writer: Node) -> bool:
    """Whether the writer's record is the reader's own, by full name or alias: equal last names are not enough here."""
    if reader.kind != "record" or writer.kind != "record":
        return reader.kind == writer.kind
    return writer.name in (reader.name, *reader.aliases)


class JsonOrAvro:
    """For a topic with both: Confluent's frame begins with a zero byte, a single object with C3, and no JSON does."""

    def __init__(self, json: JsonDecoder, avro: AvroDecoder) -> None:
        self._json = json
        self.avro = avro
        self.waits = avro.waits

    def check(self) -> str:
        """As the Avro decoder."""
        return self.avro.check()

    def look_ahead(self, records: Sequence[Record]) -> None:
        """Those that are Avro."""
        self.avro.look_ahead([record for record in records if _is_avro(record)])

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[tuple[SkipReason, Envelope[Any]]],
        step: str = "decode",
    ) -> None:
        """As the decoder that it is for."""
        chosen = self.avro if _is_avro(record) else self._json
        chosen.decode(record, oks, errs, skipped, step)


def _emptied(root: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The message with no items in the list that has them."""
    name, *below = path
    return root | {name: _emptied(root[name], tuple(below)) if below else []}


def _is_avro(record: Record) -> bool:
    return bool(record.value) and record.value[0] in b"\0\xc3"  # type: ignore[index]


def _framing(source: "SchemaSource | Framing", timeout: float) -> Framing:
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return Confluent(source, timeout)
    if isinstance(source, str | Path | Mapping | Schema):
        return Bare(source)
    return source


def _wanted(targets: "Sequence[Target] | Any", events: Events | None) -> Wanted | None:
    """The names that the rows read, with what they read of each; None: all, where a function sees everything."""
    wanted: Wanted = {events.field: None} if events is not None else {}
    for target in targets:
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
    """Note that what lies at a path is read: `whole`, or only that it is there."""
    for depth, part in enumerate(parts):
        if whole and depth == len(parts) - 1:
            wanted[part] = None
            return
        below = wanted.setdefault(part, {})
        if below is None:  # all of it is read already
            return
        wanted = below
