"""A window that is read at once ends as it does one by one: the same rows, dead letters and skips."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.avro import AvroDecoder, JsonOrAvro, SingleObject
from lovelace_streams.formats.avro import decoder
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Record
from lovelace_streams.rows import Row, Skip
from lovelace_streams.rows.normalizer import normalizer
from tests.properties.avro_schemas import Data, schemas, write
from tests.properties.test_avro_rows import COLUMNS, FITTING, NOW, ended, row_of, typed

OTHERS = st.one_of(
    st.sampled_from(["bytes", "null", {"type": "map", "values": "int"}, {"type": "array", "items": "null"}]),
    schemas(depth=2),
)
FEW = decoder.TOGETHER_MIN + 4


def records_of(messages: list[bytes]) -> list[Record]:
    return [Record("t", 0, at, at, 0, None, message, [], NOW) for at, message in enumerate(messages)]


def ends(avro: Any, rows: list[type[Row]], messages: list[bytes], *, ahead: bool) -> list[Any]:
    """What became of each message."""
    mapper = normalizer(rows)
    records = records_of(messages)
    oks: list[Any] = []
    errs: list[Any] = []
    skipped: list[Any] = []
    if ahead:
        avro.look_ahead(records)
    for record in records:
        avro.decode(record, oks, errs, skipped)
    made = [(each.record.offset, ended(lambda each=each: mapper.normalize(each, NOW))) for each in oks]
    plain = [repr(each.payload.plain()) for each in oks]
    letters = [(each.record.offset, each.count, each.reason, each.detail) for each in errs]
    passed = [(reason, each.record.offset) for reason, each in skipped]
    return [made, plain, letters, passed, [record.items for record in records]]


@given(data=st.data(), names=st.lists(st.sampled_from(sorted(COLUMNS)), unique=True, max_size=4))
def test_at_once_is_as_one_by_one(data: st.DataObject, names: list[str]) -> None:
    row = row_of(names)
    simple = st.sampled_from(["int", "text", "flag", "ratio", "at", "ints", "words"])
    fitting = simple.flatmap(lambda name: st.sampled_from(FITTING[name]))
    more = {"m0": data.draw(fitting), "m1": data.draw(fitting | OTHERS)}
    inner = [{"name": name, "type": data.draw(typed(name))} for name in names]
    inner += [{"name": name, "type": kind} for name, kind in more.items()]
    within: Any = {"type": "record", "name": "Inner", "fields": data.draw(st.permutations(inner))}
    if data.draw(st.booleans()):
        within = ["null", within]
    item = {"type": "record", "name": "Item", "fields": [{"name": "inner", "type": within}]}
    schema = {
        "type": "record",
        "name": "Message",
        "fields": [
            {"name": "t", "type": "string"},
            {"name": "key", "type": "long"},
            {"name": "d", "type": ["null", item] if data.draw(st.booleans()) else item},
        ],
    }
    messages = [write(Data(schema).draw(data.draw, schema)) for _ in range(data.draw(st.integers(1, 3)))]
    for wrong in data.draw(st.lists(st.sampled_from(messages), max_size=2)):
        at = data.draw(st.integers(0, len(wrong)))
        cut = data.draw(st.integers(0, 3))
        messages.append(wrong[:at] + data.draw(st.binary(max_size=11)) + wrong[at + cut :])
    messages = data.draw(st.permutations((messages * FEW)[:FEW]))
    what: Any = Items("d", row)
    if data.draw(st.booleans()):
        what = Events("t", {"": what, "0": Items("d", row_of(names[:1]))}, Skip("unknown_event"))

    assert ends(AvroDecoder(schema, what), [row], messages, ahead=True) == ends(
        AvroDecoder(schema, what), [row], messages, ahead=False
    )


ROW = row_of(["int", "text", "at"])
READ = {
    "type": "record",
    "name": "Inner",
    "fields": [
        {"name": "int", "type": "long"},
        {"name": "text", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
MESSAGE = {
    "type": "record",
    "name": "Message",
    "fields": [
        {"name": "key", "type": "long"},
        {"name": "d", "type": {"type": "record", "name": "Item", "fields": [{"name": "inner", "type": READ}]}},
    ],
}
GOOD = b"\2\4\2\4ab\2"  # key 1, int 2, text "ab", at 1 ms


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(GOOD + b"\0", id="bytes left over"),
        pytest.param(GOOD[:-1], id="ends too early"),
        pytest.param(b"\x82\0" + GOOD[1:], id="a longer varint than need be"),
        pytest.param(GOOD[:-1] + b"\xfe" * 8 + b"\1", id="past the year 9999"),
        pytest.param(GOOD.replace(b"ab", b"a\0"), id="NUL"),
        pytest.param(GOOD.replace(b"ab", b"\xff\xfe"), id="not UTF-8"),
        pytest.param(b"\2\4\4ab\2", id="a branch that the union has not"),
    ],
)
def test_only_what_is_odd_is_judged_by_itself(odd: bytes) -> None:
    avro = AvroDecoder(MESSAGE, Items("d", ROW))
    avro.decode(records_of([GOOD])[0], [], [], [])  # the schema is known
    messages = [GOOD] * 300
    messages[200] = odd
    records = records_of(messages)
    avro.look_ahead(records)
    ahead = [record.offset for record in records if id(record) in avro._ahead]  # noqa: SLF001
    assert 200 not in ahead
    assert len(ahead) >= 300 - decoder.TOGETHER_MIN
    assert ends(avro, [ROW], messages, ahead=True) == ends(avro, [ROW], messages, ahead=False)


def test_a_topic_with_both_and_tombstones() -> None:
    json = b'{"key":1,"d":{"inner":{"int":2,"text":"ab","at":"1970-01-01T00:00:00.001Z"}}}'
    single = SingleObject(MESSAGE)
    framed = b"\xc3\x01" + single.schemas[0].fingerprint() + GOOD
    messages: list[Any] = [json, framed, None] * FEW
    both = JsonOrAvro(JsonDecoder(Events("t", {}, Skip("unknown_event"))), AvroDecoder(single, Items("d", ROW)))
    assert ends(both, [ROW], messages, ahead=True) == ends(both, [ROW], messages, ahead=False)


def test_what_was_seen_and_never_asked_for_is_no_other_records() -> None:
    avro = AvroDecoder(MESSAGE, Items("d", ROW))
    avro.decode(records_of([GOOD])[0], [], [], [])
    seen = records_of([GOOD] * FEW)
    avro.look_ahead(seen)
    other = records_of([b"\4" + GOOD[1:]])[0]
    avro._ahead = {id(other): next(iter(avro._ahead.values()))}  # noqa: SLF001 - as where its id is given again
    oks: list[Any] = []
    avro.decode(other, oks, [], [])
    assert oks[0].payload.plain()[1]["key"] == 2
