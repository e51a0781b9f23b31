"""Any setting of a role, a database or the environment gives the same table and the same refusals."""

import os
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, RowResult
from lovelace_streams.writers.postgres import PostgresWriter
from tests.examples import examples


class Plain(Row, table="plain", primary_key="id", version="seen"):
    id: int
    text: str | None
    amount: Decimal | None
    ratio: float
    at: datetime
    day: date
    tags: list[str] | None
    data: dict[str, Any]
    way: str | None
    seen: datetime


class Ruled(Row, table="ruled", primary_key="id"):
    id: int
    text: str | None
    at: datetime


DDL = """
create table parents (name text primary key);
insert into parents values ('日本'), ('NULL'), (E'a\\\\b');
create table plain (id bigint primary key, text text check (text <> 'no'), amount numeric, ratio float8, at timestamptz,
  day date, tags text[], data jsonb, way jsonpath, seen timestamptz);
create table ruled (id bigint primary key, text text references parents, at timestamptz, local text, null_text bool);
create function rule() returns trigger language plpgsql as $$begin
  new.local := new.at::date || ' ' || new.at || ' ' || '\\n' || interval '1 day 2 hours' || ' ' || (0.1::float8 + 0.2);
  new.null_text := (new.text = null);
  if new.text = 'own' then raise 'own'; end if;
  return new;
end$$;
create trigger rule before insert or update on ruled for each row execute function rule();
create role {role} login password 'x';
grant all on all tables in schema public to {role};
grant set on parameter session_replication_role to {role};
"""

SETTINGS: Mapping[str, list[str]] = {
    "array_nulls": ["off"],
    "backslash_quote": ["on"],
    "bytea_output": ["escape"],
    "client_encoding": ["LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP"],
    "client_min_messages": ["debug5", "error"],
    "constraint_exclusion": ["on"],
    "datestyle": ["German", "SQL, DMY", "Postgres, YMD"],
    "default_transaction_deferrable": ["on"],
    "default_transaction_isolation": ["serializable", "repeatable read"],
    "enable_indexscan": ["off"],
    "escape_string_warning": ["on"],
    "exit_on_error": ["on"],
    "extra_float_digits": ["-15", "0"],
    "idle_in_transaction_session_timeout": ["50ms"],
    "intervalstyle": ["iso_8601", "sql_standard"],
    "lock_timeout": ["10s"],
    "plan_cache_mode": ["force_generic_plan", "force_custom_plan"],
    "plpgsql.extra_errors": ["all"],
    "plpgsql.variable_conflict": ["error", "use_variable"],
    "quote_all_identifiers": ["on"],
    "row_security": ["off"],
    "search_path": ["public", "public, pg_catalog"],
    "session_replication_role": ["replica", "local"],
    "standard_conforming_strings": ["off"],
    "statement_timeout": ["5s"],
    "timezone": ["Asia/Kolkata", "America/St_Johns"],
    "transaction_timeout": ["5s"],
    "transform_null_equals": ["on"],
    "xmloption": ["document"],
}
ENVIRONMENT: Mapping[str, list[str]] = {
    "PGCLIENTENCODING": ["LATIN1", "SQL_ASCII"],
    "PGDATESTYLE": ["German", "SQL, DMY"],
    "PGTZ": ["Asia/Tokyo"],
    "PGGEQO": ["off"],
    "PGAPPNAME": ["another"],
    "PGOPTIONS": [
        "-c array_nulls=off -c intervalstyle=iso_8601",
        "-c standard_conforming_strings=off -c quote_all_identifiers=on",
    ],
}


def some(choices: Mapping[str, list[str]], most: int) -> st.SearchStrategy[dict[str, str]]:
    """Up to so many of them, with a value each."""
    each = st.sampled_from(sorted(choices)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(choices[name]))
    )
    return st.lists(each, max_size=most).map(dict)


AT = datetime(2024, 3, 31, 1, 30, 0, 123456, UTC)


def plain(number: int, **changes: Any) -> Entry:
    values = {
        "id": number, "text": 'q" \\ {,} NULL 日本 é\n', "amount": Decimal("1E-20"), "ratio": 0.1 + 0.2, "at": AT,
        "day": date(2024, 1, 2), "tags": ["NULL", "日本", "a\\b", ""], "data": {"k": ["'", None]}, "way": "$.a",
        "seen": AT,
    }  # fmt: skip
    return Entry(Plain(**{**values, **changes}))


def blocks() -> Iterator[list[Entry]]:
    """New rows in a COPY, the same ones merged, partial ones, refused ones."""
    new = [plain(n, ratio=n / 7) for n in range(20)]
    yield new
    yield [plain(n, text=None, amount=None, tags=None, seen=AT.replace(day=30 + n % 2)) for n in range(20)]
    yield [plain(1, text=UNSET, amount=UNSET, data={"n": 1e300}), plain(30, tags=UNSET)]
    yield [plain(40, text="no"), plain(41, way="$.a["), plain(42, day=date(9999, 12, 31))]
    texts = ["日本", "NULL", "a\\b", None, "own", "not there", "日本"]
    yield [Entry(Ruled(id=n, text=text, at=AT)) for n, text in enumerate(texts)]


class World:
    """A database, its administrator, and a role that writes."""

    def __init__(self, dsn: str) -> None:
        self.role = f"worker_{uuid.uuid4().hex}"
        self.dsn = f"postgresql://{self.role}:x@{dsn.partition('@')[2]}"
        self.admin = psycopg.connect(dsn, autocommit=True, client_encoding="UTF8")
        self.admin.execute(DDL.format(role=self.role))

    def write(self, role: Mapping[str, str], environment: Mapping[str, str]) -> tuple[list[RowResult], list[Any]]:
        """What comes of all blocks under these settings: the results, and the tables."""
        self.admin.execute(f"truncate plain, ruled; alter role {self.role} reset all")
        for name, value in role.items():
            target = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
            parts = sql.SQL(", ").join(value.split(", ")) if name == "search_path" else sql.Literal(value)
            self.admin.execute(sql.SQL("alter role {} set {} to {}").format(sql.Identifier(self.role), target, parts))
        results: list[RowResult] = []
        with patch.dict(os.environ, environment):
            writers = [PostgresWriter(PostgresSettings(self.dsn), rows) for rows in (Plain, Ruled)]
            for writer in writers:
                writer.open()
            for block in blocks():
                results += writers[isinstance(block[0].row, Ruled)].write(block)
            for writer in writers:
                writer.close()
        tables = [self.admin.execute(f"select * from {name} order by id").fetchall() for name in ("plain", "ruled")]
        return results, tables


@pytest.fixture
def world(database: str) -> Iterator[World]:
    made = World(database)
    yield made
    made.admin.execute(f"drop owned by {made.role}; drop role {made.role}")
    made.admin.close()


@pytest.fixture
def expected(world: World) -> tuple[list[RowResult], list[Any]]:
    """What comes of the blocks where nothing is set."""
    return world.write({}, {})


@given(role=some(SETTINGS, 6), environment=some(ENVIRONMENT, 2))
@settings(max_examples=examples(60))
def test_any_setting_of_role_and_environment_gives_the_same_table(
    world: World, expected: tuple[list[RowResult], list[Any]], role: dict[str, str], environment: dict[str, str]
) -> None:
    assert world.write(role, environment) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_alone_gives_the_same_table(
    world: World, expected: tuple[list[RowResult], list[Any]], name: str
) -> None:
    for value in SETTINGS[name]:
        assert world.write({name: value}, {}) == expected
