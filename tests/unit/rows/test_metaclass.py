"""What the annotations of a row class say of its table, and contradictions that are refused."""

from datetime import datetime
from typing import Annotated

import msgspec
import pytest

from lovelace_streams.rows import Before, From, FromKafka, Lenient, Pii, Row


class Member(Row, table="members", primary_key=("guild_id", "user_id"), version="seen_at"):
    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    name: Annotated[str | None, From("nick", "user.name"), Before(str), str.lower, Pii("username")]
    score: Annotated[int, msgspec.Meta(ge=0)] | None
    active: Annotated[bool, Lenient] = True
    roles: list[int] = []
    seen_at: Annotated[datetime, FromKafka("timestamp")]


def columns(row: type[Row]) -> dict[str, object]:
    return {column.name: column for column in row.__table__.columns}


def test_a_table_is_what_the_class_says() -> None:
    table = Member.__table__

    assert (table.name, table.key, table.version) == ("members", ("guild_id", "user_id"), "seen_at")
    assert [column.name for column in table.columns] == [
        "guild_id", "user_id", "name", "score", "active", "roles", "seen_at",
    ]  # fmt: skip
    assert table.partial


def test_a_column_is_what_its_annotation_says() -> None:
    name, score, active = (columns(Member)[n] for n in ("name", "score", "active"))

    assert (name.type, name.nullable, name.source.paths, name.pii) == (str, True, ("nick", "user.name"), "username")
    assert (name.before, name.after) == ((str,), (str.lower,))
    assert (score.type, score.nullable, score.meta[0].ge, score.source.paths) == (int, True, 0, ("score",))
    assert (active.lenient, active.default, active.after) == (True, True, ())


@pytest.mark.parametrize(
    "declare",
    [
        lambda: type(Row)("X", (Row,), {"__annotations__": {"a": int}}, table="x"),
        lambda: type(Row)("X", (Row,), {"__annotations__": {"a": int}}, table="x", primary_key="b"),
        lambda: type(Row)("X", (Row,), {"__annotations__": {"a": int | None}}, table="x", primary_key="a"),
        lambda: type(Row)("X", (Row,), {"__annotations__": {"a": int}}),
        lambda: type(Row)(
            "X", (Row,), {"__annotations__": {"a": Annotated[int, From("a"), From("b")]}}, table="x", primary_key="a"
        ),
    ],
    ids=["no key", "unknown key", "nullable key", "no table", "two sources"],
)
def test_a_class_that_contradicts_itself_is_refused(declare: object) -> None:
    with pytest.raises(TypeError):
        assert declare().__table__
