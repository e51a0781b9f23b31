"""A chunk of Avro messages ends as columns as it does item by item: the same rows, letters and skips, in one order."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.avro import AvroDecoder, SingleObject
from lovelace_streams.columns import Chunk, Run
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.formats import decoder as formats
from lovelace_streams.formats.avro import decoder as avro
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.operators import normalize
from lovelace_streams.records import Envelope, Record, envelopes_of
from lovelace_streams.rows import Before, Epoch, From, FromKafka, Lenient, Row, Skip, rule
from lovelace_streams.rows.normalizer import normalizer
from tests.properties.avro_schemas import Data, write
from tests.properties.test_avro_rows import FITTING as AVRO_TYPES
from tests.properties.test_avro_rows import TYPES, Plain

NOW = 1_700_000_000_000
FEW = avro.TOGETHER_MIN + 4


EVENT = {"type": "enum", "name": "Event", "symbols": ["A", "B"]}
ODD = 23
"""A number like any other: hypothesis likes the ends of a range more."""


def odd_is_refused(value: Any) -> Any:
    if value % 2:
        raise ValueError
    return value


def short_is_null(value: str) -> str | None:
    return value if len(value) > 1 else None


COLUMNS: dict[str, tuple[Any, str]] = {
    "int": (int, "int"),
    "even": (Annotated[int, odd_is_refused], "int"),
    "small": (Annotated[int, msgspec.Meta(ge=0, le=9)], "int"),
    "text": (str, "text"),
    "long_text": (Annotated[str, short_is_null], "text"),
    "lower": (Annotated[str, str.lower], "text"),
    "trimmed": (Annotated[str, Before(str.strip)], "text"),
    "flag": (bool, "flag"),
    "ratio": (float, "ratio"),
    "at": (datetime, "at"),
    "since": (Annotated[datetime, Epoch("ms")], "int"),
    "day": (date, "text"),
    "id": (UUID, "text"),
    "amount": (Decimal, "int"),
    "ints": (list[int], "ints"),
    "words": (list[str], "words"),
    "choice": (Literal["A", "B"], "choice"),
    "lenient": (Annotated[int, Lenient], "text"),
    "json": (dict[str, Any], "text"),
}
"""Name → the type of a column, and which of Avro's types fit."""
FITTING = AVRO_TYPES | {"at": [{"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("millis", "micros")]}


@st.composite
def row_classes(draw: st.DrawFn, names: Sequence[str]) -> type[Row]:
    hints: dict[str, Any] = {"key": Annotated[int, From("$.key")]}
    more: dict[str, Any] = {}
    version = "at" if "at" in names and draw(st.booleans()) else None
    for name in names:
        kind, _ = COLUMNS[name]
        bare, *marks = (kind.__origin__, *kind.__metadata__) if hasattr(kind, "__metadata__") else (kind,)
        if name != version and draw(st.integers(0, 3)):
            bare |= None
        others = [[], ["inner.more"], ["inner.deep.er"], ["inner.none"]] if name == names[0] else [[]]
        paths = [f"inner.{name}", *draw(st.sampled_from(others))]
        hints[name] = Annotated[bare, From(*paths), *marks]
        if name == "int" and draw(st.booleans()):
            more[name] = 7
    if draw(st.booleans()):
        hints["sent"] = Annotated[draw(st.sampled_from([datetime, int])), FromKafka("timestamp")]
    if draw(st.booleans()):
        hints["called"] = Annotated[str | None, FromKafka("key"), *draw(st.sampled_from([(), (str.upper,)]))]  # type: ignore[misc]
    if draw(st.integers(0, 39)) == ODD:
        more["key_is_small"] = rule("key")(lambda row: row.key < 1000)
    space = {"__annotations__": hints, "__module__": __name__, **more}
    return type(Row)("Made", (Row,), space, table="t", primary_key="key", version=version)


def types_of(name: str) -> st.SearchStrategy[Any]:
    """A type of Avro's that fits a column, now and then any other."""
    fitting = FITTING[COLUMNS[name][1]]
    kinds = st.integers(0, 39).flatmap(lambda number: st.sampled_from(TYPES if number == ODD else fitting))
    return kinds.flatmap(lambda kind: st.just(kind) if kind == "null" else st.sampled_from([kind, ["null", kind]]))


@st.composite
def schemas(draw: st.DrawFn, names: Sequence[str]) -> dict[str, Any]:
    """The newest version of the record."""
    first = types_of(names[0]) if names else st.just("long")
    fields = [{"name": name, "type": draw(types_of(name))} for name in names]
    deep = {"type": "record", "name": "Deep", "fields": [{"name": "er", "type": draw(first)}]}
    fields += [{"name": "deep", "type": draw(nullable(deep))}, {"name": "more", "type": draw(first)}]
    inner = {"type": "record", "name": "Inner", "fields": draw(st.permutations(fields))}
    item = {"type": "record", "name": "Item", "fields": [{"name": "inner", "type": draw(nullable(inner))}]}
    key = draw(st.sampled_from(["long", "int", "long"]))
    message = [{"name": "t", "type": draw(st.sampled_from([EVENT, "string"]))}, {"name": "key", "type": key}]
    return {"type": "record", "name": "Message", "fields": [*message, {"name": "d", "type": draw(nullable(item))}]}


def nullable(kind: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([kind, ["null", kind]])


def changed(schema: Any, change: Any) -> Any:
    """A schema whose fields are changed, from the innermost on; None leaves one out."""
    if isinstance(schema, list):
        return [changed(kind, change) for kind in schema]
    if not isinstance(schema, dict) or schema["type"] != "record":
        return schema
    fields = [change({**field, "type": changed(field["type"], change)}) for field in schema["fields"]]
    return {**schema, "fields": [field for field in fields if field is not None]}


def older(draw: Any, schema: dict[str, Any]) -> Any:
    """An older version: what may be null was never, numbers were narrower, some fields were not there."""

    def change(field: dict[str, Any]) -> dict[str, Any] | None:
        is_null = isinstance(field["type"], list)
        way = draw(st.sampled_from(["same", "same", "same", "never null", "narrower", "missing"]))
        if way == "never null" and is_null:
            return field | {"type": field["type"][1]}
        if way == "narrower" and field["type"] in ("long", "double"):
            return field | {"type": {"long": "int", "double": "float"}[field["type"]]}
        return None if way == "missing" and is_null else field

    return changed(schema, change)


def with_defaults(schema: dict[str, Any]) -> Any:
    """The schema as a flow has it, for which older data may lack what may be null."""
    return changed(schema, lambda field: field | ({"default": None} if isinstance(field["type"], list) else {}))


@st.composite
def sent(draw: st.DrawFn, versions: Sequence[dict[str, Any]], framing: SingleObject) -> list[bytes | None]:
    """Messages of all versions in turn, some of them damaged, or without a value."""
    framed = []
    for schema, known in zip(versions, framing.schemas, strict=True):
        data = [write(Data(schema).draw(draw, schema)) for _ in range(draw(st.integers(1, 3)))]
        framed.append([b"\xc3\x01" + known.fingerprint() + datum for datum in data] * FEW)
    messages: list[bytes | None] = []
    turns = draw(st.sampled_from(["one after the other", "in turn"]))
    for group in zip(*(some[:FEW] for some in framed), strict=True) if turns == "in turn" else framed:
        messages += group
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(messages) - 1))
        wrong = messages[place] or b""
        at, cut = draw(st.integers(0, len(wrong))), draw(st.integers(0, 3))
        messages[place] = draw(
            st.sampled_from([None, b"", wrong[:at] + draw(st.binary(max_size=5)) + wrong[at + cut :]])
        )
    return messages


def runs_of(messages: Sequence[Any], declared: int | None) -> list[Run]:
    """The last message has a header of its own."""
    last = len(messages) - 1
    return [Run(0, last, 0, 0, []), Run(last, last + 1, last, last, [("n", b"x")], declared=declared)]


def ended(ports: Any, mapper: Any, record_at: Any, count: int) -> list[Any]:
    """What became of messages: all that somebody can see."""
    mapped = normalize.sort(mapper, ports.oks)
    rows = [(each.record.offset, each.item, repr(each.payload)) for each in envelopes_of(mapped.oks)]
    errs = [*ports.errs, *mapped.errs]
    letters = [(each.record.offset, each.item, each.count, each.step, each.reason, each.detail) for each in errs]
    skips = [(reason, each.record.offset, each.count) for reason, each in (*ports.skipped, *mapped.skipped)]
    return [rows, letters, skips, [record_at(place).items for place in range(count)]]


def by_items(decoder: Any, mapper: Any, messages: Sequence[Any], declared: int | None) -> list[Any]:
    last = len(messages) - 1
    records = [
        Record("t", 0, at, at, 0, b"k", message, [], NOW, declared=declared if at == last else None)
        for at, message in enumerate(messages)
    ]
    ports = formats.sort(decoder, [Envelope(record, 0, record.value) for record in records])
    return ended(ports, mapper, records.__getitem__, len(records))


def by_columns(
    decoder: Any, mapper: Any, messages: Sequence[Any], declared: int | None, cuts: Sequence[int] = ()
) -> list[Any]:
    """As chunks of one window, cut at some places."""
    loop = decoder.column_loop(mapper)
    runs = runs_of(messages, declared)
    chunks = []
    for start, stop in zip([0, *cuts], [*cuts, len(messages)], strict=True):
        count = stop - start
        own = [
            msgspec.structs.replace(run, start=max(run.start, start) - start, stop=min(run.stop, stop) - start)
            for run in runs
            if run.start < stop and start < run.stop
        ]
        own = [msgspec.structs.replace(run, offset=start + run.start, after=start + run.start) for run in own]
        offsets, keys, stamps = range(start, stop), [b"k"] * count, [NOW] * count
        chunks.append(Chunk("t", 0, 0, offsets, keys, messages[start:stop], stamps, own))
        chunks[-1].loop = loop
    ports = formats.expecting(decoder, partial(formats.sort_chunks, partial(formats.sort, decoder)))(chunks)

    def record_at(place: int) -> Record:
        [chunk] = [chunk for chunk in chunks if place in chunk.offsets]
        return chunk.record_at(place - chunk.offsets[0])

    return ended(ports, mapper, record_at, len(messages))


@given(data=st.data(), names=st.lists(st.sampled_from(sorted(COLUMNS)), unique=True, max_size=4))
def test_columns_end_as_items_do(data: st.DataObject, names: list[str]) -> None:
    row = data.draw(row_classes(names))
    newest = data.draw(schemas(names))
    versions = [newest] if data.draw(st.booleans()) else [older(data.draw, newest), newest]
    try:
        framing = SingleObject(*versions)
    except DeploymentFault:  # versions that no message tells apart
        return
    reader = data.draw(st.sampled_from([None, with_defaults(newest)]))
    messages = data.draw(sent(versions, framing))
    what: Any = Items("d", row)
    if data.draw(st.booleans()):
        what = Events("t", {"A": what, "B": Items("d", Plain)}, Skip("unknown_event"))
    mapper = normalizer(row, Plain)
    declared = data.draw(st.sampled_from([None, 1, 2]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(messages) - 1), max_size=3)))
    columns = by_columns(AvroDecoder(framing, what, reader=reader), mapper, messages, declared, cuts)
    assert columns == by_items(AvroDecoder(framing, what, reader=reader), mapper, messages, declared)
