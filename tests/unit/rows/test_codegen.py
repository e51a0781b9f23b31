"""What the generator writes, line by line: the source of a row class never changes by accident."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from lovelace_streams.records import Origin, Record
from lovelace_streams.rows import Before, Epoch, From, FromKafka, Lenient, Row
from lovelace_streams.rows.codegen import UseInterpreter, plain, stamp
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.targets import Target
from lovelace_streams.rows.values import parse

GENERATED = Path(__file__).parent / "generated"
NOW = 1_700_000_000_000


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Member(Row, table="members", primary_key=("guild_id", "user_id"), version="seen_at"):
    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    username: Annotated[str | None, From("user.username"), str.lower]
    display_name: Annotated[str | None, From("nick", "user.global_name", "user.username")]
    roles: list[int] | None
    joined_at: datetime | None
    seen_at: Annotated[datetime, FromKafka("timestamp")]


class Blanks(Row, table="blanks", primary_key="id"):
    """Every pair of what is absent and what is null, with a conversion, without one, and as a chain of tests."""

    id: int
    number: int
    number_or: int = 5
    number_none: int | None
    number_both: int | None = 5
    number_null: int | None = None
    text: str
    text_or: str = "x"
    text_none: str | None
    text_both: str | None = "x"
    text_null: str | None = None
    instant: datetime
    instant_or: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    instant_none: datetime | None
    instant_both: datetime | None = datetime(2020, 1, 1, tzinfo=UTC)
    numbers: list[int] = []
    decimal: Decimal
    decimal_none: Decimal | None


class Kafka(Row, table="kafka", primary_key=("topic", "partition", "offset"), version="at"):
    topic: Annotated[str, FromKafka("topic")]
    partition: Annotated[int, FromKafka("partition")]
    offset: Annotated[int, FromKafka("offset"), msgspec.Meta(ge=0)]
    at: Annotated[datetime, FromKafka("timestamp")]
    at_ms: Annotated[int | None, FromKafka("timestamp")]
    key: Annotated[str | None, FromKafka("key"), str.lower]
    raw_key: Annotated[bytes, FromKafka("key")]


class Converted(Row, table="converted", primary_key="id", version="version"):
    id: int
    version: int
    trimmed: Annotated[str, str.strip, str.lower, msgspec.Meta(max_length=5)]
    counted: Annotated[int | None, abs, msgspec.Meta(ge=0, lt=10)]
    before: Annotated[float, Before(float)]
    before_or: Annotated[str | None, Before(str)] = "x"
    lenient: Annotated[bool, Lenient]
    ms: Annotated[datetime, Epoch("ms")]
    s: Annotated[datetime | None, Epoch("s")]
    number: float | None
    day: date
    uuid: UUID | None
    colour: Colour
    choice: Literal["a", "b"] | None = "a"
    mixed: Literal["a", 1] | None
    floats: list[float]
    texts: list[str] | None
    whole: dict | None


class Places(Row, table="places", primary_key="id"):
    """One place in two ways, several places, names that are no identifiers, places deep below message and item."""

    id: int
    id_text: Annotated[str, From("id"), Lenient()]
    either: Annotated[int | None, From("a", "b.c", "$.r.d")]
    either_or: Annotated[str, From("b.e.f", "class.with-dash")] = "x"
    nullable: Annotated[str | None, From("b.x")] = None
    also_nullable: Annotated[str | None, From("b.x")]
    deep: Annotated[str | None, From("$.d.é._x")]


class Ruled(Row, table="ruled", primary_key="id"):
    id: int
    x: int | None

    def __post_init__(self) -> None:
        if self.x == 5:
            raise ValueError


CASES = [(Member, "d"), (Member, "$"), (Blanks, "$"), (Kafka, "$"), (Converted, "d.items"), (Places, "d"), (Ruled, "$")]


def expectation(row: type[Row], path: str) -> Path:
    """The file with the source as an earlier version generated it; to change one on purpose, write it by hand."""
    return GENERATED / f"{row.__name__}{path.removeprefix('$') and '.'}{path.removeprefix('$')}.txt"


@pytest.mark.parametrize(("row", "path"), CASES)
def test_the_source_is_the_one_that_was_read_before(row: type[Row], path: str) -> None:
    assert Target(row, path).map.__doc__ == expectation(row, path).read_text(encoding="utf-8")


def test_every_expectation_is_compared() -> None:
    assert set(GENERATED.iterdir()) == {expectation(row, path) for row, path in CASES}


def test_a_replayed_record_is_left_to_the_interpreter() -> None:
    target = Target(Kafka)
    message = msgspec.json.decode(b"{}", type=target.message_type())
    record = Record("topic", 0, 7, 0, 0, b"K", None, [], NOW)

    made: Any = target.map(message, message, record, latest(NOW))
    assert (made.offset, made.key, made.raw_key) == (7, "k", b"K")
    record.origin = Origin("id", "topic", 0, 5, NOW)
    with pytest.raises(UseInterpreter):
        target.map(message, message, record, latest(NOW))


def test_a_record_without_a_timestamp_is_left_to_the_interpreter() -> None:
    assert stamp(1) == datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    with pytest.raises(UseInterpreter):
        stamp(-1)


@pytest.mark.parametrize("text", ['"a"', '"\\ud83d\\ude00"', "1.10", "1e5", "9" * 30, '{"a": [1, null, 1.0]}', "[]"])
def test_raw_json_is_read_exactly(text: str) -> None:
    assert repr(plain(text.encode())) == repr(parse(text))
