"""Law 8 on ClickHouse: any block, any cut, any replay ends as rows written one by one, and as a table in plain Python.

The table is drawn from what a ClickHouse table can refuse or round; the stored rows, the block and its cuts are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import clickhouse_connect
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lovelace_streams.rows import Row
from lovelace_streams.settings import ClickHouseSettings
from lovelace_streams.writers import Entry, Refusal, sequence_of
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from tests.columns import column_block
from tests.examples import examples


class Whole(Row, table="t", primary_key=("k", "name")):
    k: int
    name: str
    a: int | None = None
    note: str | None = None
    amount: Decimal | None = None
    at: datetime | None = None
    day: date | None = None
    kind: str | None = None
    ref: UUID | None = None
    tags: list[int] = []
    v: int


class Versioned(Row, table="t", primary_key=("k", "name"), version="v"):
    k: int
    name: str
    a: int | None = None
    note: str | None = None
    amount: Decimal | None = None
    at: datetime | None = None
    day: date | None = None
    kind: str | None = None
    ref: UUID | None = None
    tags: list[int] = []
    v: int


class WholeToo(Whole, table="t", primary_key=("k", "name")):
    """Another class of the table."""


class VersionedToo(Versioned, table="t", primary_key=("k", "name"), version="v"):
    """Another class of the table."""


CLASSES = {Whole: (Whole, Whole, WholeToo), Versioned: (Versioned, Versioned, VersionedToo)}
NOON = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
VALUES: dict[str, list[Any]] = {
    "a": [None, 1, 2, 127, 128, -129, 2**63 - 1],
    "note": [None, "", "ok", "bad", "n\0l", "ü", "\ud800", "toolong"],
    "amount": [None, Decimal(1), Decimal("-1.25"), Decimal("1.259"), Decimal("99999999.99"), Decimal("1e9"), 1],
    "at": [None, NOON, datetime(1899, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC), NOON.replace(tzinfo=None)],
    "day": [None, date(2024, 5, 1), date(1900, 1, 1), date(2149, 6, 7), date(1899, 1, 1)],
    "kind": [None, "happy", "sad", "angry"],
    "ref": [None, UUID(int=7), "no UUID"],
    "tags": [[], [1, 2], [2**63], [None], None],
}
NARROWER = {
    "a": ["Nullable(Int64)", "Nullable(Int8)", "Nullable(UInt8)"],
    "note": ["Nullable(String)", "LowCardinality(Nullable(String))", "Nullable(FixedString(4))"],
    "amount": ["Nullable(Decimal(10, 2))", "Nullable(Decimal(38, 9))"],
    "at": ["Nullable(DateTime64(6, 'UTC'))", "Nullable(DateTime64(3))", "Nullable(DateTime('UTC'))"],
    "day": ["Nullable(Date32)", "Nullable(Date)"],
    "kind": ["Nullable(String)", "Nullable(Enum8('happy' = 1, 'sad' = 2))"],
    "ref": ["Nullable(UUID)", "Nullable(String)"],
    "tags": ["Array(Int64)"],
}
RULES = {
    "check": "constraint no_bad check note is null or note != 'bad'",
    "check_two": "constraint small check a is null or a < 3",
    "check_raises": "constraint raising check intDiv(10, coalesce(a, 1) - 2) < 100",
}


@st.composite
def rows(draw: st.DrawFn, kind: type[Row], *, careful: bool) -> Row:
    values = {
        name: draw(st.sampled_from([options[1]] * 6 + options if careful else options))
        for name, options in VALUES.items()
    }
    one = draw(st.sampled_from(CLASSES[kind]))
    return one(k=draw(st.integers(1, 3)), name=draw(st.sampled_from(["x", "Y"])), v=draw(st.integers(-2, 2)), **values)


@st.composite
def blocks(draw: st.DrawFn, kind: type[Row]) -> list[Entry]:
    careful = draw(st.booleans())
    places = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12, unique=True))
    return [Entry(draw(rows(kind, careful=careful)), sequence=sequence_of(*place)) for place in sorted(places)]


@dataclass
class World:
    client: Any
    dsn: str

    def fresh(self, kind: type[Row], types: dict[str, str], rules: set[str]) -> None:
        columns = ["k Int64", "name String", *(f"{name} {type_}" for name, type_ in types.items()), "v Int64"]
        version = "_version UInt128" if kind is Versioned else "_version UInt64"
        lines = ", ".join([*columns, version, *(RULES[rule] for rule in sorted(rules))])
        self.client.command("drop table if exists t sync")
        self.client.command(f"create table t ({lines}) engine = ReplacingMergeTree(_version) order by (k, name)")

    def writer(self, kind: type[Row], *, one_by_one: bool = False) -> ClickHouseWriter:
        writer = ClickHouseWriter(ClickHouseSettings(self.dsn), *dict.fromkeys(CLASSES[kind]), one_by_one=one_by_one)
        writer.open()
        return writer

    def table(self) -> list[tuple[Any, ...]]:
        return self.client.query("select * from t final order by k, name").result_rows


@pytest.fixture
def world(clickhouse: str):
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        yield World(client, clickhouse)


def comparable(results: list[object]) -> list[object]:
    """What has to be equal: who was refused and why. Superseded or written is the cut's."""
    return [(r.reason, r.code, r.rule) if isinstance(r, Refusal) else None for r in results]


def by_way(writer: ClickHouseWriter, block: list[Entry], way: str) -> Sequence[Entry]:
    if way == "columns":
        return writer.encode_columns(column_block(block))
    return writer.encode(block) if way == "encoded" else block


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data(), kind=st.sampled_from([Whole, Versioned]), rules=st.sets(st.sampled_from(sorted(RULES))))
def test_any_cut_and_any_replay_end_as_one_by_one(world: World, data: st.DataObject, kind: type[Row], rules: set[str]):
    types = {name: data.draw(st.sampled_from(options), label=name) for name, options in NARROWER.items()}
    block = data.draw(blocks(kind), label="block")
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=12, max_size=12), label="cut")
    ways = data.draw(st.lists(st.sampled_from(["rows", "encoded", "columns"]), min_size=12, max_size=12), label="way")
    again = data.draw(st.permutations(range(len(block))), label="replay")

    world.fresh(kind, types, rules)
    writer = world.writer(kind, one_by_one=True)
    expected = comparable(writer.write(block)), world.table()
    writer.close()
    event(f"refused: {sum(result is not None for result in expected[0]) > 0}")

    world.fresh(kind, types, rules)
    writer = world.writer(kind)
    results: list[object] = []
    for size, way in zip(sizes, ways, strict=True):
        if len(results) < len(block):
            part = block[len(results) : len(results) + size]
            results += writer.write(by_way(writer, part, way))
    assert (comparable(results), world.table()) == expected

    replay = [block[place] for place in again]
    writer.write(by_way(writer, replay, ways[0]))  # a restart, and rows that come late
    assert world.table() == expected[1]
    writer.close()

    winners: dict[tuple[int, str], tuple[int, int]] = {}
    for entry, refused in zip(block, expected[0], strict=True):
        if refused is None:
            key, rank = (entry.row.k, entry.row.name), (entry.row.v if kind is Versioned else 0, entry.sequence)
            winners[key] = max(rank, winners.get(key, rank))
    version = {key: (rank[0] + 2**63 << 64 if kind is Versioned else 0) | rank[1] for key, rank in winners.items()}
    assert {(row[0], row[1]): row[-1] for row in expected[1]} == version
