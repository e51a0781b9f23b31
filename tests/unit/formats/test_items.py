"""How many items a message counts as: by its header, by what is found, by what a replay names."""

from typing import Any

import pytest

from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import ITEMS_MAX, DeadLetter, Envelope, Origin, Record
from lovelace_streams.rows import Row, Skip
from tests.unit.formats.messages import DISCORD, NOW, Decoded, chunk, member


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
    assert Decoded(DISCORD, b"{}", origin=origin(2)).ends == [(2, 1, "no_event")]


def test_more_items_than_the_service_counts_end_whole() -> None:
    class Number(Row, table="numbers", primary_key="n"):
        n: int

    decoder = JsonDecoder(Events("t", {"many": Items("d", Number)}, otherwise=Skip("unknown_event")))
    record = Record("t", 0, 0, 0, 1, None, b'{"t": "many", "d": [' + b"0," * ITEMS_MAX + b"0]}", [], -1)
    oks: list[Envelope] = []
    errs: list[DeadLetter] = []

    decoder.decode(record, oks, errs, [])

    assert (oks, [(letter.reason, letter.count) for letter in errs]) == ([], [("too_large", 1)])


def test_letters_hold_no_values() -> None:
    for letter in Decoded(DISCORD, b'{"t": "GUILD_MEMBER_ADD", "d": "secret"}').errs + Decoded(DISCORD, b"secret").errs:
        assert "secret" not in letter.detail
