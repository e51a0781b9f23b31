"""Messages to items: what a message holds, what ends it whole, and how its items are counted."""

import json
from datetime import date, datetime
from typing import Annotated, Any

import msgspec
import pytest

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.decoder import sort
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.formats.limits import DEPTH_MAX, nesting
from lovelace_streams.records import ITEMS_MAX, DeadLetter, Envelope, Origin, Record, SkipReason
from lovelace_streams.rows import Before, From, FromKafka, Row, Skip
from lovelace_streams.rows.normalizer import RawItem, normalizer

NOW = 1_700_000_000_000


class Member(Row, table="members", primary_key=("guild_id", "user_id"), version="seen_at"):
    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    username: Annotated[str | None, From("user.username"), str.lower]
    roles: list[int] | None
    joined_at: datetime | None
    seen_at: Annotated[datetime, FromKafka("timestamp")]


EVENTS = Events(
    "t",
    {
        "GUILD_MEMBER_ADD": Items("d", Member),
        "GUILD_MEMBER_UPDATE": Items("d", Member),
        "GUILD_MEMBERS_CHUNK": Items("d.members", Member),
    },
    otherwise=Skip("unknown_event"),
)
DISCORD = JsonDecoder(EVENTS)
NORMALIZER = normalizer(Member)


class Decoded:
    def __init__(self, decoder: JsonDecoder, value: Any, **fields: Any) -> None:
        if not isinstance(value, bytes | None):
            value = json.dumps(value).encode()
        self.record = Record("topic", 0, 0, 0, 0, None, value, [], NOW, **fields)
        self.oks: list[Envelope[RawItem]] = []
        self.errs: list[DeadLetter] = []
        self.skipped: list[tuple[SkipReason, Envelope[Any]]] = []
        copy = msgspec.structs.replace(self.record)
        decoder.decode(self.record, self.oks, self.errs, self.skipped)
        window = sort(decoder, [Envelope(copy, 0, b"")])  # both ways are one
        assert [(e.item, e.payload.item is None) for e in window.oks] == [
            (e.item, e.payload.item is None) for e in self.oks
        ]
        assert (window.errs, window.skipped, copy) == (self.errs, self.skipped, self.record)

    @property
    def ends(self) -> list[tuple[Any, ...]]:
        """Each item (or whole message) with what became of it: a user's id, or the reason."""
        made: list[tuple[Any, ...]] = []
        for envelope in self.oks:
            try:
                row = NORMALIZER.normalize(envelope, NOW)
                made.append((envelope.item, envelope.count, row.user_id))
            except RecordFault as fault:
                made.append((envelope.item, envelope.count, str(fault.reason)))
        made += [(letter.item, letter.count, str(letter.reason)) for letter in self.errs]
        made += [(envelope.item, envelope.count, str(reason)) for reason, envelope in self.skipped]
        assert self.record.items == sum(count for _, count, _ in made)
        return sorted(made)


def member(user: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"user": {"id": user, "username": "Ann"}, "roles": ["1"], "joined_at": "2015-04-26T06:26:56Z", **fields}


def add(**fields: Any) -> dict[str, Any]:
    return {"op": 0, "t": "GUILD_MEMBER_ADD", "s": 1, "d": {"guild_id": "9", **member(), **fields}}


def chunk(members: Any, guild: Any = "9") -> dict[str, Any]:
    return {"op": 0, "t": "GUILD_MEMBERS_CHUNK", "s": 1, "d": {"guild_id": guild, "members": members}}


def test_an_event_with_one_item() -> None:
    decoded = Decoded(DISCORD, add())

    assert decoded.ends == [(0, 1, 1)]
    assert decoded.oks[0].payload.item is not None, "decoded by type"


def test_an_event_with_many_items() -> None:
    decoded = Decoded(DISCORD, chunk([member("1"), member("2"), member("3")]))

    assert decoded.ends == [(0, 1, 1), (1, 1, 2), (2, 1, 3)]
    assert all(envelope.payload.item is not None for envelope in decoded.oks)


