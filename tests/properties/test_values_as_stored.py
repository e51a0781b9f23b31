"""Any column modifier, any trigger and any way to write: the table and the outcomes are those of plain SQL.

The oracle knows none of the writer's statements. It stores a row's key and version in a table of the same types, and
asks what became of them: so it compares what is stored, by the server's own hand.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres import writer as postgres
from tests.examples import examples

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
TEXTS = ["a", "A", "a  ", "ab", "aB     ", "abc", "abcd", "b"]
NUMBERS = [1.0, 1.04, 1.06, 1.1, 2.0, 2.44, 99_999.0]
TIMES = [NOON + timedelta(microseconds=n) for n in (0, 40, 600, 123_400, 123_600, 499_000, 510_000, 1_400_000)]
KINDS: dict[str, tuple[type, list[Any]]] = {
    "text": (str, TEXTS),
    "varchar(3)": (str, TEXTS),
    "char(3)": (str, TEXTS),
    "short": (str, TEXTS),
    "numeric(4,1)": (float, NUMBERS),
    "float4": (float, NUMBERS),
    "timestamptz(0)": (datetime, TIMES),
    "timestamptz(3)": (datetime, TIMES),
    "timestamptz": (datetime, TIMES),
    "instant": (datetime, TIMES),
    "bigint": (int, [1, 2, 3]),
}
"""A column's type: the declared type of its field, and values of which some are equal once they are stored."""
MAKE_DOMAINS = """
drop table if exists t, scratch; drop domain if exists short, instant;
create domain short as varchar(3) check (value <> 'b'); create domain instant as timestamptz(1);
"""
RULES = "a int default 4 check (a <> 3), b int not null default 1"
TRIGGERS = {
    "none": "",
    "lowers": "new.k := lower(new.k::text)::{key};",
    "suppresses": "if new.a = 5 then return null; end if;",
    "lowers and suppresses": "new.k := lower(new.k::text)::{key}; if new.a = 5 then return null; end if;",
}
TRIGGER = """
create or replace function {name}() returns trigger language plpgsql as $$ begin {body} return new; end $$;
create trigger {name} before insert or update on {table} for each row execute function {name}();
"""
WAYS = ["blocks", "copy", "singly", "halves", "parallel"]


def row_classes(key: str, version: str | None) -> type[Row]:
    """Make the row class of a table with these types."""
    fields: dict[str, Any] = {"k": KINDS[key][0], "a": int | None}
    if version is not None:
        fields["v"] = KINDS[version][0]
    return type(Row)(
        "Drawn",
        (Row,),
        {"__annotations__": fields, "__module__": __name__},
        table="t",
        primary_key="k",
        version="v" if version is not None else None,
    )


class Oracle:
    """Writes one row after the other, by statements that a person would write."""

    def __init__(self, connection: psycopg.Connection[Any], *, versioned: bool) -> None:
        self.connection = connection
        self.versioned = versioned

    def write(self, entry: Entry) -> object:
        row = entry.row
        version = row.v if self.versioned else None
        try:
            with self.connection.transaction():
                return self._write(row.k, row.a, version, only_new=entry.only_new)
        except psycopg.Error as error:
            return error.sqlstate

    def _write(self, key: Any, a: Any, version: Any, *, only_new: bool) -> object:
        run = self.connection.execute
        # The server judges a row that is proposed before it looks for another one of its key. A text is assigned, never
        # cast, as every value is that a writer sends.
        values = (
            {"k": _text(key)} | ({"v": _text(version)} if self.versioned else {}) | ({} if a is UNSET else {"a": a})
        )
        run("truncate scratch")
        proposed = run(
            f"insert into scratch ({', '.join(values)}) values ({', '.join('%s' for _ in values)})", [*values.values()]
        )
        if not proposed.rowcount:
            return RowOutcome.SUPPRESSED
        found = run("select 1 from t join scratch s on t.k = s.k").fetchone() is not None
        if found and only_new and not self.versioned:
            return RowOutcome.SUPERSEDED
        older = f"and not (t.v is null or t.v {'<' if only_new else '<='} s.v)" if self.versioned else "and false"
        if run(f"select 1 from t join scratch s on t.k = s.k {older}").fetchone() is not None:
            return RowOutcome.SUPERSEDED
        sets = ", ".join([*(["a = %s"] if a is not UNSET else []), *(["v = s.v"] if self.versioned else [])])
        given = [a] if a is not UNSET else []
        if found:
            done = run(f"update t set {sets or 'b = t.b'} from scratch s where t.k = s.k", given)
        else:
            into = ["k", *(["a"] if a is not UNSET else []), *(["v"] if self.versioned else [])]
            chosen = ["s.k", *(["%s::int"] if a is not UNSET else []), *(["s.v"] if self.versioned else [])]
            done = run(f"insert into t ({', '.join(into)}) select {', '.join(chosen)} from scratch s", given)
        return RowOutcome.WRITTEN if done.rowcount else RowOutcome.SUPPRESSED


