"""JSON messages to items: one or many, and what one bad item or an odd byte costs."""

import json
from typing import Any

import pytest

from lovelace_streams.formats.events import Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.rows import Row
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.formats.messages import DISCORD, NOW, Decoded, add, chunk, member


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


def test_a_message_may_be_one_item() -> None:
    class Plain(Row, table="plain", primary_key="id"):
        id: int

    decoder = JsonDecoder(Plain)

    assert len(Decoded(decoder, {"id": 1}).oks) == 1
    assert [letter.reason for letter in Decoded(decoder, [{"id": 1}]).errs] == ["wrong_type"]


def test_items_need_not_be_of_an_event() -> None:
    class Plain(Row, table="plain", primary_key="id"):
        id: int

    decoded = Decoded(JsonDecoder(Items("d", Plain)), {"t": "anything", "d": [{"id": 1}, {"id": 2}]})

    assert [normalizer(Plain).normalize(envelope, NOW) for envelope in decoded.oks] == [Plain(id=1), Plain(id=2)]


def test_a_large_message() -> None:
    assert Decoded(DISCORD, add(note="x" * 30_000_000)).ends == [(0, 1, 1)]
