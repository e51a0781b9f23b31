"""A row by itself: pickled, made in one line, and what it shares with others."""

import pickle
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import pytest

from lovelace_streams.errors import RecordFault
from lovelace_streams.rows import UNSET, Before, From, FromKafka, Lenient, Pii, RecordContext, Row

OF = RecordContext(timestamp=datetime(2024, 1, 1, tzinfo=UTC))


class Member(Row, table="members", primary_key=("guild_id", "user_id"), version="seen_at"):
    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    name: Annotated[str | None, From("nick", "user.name"), Before(str), str.lower, Pii("username")]
    score: Annotated[int, msgspec.Meta(ge=0)] | None
    active: Annotated[bool, Lenient] = True
    roles: list[int] = []
    seen_at: Annotated[datetime, FromKafka("timestamp")]


def test_rows_survive_pickling_with_what_is_absent() -> None:
    row = Member.from_raw({"d": {"guild_id": 1}, "user": {"id": "2"}}, of=OF)

    copied = pickle.loads(pickle.dumps(row))

    assert copied == row
    assert copied.name is UNSET


def test_from_raw_tries_a_payload_in_one_line() -> None:
    row = Member.from_raw({"user": {"id": "2", "name": "Ann"}}, root={"d": {"guild_id": "1"}}, of=OF)

    assert (row.guild_id, row.user_id, row.name, row.active, row.roles) == (1, 2, "ann", True, [])
    assert row.seen_at == datetime(2024, 1, 1, tzinfo=UTC)


def test_defaults_are_not_shared() -> None:
    raw = {"d": {"guild_id": 1}, "user": {"id": 2}}

    Member.from_raw(raw, of=OF).roles.append(5)

    assert Member.from_raw(raw, of=OF).roles == []


def test_from_raw_names_path_and_kinds() -> None:
    with pytest.raises(RecordFault) as caught:
        Member.from_raw({"d": {"guild_id": 1}, "user": {"id": []}}, of=OF)

    assert str(caught.value) == "wrong_type: expected int, got list at $.user.id"
