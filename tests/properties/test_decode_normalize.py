"""Any bytes through decode → normalize: nothing raised, every item in one place, numbers that add up."""

import json
import time
from datetime import datetime
from typing import Annotated, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.decoder import sort as decode_all
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.normalize import sort as normalize_all
from lovelace_streams.records import DeadLetter, Envelope, Origin, Reason, Record, SkipReason
from lovelace_streams.rows import From, FromKafka, RecordContext, Row, Skip
from lovelace_streams.rows.normalizer import RawItem, normalizer
from tests.examples import examples

NOW = 1_700_000_000_000


class Member(Row, table="members", primary_key=("guild_id", "user_id"), version="seen_at"):
    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    name: Annotated[str | None, From("nick", "user.global_name"), str.lower]
    roles: list[int] | None
    joined_at: datetime | None
    extra: dict | None
    seen_at: Annotated[datetime, FromKafka("timestamp")]


def mapped(raw: dict[str, Any], *, of: RecordContext) -> list[Member] | Skip:
    if "user" not in raw:
        return Skip("filtered")
    return [Member.from_raw({"d": {"guild_id": 1}, **raw}, of=of)]


EVENTS = Events(
    "t",
    {"ADD": Items("d", Member), "CHUNK": Items("d.members", Member), "FUN": Items("d", mapped)},
    otherwise=Skip("unknown_event"),
)
DECODERS = [
    JsonDecoder(EVENTS),
    JsonDecoder(Member),
    JsonDecoder(mapped),
    JsonDecoder(Items("$", Member)),
    JsonDecoder(Items("$", mapped)),
    JsonDecoder(Items("d.members", Member)),
]
NORMALIZER = normalizer(Member, mapped)

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["\ud800", "\0", "1"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["t", "d", "members", "user", "id", "guild_id", "nick", "roles", "extra"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=25,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "user": st.one_of(VALUES, st.fixed_dictionaries({"id": st.integers()})),
        "roles": VALUES,
        "extra": VALUES,
    },
)
EVENT = st.fixed_dictionaries(
    {
        "t": st.sampled_from(["ADD", "CHUNK", "FUN", "OTHER", None, 5]),
        "d": st.one_of(
            MEMBERS,
            st.fixed_dictionaries(
                {
                    "guild_id": st.one_of(st.just("1"), VALUES),
                    "members": st.lists(st.one_of(MEMBERS, VALUES), max_size=4),
                }
            ),
            VALUES,
        ),
    }
)

ANY = st.one_of(EVENT, st.lists(st.one_of(MEMBERS, VALUES), max_size=4))