def test_what_is_found_decides_whether_it_is_one_item_or_many() -> None:
    assert Decoded(DISCORD, {"t": "GUILD_MEMBERS_CHUNK", "d": {"guild_id": 9, "members": member("7")}}).ends == [
        (0, 1, 7)
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member(None), "null"),
        (member([]), "wrong_type"),
        (member("x"), "wrong_type"),
        (member(2**63), "out_of_range"),
        (member(roles=["1", None]), "wrong_type"),
        (member(joined_at="2015-02-30T00:00:00Z"), "bad_value"),
        ({**member(), "user": {"id": 1, "username": "a\0b"}}, "bad_value"),
        ({**member(), "user": {"id": 1, "username": "\ud800"}}, "bad_value"),
        ({"roles": []}, "missing"),
        ({"user": None}, "missing"),
        (None, "wrong_type"),
        (5, "wrong_type"),
        ([member()], "wrong_type"),
    ],
)
def test_one_bad_member_does_not_cost_its_chunk(bad: Any, reason: str) -> None:
    members = [member(number) for number in range(1000)]
    members[500] = bad

    ends = Decoded(DISCORD, chunk(members), declared=1000).ends

    assert ends[500] == (500, 1, reason)
    assert [end for end in ends if end[0] != 500] == [(n, 1, n) for n in range(1000) if n != 500]


def test_what_nobody_reads_may_be_anything_but_bytes_that_are_not_utf8() -> None:
    assert Decoded(DISCORD, add(note="\ud800 \0", banner=1e300, more=[[[{}]]])).ends == [(0, 1, 1)]
    assert Decoded(DISCORD, add(note="\0")).ends == [(0, 1, 1)]
    assert Decoded(DISCORD, add(user={"id": 1, "username": "a\0b"})).ends == [(0, 1, "bad_value")]
    assert Decoded(DISCORD, json.dumps(add(note="?")).encode().replace(b"?", b"\xff")).ends == [(0, 1, "not_utf8")]
    assert Decoded(DISCORD, json.dumps(add(note="?")).encode().replace(b"?", b"\xed\xa0\x80")).ends == [
        (0, 1, "not_utf8")
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe", "not_utf8"),
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"t": "GUILD_MEMBER_ADD"} x', "not_json"),
        (b'\xef\xbb\xbf{"t": "GUILD_MEMBER_ADD"}', "not_json"),
        (b'{"t": "GUILD_MEMBER_ADD", "d": NaN}', "not_json"),
        (b'{"t": "GUILD_MEMBER_ADD", "d": {"user": {"id": Infinity}}}', "not_json"),
        (b'{"t": "GUILD_MEMBER_ADD", "d": {"nobody": -Infinity}}', "not_json"),
        (b'{"t": "a\nb"}', "not_json"),
        (b"{'t': 1}", "not_json"),
        (b"[" * 10_000 + b"]" * 10_000, "too_deep"),
        (b'{"t": "GUILD_MEMBER_ADD", "d": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep"),
        (b'{"d": ' * 10_000 + b"1" + b"}" * 10_000, "too_deep"),
        (b"[]", "wrong_type"),
        (b"5", "wrong_type"),
        (b"null", "wrong_type"),
        (b'"text"', "wrong_type"),
        (b'{"t": "GUILD_MEMBER_ADD"}', "missing"),
        (b'{"t": "GUILD_MEMBERS_CHUNK", "d": {"guild_id": "9"}}', "missing"),
        (b'{"t": "GUILD_MEMBERS_CHUNK", "d": null}', "missing"),
        (b'{"t": "GUILD_MEMBERS_CHUNK", "d": []}', "wrong_type"),
        (b'{"t": "GUILD_MEMBERS_CHUNK", "d": {"guild_id": "9", "members": null}}', "wrong_type"),
        (b'{"t": "GUILD_MEMBERS_CHUNK", "d": {"guild_id": "9", "members": 5}}', "wrong_type"),
        (b'{"t": "GUILD_MEMBER_ADD", "d": "x"}', "wrong_type"),
    ],
)
@pytest.mark.parametrize(("declared", "count"), [(None, 1), (1, 1), (1000, 1000)])
def test_what_ends_a_message_whole_counts_what_the_header_says(
    value: bytes, reason: str, declared: int | None, count: int
) -> None:
    decoded = Decoded(DISCORD, value, declared=declared)

    assert decoded.ends == [(0, count, reason)]
    assert decoded.errs[0].step == "decode"


