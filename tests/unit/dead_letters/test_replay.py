"""Which letters a replay takes, and what it says of the others."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.admin.times import instant
from lovelace_streams.dead_letters.reader import Filter, StoredDeadLetter, summary
from lovelace_streams.dead_letters.replay import (
    FailedItemIndex,
    ReplayDecision,
    ReplayStatus,
    counts_of,
    plan_replay,
    replay_headers,
)
from lovelace_streams.kafka.headers import parse_origin
from lovelace_streams.runtime.ranges import FailedItems

ALL = Filter()


def letter(offset: int = 0, *, partition: int = 0, topic_id: str = "T", **more: Any) -> StoredDeadLetter:
    given: dict[str, Any] = {
        "origin": f"{topic_id}/raw/{partition}/{offset}",
        "timestamp": 1000,
        "reason": "check",
        "detail": "",
        "step": "upsert",
        "job": "june",
        "failed": "0-0:check",
        "replays": 0,
        "truncated": False,
        "key": None,
        "value": None,
        "at": 5000,
    }
    return StoredDeadLetter(**(given | more))


def status_of(one: StoredDeadLetter, wanted: Filter = ALL, **known: Any) -> ReplayStatus:
    [decision] = plan_replay([one], wanted, **known)
    return decision.status


@pytest.mark.parametrize(
    ("one", "known", "expected"),
    [
        (letter(), {}, ReplayStatus.REPLAY),
        (letter(origin="?/dlq/0/1"), {}, ReplayStatus.NOT_OURS),
        (letter(failed=""), {}, ReplayStatus.NOT_OURS),
        (letter(), {"topics": ["raw"]}, ReplayStatus.REPLAY),
        (letter(), {"topics": ["other"]}, ReplayStatus.NOT_OURS),
        (letter(), {"topics": ["other"], "wanted": Filter(topic="raw")}, ReplayStatus.REPLAY),
        (
            letter(),
            {"topics": ["other"], "ledger": FailedItemIndex({("T", 0, 0): {0: ("check", False)}})},
            ReplayStatus.REPLAY,
        ),
        (letter(truncated=True), {}, ReplayStatus.TRUNCATED),
        (letter(replays=3), {}, ReplayStatus.MAX_REPLAYS),
        (letter(replays=2), {"max_replays": 2}, ReplayStatus.MAX_REPLAYS),
        (letter(), {"sent": {"T/raw/0/0": 1}}, ReplayStatus.REPLAYED),
        (letter(replays=1), {"sent": {"T/raw/0/0": 1}}, ReplayStatus.REPLAY),
        (letter(), {"ledger": FailedItemIndex({})}, ReplayStatus.VOID),
        (
            letter(topic_id="made-again"),
            {"ledger": FailedItemIndex({("T", 0, 0): {0: ("check", False)}})},
            ReplayStatus.VOID,
        ),
        (letter(), {"ledger": FailedItemIndex({("T", 0, 0): {0: ("check", False)}})}, ReplayStatus.REPLAY),
        (letter(), {"ledger": FailedItemIndex({("T", 0, 0): {0: ("check", True)}})}, ReplayStatus.RESOLVED),
        (
            letter(truncated=True),
            {"ledger": FailedItemIndex({("T", 0, 0): {0: ("check", True)}})},
            ReplayStatus.RESOLVED,
        ),
        (letter(), {"limit": 0}, ReplayStatus.OVER_LIMIT),
    ],
)
def test_every_letter_goes_or_is_told_why_it_stays(one: StoredDeadLetter, known: dict, expected: ReplayStatus) -> None:
    assert status_of(one, **known) is expected


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (Filter(reason="null"), True),
        (Filter(reason="check"), True),
        (Filter(reason="unique"), False),
        (Filter(job="june", step="upsert"), True),
        (Filter(job="july"), False),
        (Filter(step="decode"), False),
        (Filter(topic="raw", partition=2, offsets=(7, 7)), True),
        (Filter(topic="other"), False),
        (Filter(partition=0), False),
        (Filter(offsets=(8, 9)), False),
        (Filter(since=5000, until=5001), True),
        (Filter(since=5001), False),
        (Filter(until=5000), False),
    ],
)
def test_what_is_asked_for(wanted: Filter, taken: bool) -> None:
    one = letter(7, partition=2, failed="0-0:check, 4-5:null")

    assert (status_of(one, wanted) is ReplayStatus.REPLAY) is taken


def test_a_summary_has_the_most_frequent_first_and_the_same_order_each_time() -> None:
    missing = letter(1, step="normalize", failed="0-0:missing")
    often = letter(2, failed="0-2:unique")

    in_order = [("unique", "upsert", "june", 1, 3), ("check", "upsert", "june", 1, 1)]
    in_order.append(("missing", "normalize", "june", 1, 1))
    assert summary([missing, letter(), often]) == summary([often, letter(), missing]) == in_order


def test_the_ledger_says_which_items_go_not_the_letter() -> None:
    """The letter may be of another reading than the one that was accepted, and its list may be cut short."""
    known = {0: ("check", True), 1: ("check", False), 2: ("check", False), 9: ("null", False)}
    [decision] = plan_replay([letter(failed="1-1:check, …1 more")], ALL, ledger=FailedItemIndex({("T", 0, 0): known}))

    assert decision.items == [FailedItems(1, 2, "check"), FailedItems(9, 9, "null")]
    assert counts_of([decision]) == [("replay", "check", 1, 2), ("replay", "null", 1, 1)]
    headers = [("lovelace-job-id", b"june"), ("lovelace-failed-items", b"1-1:check"), ("lovelace-replays", b"0"),
               ("__connect.errors.offset", b"7"), ("trace", None)]  # fmt: skip
    assert replay_headers(headers, decision) == [
        ("lovelace-job-id", b"june"),
        ("trace", None),
        ("lovelace-failed-items", b"1-2:check, 9-9:null"),
        ("lovelace-replays", b"1"),
    ]
    origin = parse_origin(b"T/raw/0/0", b"1", dict(replay_headers(headers, decision))["lovelace-failed-items"])
    assert origin is not None
    assert origin.items == (1, 2, 9)


@given(
    st.lists(
        st.builds(
            lambda topic, partition, offset, when: letter(offset, topic_id=topic, partition=partition, timestamp=when),
            st.sampled_from("TU"),
            st.integers(0, 1),
            st.integers(0, 9),
            st.integers(0, 5),
        ),
        unique_by=lambda one: one.origin,
    ),
    st.none() | st.integers(0, 12),
)
def test_in_a_partition_the_newest_go_first_and_all_are_accounted_for(letters: list, limit: int | None) -> None:
    decisions = plan_replay(letters, ALL, limit=limit)

    assert sorted(decision.letter.origin for decision in decisions) == sorted(one.origin for one in letters)
    going = [decision.letter.source for decision in decisions if decision.status is ReplayStatus.REPLAY]
    assert len(going) == len(letters[:limit])
    for partition in {(it.topic_id, it.partition) for it in going if it}:
        offsets = [it.offset for it in going if it and (it.topic_id, it.partition) == partition]
        assert offsets == sorted(offsets, reverse=True)


def test_a_header_names_no_more_items_than_a_message_may_hold() -> None:
    one = letter(failed=", ".join(["0-99999:check"] * 2000))

    assert len(one.items) == 100_000
    assert parse_origin(b"T/raw/0/0", b"1", one.failed.encode()) is None


def test_counts_name_letters_without_items_too() -> None:
    assert counts_of([ReplayDecision(letter(failed=""), ReplayStatus.NOT_OURS, [])]) == [("not_ours", "", 1, 0)]


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-31", "2026-01-31T09:00:00", "-2", "2w", "h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        instant(text)