def _text(value: Any) -> Any:
    """A text, as every value reaches the server: `numeric(4,1)` is assigned the digits that were sent."""
    return (
        value
        if isinstance(value, str) or value is None
        else value.isoformat()
        if hasattr(value, "isoformat")
        else repr(value)
    )


@st.composite
def entries(draw: st.DrawFn, row: type[Row], key: str, version: str | None) -> list[Entry]:
    whole = draw(st.booleans())
    kinds = {"k": st.sampled_from(KINDS[key][1]), "a": st.sampled_from([1, 2, 3, 5] if whole else [1, 2, 3, 5, UNSET])}
    if version is not None:
        kinds["v"] = st.sampled_from(KINDS[version][1])
    replays = st.booleans() if draw(st.integers(0, 3)) == 0 else st.just(False)
    return draw(st.lists(st.builds(Entry, st.builds(row, **kinds), replays), min_size=1, max_size=12))


@pytest.mark.slow
@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    data=st.data(),
    key=st.sampled_from(sorted(KINDS)),
    version=st.sampled_from([None, *sorted(KINDS)]),
    trigger=st.sampled_from(sorted(TRIGGERS)),
    late=st.booleans(),
    way=st.sampled_from(WAYS),
)
def test_every_way_to_write_ends_as_what_is_stored_says(database, data, key, version, trigger, late, way):
    if "lowers" in trigger and (KINDS[key][0] is not str or key == "char(3)"):
        trigger = "none"
    row = row_classes(key, version)
    block = data.draw(entries(row, key, version), label="block")
    cut = data.draw(st.integers(1, len(block)), label="cut")
    columns = f"k {key}, {RULES}" + (f", v {version}" if version is not None else "")
    body = TRIGGERS[trigger].format(key=key)

    with psycopg.connect(database, autocommit=True) as connection, pytest.MonkeyPatch.context() as patched:
        patched.setattr(postgres, "COPY_ROWS_MIN", 1 if way == "copy" else 1_000)

        def make_tables(*, with_trigger: bool) -> None:
            connection.execute(MAKE_DOMAINS)
            connection.execute(f"create table t ({columns}, primary key (k)); create table scratch ({columns})")
            if with_trigger:
                add_trigger()

        def add_trigger() -> None:
            if body:
                for table in ("t", "scratch"):
                    connection.execute(TRIGGER.format(name=f"of_{table}", table=table, body=body))

        def table() -> list[Any]:
            return connection.execute("select k, a, b" + (", v" if version else "") + " from t order by 1").fetchall()

        make_tables(with_trigger=True)
        oracle = Oracle(connection, versioned=version is not None)
        expected = [oracle.write(entry) for entry in block]
        stored = table()

        make_tables(with_trigger=not late)
        writer = PostgresWriter(
            PostgresSettings(database, pool=2 if way == "parallel" else 1), row, one_by_one=way == "singly"
        )
        patched.setattr("lovelace_streams.writers.postgres.parallel.ROWS_MIN", 1)
        try:
            writer.open()
            writer._isolation.subtransactions.are_available = way != "halves"
            if late:
                add_trigger()
            results = [*writer.write(block[:cut]), *(writer.write(block[cut:]) if block[cut:] else [])]
        finally:
            writer.close()
        written = table()

    event(f"{way}, trigger {trigger}, late {late}")
    assert list(map(_comparable, results)) == list(map(_comparable, expected))
    assert written == stored


def _comparable(end: object) -> object:
    """Who was refused, by code, and who was suppressed. Superseded or written is the cut's, and counts alike."""
    if isinstance(end, Refusal):
        return end.code
    return "succeeded" if end in (RowOutcome.WRITTEN, RowOutcome.SUPERSEDED) else end