@st.composite
def corrupted(draw: st.DrawFn) -> bytes:
    """A message with some bytes changed, cut or doubled."""
    text = bytearray(json.dumps(draw(ANY), ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(text)


@settings(max_examples=examples(500), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    value=st.one_of(st.none(), st.binary(max_size=40), corrupted(), ANY.map(lambda e: json.dumps(e).encode())),
    declared=st.sampled_from([None, None, 0, 1, 2, 5]),
    named=st.sampled_from([None, None, (), (0,), (1, 3)]),
    which=st.sampled_from(range(len(DECODERS))),
    timestamp=st.sampled_from([-1, 0, NOW, 2**62]),
)
@example(value=b"[" * 10_000, declared=None, named=None, which=0, timestamp=0)
@example(value=b'{"a":' * 10_000, declared=None, named=None, which=1, timestamp=0)
@example(value=b'{"t":"ADD","d":' + b"[" * 1_000 + b"]" * 1_000 + b"}", declared=None, named=None, which=0, timestamp=0)
@example(
    value=b'{"t":"ADD","d":{"extra":' + b"[" * 250 + b"]" * 250 + b"}}", declared=1, named=None, which=0, timestamp=0
)
@example(value=b'{"user":{"id":' + b"9" * 5_000 + b"}}", declared=None, named=None, which=2, timestamp=0)
@example(value=b'{"user":{"id":1e99999999999999999999999}}', declared=None, named=None, which=2, timestamp=0)
def test_nothing_is_raised_and_items_add_up(
    value: bytes | None, declared: int | None, named: Any, which: int, timestamp: int
) -> None:
    origin = None if named is None else Origin("id", "topic", 0, 5, NOW, named)
    record = Record("topic", 0, 0, 0, 0, None, value, [], timestamp, declared=declared, origin=origin)
    oks: list[Envelope[RawItem]] = []
    errs: list[DeadLetter] = []
    skipped: list[tuple[SkipReason, Envelope[Any]]] = []
    DECODERS[which].decode(record, oks, errs, skipped)

    spans = (
        [(e.item, e.count) for e in oks] + [(e.item, e.count) for e in errs] + [(e.item, e.count) for _, e in skipped]
    )
    numbers = [number for first, count in spans for number in range(first, first + count)]
    assert record.items == len(numbers) > 0
    assert len(set(numbers)) == len(numbers)
    if named:
        assert sorted(numbers) == sorted(named)
    elif declared:
        assert len(numbers) == declared
    assert all(isinstance(letter.reason, Reason) for letter in errs)
    for envelope in oks:
        try:
            made = NORMALIZER.normalize(envelope, NOW)
        except RecordFault:
            continue
        assert isinstance(made, Row | Skip) or all(isinstance(row, Row) for row in made)
        for row in [made] if isinstance(made, Row) else [] if isinstance(made, Skip) else made:
            assert "\0" not in (row.name or "")
            assert "\ud800" not in (row.name or "")


MESSAGES = st.tuples(
    st.one_of(st.none(), st.binary(max_size=40), corrupted(), ANY.map(lambda e: json.dumps(e).encode())),
    st.sampled_from([None, None, 0, 1, 2]),
    st.sampled_from([None, None, None, (), (0,), (1, 3)]),
)


def records(window: list[tuple[Any, ...]]) -> list[Record]:
    return [
        Record("topic", 0, at, at, 0, None, value, [], NOW, declared=declared, origin=origin)
        for at, (value, declared, named) in enumerate(window)
        for origin in [None if named is None else Origin("id", "topic", 0, 5, NOW, named)]
    ]


def shown(made: Any) -> Any:
    """Rows by their values, without the instant at which a function made them."""
    if isinstance(made, Row):
        return [getattr(made, name) for name in made.__struct_fields__ if name != "seen_at"]
    return made if isinstance(made, Skip) else list(map(shown, made))


def end(envelope: Envelope[Any], now: int) -> Any:
    try:
        return shown(NORMALIZER.normalize(envelope, now))
    except RecordFault as fault:
        return fault.reason, fault.detail


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(window=st.lists(MESSAGES, max_size=6), which=st.sampled_from(range(len(DECODERS))))
def test_a_window_is_what_its_messages_are_one_by_one(window: list[tuple[Any, ...]], which: int) -> None:
    single, together = records(window), records(window)
    oks: list[Envelope[RawItem]] = []
    errs: list[DeadLetter] = []
    skipped: list[tuple[SkipReason, Envelope[Any]]] = []
    for record in single:
        DECODERS[which].decode(record, oks, errs, skipped)
    ports = decode_all(DECODERS[which], [Envelope(record, 0, b"") for record in together])

    assert together == single
    assert [(e.record.offset, e.item) for e in ports.oks] == [(e.record.offset, e.item) for e in oks]
    assert [e.payload.item is None for e in ports.oks] == [e.payload.item is None for e in oks]
    assert (ports.errs, ports.skipped) == (errs, skipped)

    made = normalize_all(NORMALIZER, ports.oks)
    found = {(e.record.offset, e.item): shown(e.payload) for e in made.oks}
    found |= {(e.record.offset, e.item): (e.reason, e.detail) for e in made.errs}
    found |= {(e.record.offset, e.item): Skip(str(reason)) for reason, e in made.skipped}
    now = int(time.time() * 1000)
    assert found == {(e.record.offset, e.item): end(e, now) for e in oks}
