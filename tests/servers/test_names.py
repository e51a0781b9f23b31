"""Columns with names that no field can have: every way to write, on the real servers, and in what is said of them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import clickhouse_connect
import psycopg
import pytest

from lovelace_streams import UNSET, Name, Row
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Reason
from lovelace_streams.settings import ClickHouseSettings, PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.clickhouse import ddl as clickhouse_ddl
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres.ddl import create_table

WRITTEN, SUPERSEDED = RowOutcome.WRITTEN, RowOutcome.SUPERSEDED
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NAMES = [
    ("class", "my col", "with-dash"),
    ("k8s.pod.name", "50%", "%s"),
    ('quo"te', "{x}", "a\\b"),
    ("s", "excluded", "n"),
    ("from_raw", "__table__", "UPPER"),
    ("order", "Ünï ç", "lovelace_0"),
]
"""The key, the value and the version."""


def row_class(names: tuple[str, str, str], *, optional: bool = True) -> type[Row]:
    key, value, version = names
    fields = {
        "field_1": Annotated[int, Name(key)],
        "field_2": Annotated[(str | None) if optional else str, Name(value)],
        "field_3": Annotated[datetime, Name(version)],
    }
    body = {"__annotations__": fields, "__module__": __name__}
    return type(Row)("Odd", (Row,), body, table="odd", primary_key="field_1", version="field_3")


def entries(row: type[Row], value: Any, *, minutes: int = 0, count: int = 20) -> list[Entry]:
    at = NOON + timedelta(minutes=minutes)
    return [Entry(row(field_1=n, field_2=value, field_3=at), sequence=n) for n in range(count)]


@pytest.fixture
def run(database: str):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection.execute


@pytest.fixture
def opened(database: str):
    made = []

    def make(*rows: type[Row], **options: Any) -> PostgresWriter:
        one_by_one = options.pop("one_by_one", False)
        writer = PostgresWriter(PostgresSettings(database, **options), *rows, one_by_one=one_by_one)
        made.append(writer)
        writer.open()
        return writer

    yield make
    for writer in made:
        writer.close()


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("names", NAMES, ids=map(str, NAMES))
def test_every_way_to_write_takes_them(
    run: Callable[..., Any], opened, names: tuple[str, str, str], one_by_one: bool
) -> None:
    row = row_class(names)
    quoted = [psycopg.sql.Identifier(name).as_string() for name in names]
    run(
        create_table(row).replace(
            f"{quoted[1]} text", f"{quoted[1]} varchar(9) default 'd' check ({quoted[1]} <> 'bad')"
        )
    )
    writer = opened(row, one_by_one=one_by_one)
    shown = f"select distinct {quoted[1]} from odd"

    assert writer.write(entries(row, "copied")) == [WRITTEN] * 20
    assert writer.write(entries(row, "merged", minutes=1)) == [WRITTEN] * 20
    assert writer.write(entries(row, UNSET, minutes=2)) == [WRITTEN] * 20
    assert writer.write(entries(row, "older")) == [SUPERSEDED] * 20
    assert run(shown).fetchall() == [("merged",)]
    results = writer.write(
        [*entries(row, "x", minutes=3), *entries(row, "bad", minutes=4, count=2), *entries(row, "y", minutes=5)]
    )
    assert [result for result in results if isinstance(result, Refusal)] == [
        Refusal(Reason.CHECK, "23514", f"odd_{names[1]}_check" if names[1] != "__table__" else "odd___table___check")
    ] * 2
    assert run(shown).fetchall() == [("y",)]
    refused = writer.write(entries(row, "much too long", minutes=6, count=1) + entries(row, 7, minutes=6, count=1))
    assert [(result.reason, result.rule) for result in refused] == [
        (Reason.BAD_VALUE, ""),
        (Reason.BAD_VALUE, names[1]),
    ]


@pytest.mark.parametrize("names", NAMES, ids=map(str, NAMES))
def test_rules_that_only_a_try_tells_find_them(run: Callable[..., Any], opened, names: tuple[str, str, str]) -> None:
    row = row_class(names)
    run(create_table(row))
    value = psycopg.sql.Identifier(names[1]).as_string()
    run(f"create unique index only_one on odd ({value}) where {value} = 'one'")
    writer = opened(row)

    results = writer.write(entries(row, "one", count=3) + entries(row, "many", minutes=1, count=3))
    assert results[1:3] == [Refusal(Reason.UNIQUE, "23505", "only_one")] * 2
    assert run(f"select count(*) from odd where {value} = 'many'").fetchall() == [(3,)]


def test_several_connections_and_added_columns_take_them(run: Callable[..., Any], opened) -> None:
    row = row_class(("my key", "50%", "seen at"))
    run('create table odd ("my key" bigint primary key, "seen at" timestamptz not null)')
    writer = opened(row, pool=2, evolution="add")

    assert writer.write(entries(row, "x", count=300)) == [WRITTEN] * 300
    assert run("""select count(*) from odd where "50%" = 'x'""").fetchall() == [(300,)]
    run('alter table odd rename column "my key" to "your key"')
    with pytest.raises(
        DeploymentFault, match="the table has no column my key|no primary key or unique index on .my key."
    ):
        writer.open()


def test_a_table_with_an_odd_name_takes_rows(run: Callable[..., Any], opened) -> None:
    class Rate(Row, table='sales."100% rates"', primary_key="class_"):
        class_: Annotated[int, Name("class")]
        rate: Annotated[Decimal | None, Name("rate %")]

    run("create schema sales")
    run(create_table(Rate))
    writer = opened(Rate)
    for rate in (Decimal(1), UNSET, Decimal(3)):
        assert writer.write([Entry(Rate(class_=n, rate=rate)) for n in range(9)]) == [WRITTEN] * 9


@pytest.mark.parametrize("names", NAMES, ids=map(str, NAMES))
def test_clickhouse_takes_them(clickhouse: str, names: tuple[str, str, str]) -> None:
    row = row_class(names, optional=False)
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        client.command(clickhouse_ddl.create_table(row).partition(";")[0])
        writer = ClickHouseWriter(ClickHouseSettings(clickhouse), row)
        writer.open()
        assert writer.write(entries(row, "new", minutes=1)) == [WRITTEN] * 20
        assert writer.write(entries(row, "old")) == [WRITTEN] * 20
        [refusal] = writer.write([Entry(row(field_1=1, field_2=7, field_3=NOON), sequence=1)])
        assert (refusal.reason, refusal.rule) == (Reason.BAD_VALUE, names[1])
        writer.close()
        columns = client.query("select * from odd final").named_results()
        assert {each[names[1]] for each in columns} == {"new"}