@pytest.mark.parametrize("declared", [None, 1, 7])
@pytest.mark.parametrize(
    "value",
    [
        {"t": "PRESENCE_UPDATE", "d": {}},
        {"t": None},
        {"t": 5},
        {"t": ["GUILD_MEMBER_ADD"]},
        {},
        {"t": "PRESENCE", "d": "\ud800"},
    ],
)
def test_unknown_events_are_skipped(value: Any, declared: int | None) -> None:
    assert Decoded(DISCORD, value, declared=declared).ends == [(0, declared or 1, "unknown_event")]


@pytest.mark.parametrize("declared", [None, 1, 7])
def test_tombstones_are_skipped(declared: int | None) -> None:
    assert Decoded(DISCORD, None, declared=declared).ends == [(0, declared or 1, "tombstone")]


@pytest.mark.parametrize(
    ("declared", "found", "ends"),
    [
        (None, 0, [(0, 1, "empty")]),
        (0, 0, [(0, 1, "empty")]),
        (5, 0, [(0, 5, "items_mismatch")]),
        (5, 2, [(0, 5, "items_mismatch")]),
        (1, 2, [(0, 1, "items_mismatch")]),
        (0, 1, [(0, 1, "items_mismatch")]),
        (2, 2, [(0, 1, 0), (1, 1, 1)]),
        (None, 2, [(0, 1, 0), (1, 1, 1)]),
    ],
)
def test_the_header_is_held_against_what_is_found(declared: int | None, found: int, ends: list[Any]) -> None:
    assert Decoded(DISCORD, chunk([member(n) for n in range(found)]), declared=declared).ends == ends


def origin(*items: int) -> Origin:
    return Origin("id", "topic", 0, 5, NOW, items)


@pytest.mark.parametrize(
    ("items", "declared", "ends"),
    [
        ((1, 3), None, [(1, 1, 1), (3, 1, 3)]),
        ((3, 1, 3), 4, [(1, 1, 1), (3, 1, 3)]),
        ((1,), 5, [(1, 1, "items_mismatch")]),
        ((3, 4), 4, [(3, 1, 3), (4, 1, "items_mismatch")]),
        ((), None, [(n, 1, n) for n in range(4)]),
    ],
)
def test_a_replay_gives_only_the_items_it_names(items: tuple[int, ...], declared: int | None, ends: list[Any]) -> None:
    value = chunk([member(n) for n in range(4)])

    assert Decoded(DISCORD, value, declared=declared, origin=origin(*items)).ends == ends


def test_a_replay_that_still_does_not_decode_fails_the_items_it_names() -> None:
    assert Decoded(DISCORD, b"{", declared=4, origin=origin(1, 3)).ends == [(1, 1, "not_json"), (3, 1, "not_json")]
    assert Decoded(DISCORD, b"{}", origin=origin(2)).ends == [(2, 1, "unknown_event")]


def test_a_message_may_be_one_item() -> None:
    class Plain(Row, table="plain", primary_key="id"):
        id: int

    decoder = JsonDecoder(Plain)

    assert len(Decoded(decoder, {"id": 1}).oks) == 1
    assert [letter.reason for letter in Decoded(decoder, [{"id": 1}]).errs] == ["wrong_type"]


def test_rows_may_read_the_name_of_the_event() -> None:
    class Seen(Row, table="seen", primary_key="id"):
        id: int
        event: Annotated[str, From("$.t")]

    decoder = JsonDecoder(Events("t", {"A": Items("d", Seen), "B": Items("d", Seen)}, Skip("unknown_event")))
    decoded = Decoded(decoder, {"d": {"id": 1}, "t": "B"})

    assert normalizer(Seen).normalize(decoded.oks[0], NOW) == Seen(id=1, event="B")
    assert decoded.oks[0].payload.item is not None
    assert Decoded(decoder, {"t": "C"}).skipped[0][0] == "unknown_event"


@pytest.mark.parametrize(
    ("kind", "told", "is_typed"),
    [
        (Annotated[str, str.lower], "2020-01-01", True),
        (Annotated[str | None, Before(str.upper)], "2020-01-01", True),
        (date, date(2020, 1, 1), True),
        (bool, None, False),
    ],
)
def test_rows_may_read_the_name_of_the_event_as_anything(kind: Any, told: Any, is_typed: bool) -> None:
    class Seen(Row, table="seen", primary_key=("id",)):
        id: int
        event: Annotated[kind, From("$.t")]

    decoder = JsonDecoder(Events("t", {"2020-01-01": Items("d", Seen), "B": Items("d", Seen)}, Skip("unknown_event")))
    [envelope] = Decoded(decoder, {"t": "2020-01-01", "d": {"id": 1}}).oks
    assert (envelope.payload.item is not None) == is_typed
    if told is None:
        with pytest.raises(RecordFault, match="expected bool, got str"):
            normalizer(Seen).normalize(envelope, NOW)
    else:
        assert normalizer(Seen).normalize(envelope, NOW) == Seen(id=1, event=told)


def test_a_large_message() -> None:
    assert Decoded(DISCORD, add(note="x" * 30_000_000)).ends == [(0, 1, 1)]


def test_levels_are_counted_outside_of_strings() -> None:
    deep = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX

    assert nesting(deep) == DEPTH_MAX
    assert nesting(b"[" + deep + b"]") > DEPTH_MAX
    assert Decoded(DISCORD, add(note="[" * 10_000)).ends == [(0, 1, 1)]
    assert Decoded(DISCORD, add(note='"{' * 10_000)).ends == [(0, 1, 1)]


def test_letters_hold_no_values() -> None:
    for letter in Decoded(DISCORD, b'{"t": "GUILD_MEMBER_ADD", "d": "secret"}').errs + Decoded(DISCORD, b"secret").errs:
        assert "secret" not in letter.detail


def test_more_items_than_the_service_counts_end_whole() -> None:
    class Number(Row, table="numbers", primary_key="n"):
        n: int

    decoder = JsonDecoder(Events("t", {"many": Items("d", Number)}, otherwise=Skip("unknown_event")))
    record = Record("t", 0, 0, 0, 1, None, b'{"t": "many", "d": [' + b"0," * ITEMS_MAX + b"0]}", [], -1)
    oks: list[Envelope] = []
    errs: list[DeadLetter] = []

    decoder.decode(record, oks, errs, [])

    assert (oks, [(letter.reason, letter.count) for letter in errs]) == ([], [("too_large", 1)])


@pytest.mark.parametrize("padding", [0, 1, 100, 500, 2000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"":', b"}"), (b'[{"":', b"}]"), (b'{"": [', b"]}")])
def test_what_is_not_counted_is_not_too_deep(begin: bytes, end: bytes, padding: int) -> None:
    levels = nesting(begin)
    for depth in (DEPTH_MAX - levels, DEPTH_MAX, DEPTH_MAX + levels):
        times = depth // levels
        for beside in (b'"%s"' % (b"x" * padding), b"[" * 3 + b"]" * 3 + b" " * padding):
            inner = begin * times + b"1" + end * times
            value = json.dumps(add()).encode()[:-1]
            value += b',"a":%s,"b":%s}' % ((beside, inner) if padding % 2 else (inner, beside))
            assert Decoded(DISCORD, value).ends == [(0, 1, "too_deep" if depth + 1 > DEPTH_MAX else 1)]


class Named(Row, table="named", primary_key="id"):
    id: int
    t: Annotated[str | None, From("$.t")]


class Unnamed(Row, table="unnamed", primary_key="id"):
    id: int


@pytest.mark.parametrize("row", [Named, Unnamed])
@pytest.mark.parametrize("events", [{"A"}, {"A", "B"}])
def test_a_message_that_names_no_event_is_none_of_ours(row: type[Row], events: set[str]) -> None:
    decoder = JsonDecoder(Events("t", {name: Items("d", row) for name in events}, otherwise=Skip("unknown_event")))
    for named in ({}, {"t": None}, {"t": "not A"}, {"t": "C"}):
        found = Decoded(decoder, {**named, "d": {"id": 1}})
        assert [str(reason) for reason, _ in found.skipped] == ["unknown_event"], named
    assert len(Decoded(decoder, {"t": "A", "d": {"id": 1}}).oks) == 1
