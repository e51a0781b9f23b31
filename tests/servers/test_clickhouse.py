"""The ClickHouse writer over HTTP, and what only a server or a real table can show: faults, deadlines, outages."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import clickhouse_connect
import httpx
import msgspec
import pytest

from lovelace_streams.columns import Columns
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import Row, Scale
from lovelace_streams.settings import ClickHouseSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome, sequence_of
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.clickhouse import ddl as clickhouse_ddl
from tests.columns import column_block
from tests.servers.clickhouse_server import Server
from tests.unit.writers.clickhouse.test_faults import CODES

W = RowOutcome.WRITTEN


class Reading(Row, table="readings", primary_key=("sensor", "place"), version="seen_at"):
    sensor: int
    place: str
    value: str | None = None
    amount: Decimal | None = None
    day: date | None = None
    ref: UUID | None = None
    tags: list[str] = []
    extra: dict[str, int] = {}
    seen_at: datetime


def reading(sensor: int, offset: int = 0, **values: object) -> Entry:
    seen_at = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    return Entry(Reading(sensor=sensor, place="x", seen_at=seen_at, **values), sequence=sequence_of(offset, 0))


pytestmark = pytest.mark.xdist_group("clickhouse")  # one server for all of the file


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    started = Server(home).start()
    yield started
    started.stop()


@pytest.fixture
def table(server: Server) -> Iterator[clickhouse_connect.driver.client.Client]:
    """A fresh table `readings`, and a client to look at it."""
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, username="default", password=server.password, autogenerate_session_id=False
    ) as client:
        client.command("drop table if exists readings sync")
        client.command(clickhouse_ddl.create_table(Reading).rstrip(";"))
        yield client


def opened(server: Server, settings: str = "", **options: Any) -> ClickHouseWriter:
    writer = ClickHouseWriter(ClickHouseSettings(server.dsn(settings=settings), **options), Reading)
    writer.open()
    return writer


def rows(client, columns: str = "sensor") -> list[tuple]:
    return client.query(f"select {columns} from readings final order by sensor").result_rows


def test_every_type_goes_there_and_back_over_http(server: Server, table) -> None:
    writer = opened(server)
    values = {
        "value": "ü\0'\\\t",
        "amount": Decimal("12345678901234567890123456789.123456789"),
        "day": date(2024, 2, 29),
        "ref": UUID(int=2**127 + 5),
        "tags": ["a", ""],
        "extra": {"n": 1},
    }
    assert writer.write([reading(1, **values), reading(2)]) == [W, W]

    full, empty = table.query("select * from readings final order by sensor", tz_mode="aware").result_rows
    assert full[2:8] == (*list(values.values())[:5], '{"n":1}')
    assert empty[2:8] == (None, None, None, None, [], "{}")
    assert full[8] == datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    writer.close()


def test_a_block_encoded_for_another_schema_is_encoded_again(server: Server, table) -> None:
    writer = opened(server)
    encoded = writer.encode([reading(1), reading(300)])
    assert (writer.write(encoded), rows(table)) == ([W, W], [(1,), (300,)])

    table.command("drop table readings sync")
    table.command(clickhouse_ddl.create_table(Reading).rstrip(";").replace("`sensor` Int64", "`sensor` Int8"))
    writer.open()
    assert writer.write(encoded) == [W, Refusal(Reason.OUT_OF_RANGE, "321", "sensor")]  # the server would wrap it
    assert rows(table) == [(1,)]
    writer.close()


def rows_made(monkeypatch) -> list[Any]:
    """The rows that are made of columns from now on, as values."""
    made: list[Any] = []
    make = Columns.make
    monkeypatch.setattr(Columns, "make", lambda columns, values: made.append(values) or make(columns, values))
    return made


def test_a_block_of_columns_is_one_insert_over_http_and_one_row_is_made(server: Server, table, monkeypatch) -> None:
    """The row is the one that `probe` would try."""
    rich = {"value": "ü\0'\\\t", "amount": Decimal("1.5"), "day": date(2024, 2, 29), "ref": UUID(int=5), "tags": ["a"],
            "extra": {"n": 1}}  # fmt: skip
    block = [reading(n, n, **(rich if n % 2 else {})) for n in range(100)]
    writer = opened(server)
    writer.write(block)
    expected = rows(table, "*")
    table.command("truncate table readings")
    inserts, made = inserts_of(writer, monkeypatch), rows_made(monkeypatch)

    assert writer.write(writer.encode_columns(column_block(block))) == [W] * 100
    assert (len(inserts), len(made)) == (1, 1)
    assert rows(table, "*") == expected
    assert writer.probe() is True
    writer.close()


def test_columns_with_bad_values_are_one_insert_without_them(server: Server, table, monkeypatch) -> None:
    bad = {3: {"value": "\ud800"}, 50: {"amount": Decimal("1e30")}, 51: {"day": date(1800, 1, 1)}}
    block = [reading(n % 90, n, **bad.get(n, {})) for n in range(100)]
    block[60] = reading(60, 60, value="abc")
    block[7] = reading(2**63, 7)
    writer = opened(server)
    singly = writer.write(block)
    expected = rows(table, "*")
    table.command("truncate table readings")
    inserts, made = inserts_of(writer, monkeypatch), rows_made(monkeypatch)

    encoded = writer.encode_columns(column_block(block))
    assert (writer.write(encoded), len(made)) == (singly, 1)
    assert [n for n, result in enumerate(singly) if isinstance(result, Refusal)] == [3, 7, 50, 51]
    assert singly.count(RowOutcome.SUPERSEDED) == 8  # of ten keys that come twice, two have a refused row
    assert len(inserts) == 1
    assert rows(table, "*") == expected
    assert writer.write(writer.encode_columns(column_block([block[3]]))) == [singly[3]]
    assert len(inserts) == 1

    table.command("drop table readings sync")
    ddl = clickhouse_ddl.create_table(Reading).replace("`value` Nullable(String)", "`value` Nullable(FixedString(2))")
    table.command(ddl.replace("Decimal(38, 9)", "Decimal(76, 9)").rstrip(";"))
    writer.open()
    again = writer.write(encoded)  # checked again, for the table as it is now
    assert [n for n, result in enumerate(again) if isinstance(result, Refusal)] == [3, 7, 51, 60]
    writer.close()


def test_rows_of_columns_that_a_rule_of_the_server_refuses_are_named(server: Server, table) -> None:
    table.command("alter table readings add constraint no_bad check value is null or value != 'bad'")
    writer = opened(server)
    block = [reading(n, n, value="bad" if n % 40 == 7 else "\ud800" if n == 20 else "ok") for n in range(100)]

    results = writer.write(writer.encode_columns(column_block(block)))
    refused = {n: result.rule for n, result in enumerate(results) if isinstance(result, Refusal)}
    assert refused == {7: "no_bad", 20: "value", 47: "no_bad", 87: "no_bad"}
    assert rows(table) == [(n,) for n in range(100) if n not in refused]
    writer.close()


def test_a_thousand_rows_are_one_part_and_one_bad_one_costs_none_of_the_others(server: Server, table) -> None:
    table.command("alter table readings add constraint no_bad check value is null or value != 'bad'")
    writer = opened(server)
    assert writer.write([reading(n, n) for n in range(1000)]) == [W] * 1000
    [(parts,)] = table.query("select count() from system.parts where table = 'readings' and active").result_rows
    assert parts == 1

    results = writer.write([reading(n, n, value="bad" if n == 1777 else "ok") for n in range(1000, 2000)])
    assert [n for n, result in enumerate(results) if result is not W] == [777]
    assert results[777] == Refusal(Reason.CHECK, "469", "no_bad")
    assert len(rows(table)) == 1999
    writer.close()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ("?max_memory_usage=1&max_untracked_memory=1", "241"),
        ("?readonly=1", "164"),
    ],
)
def test_a_server_out_of_resources_is_a_fault_of_the_destination(
    server: Server, table, settings: str, code: str
) -> None:
    with pytest.raises(DestinationFault) as fault:
        opened(server, settings).write([reading(1), reading(2)])
    assert fault.value.code == code
    assert rows(table) == []


def partitioned(table, settings: str = "") -> None:
    """Make the table again, with a partition a sensor."""
    table.command("drop table readings sync")
    ddl = clickhouse_ddl.create_table(Reading).replace("ORDER BY", "PARTITION BY sensor ORDER BY")
    table.command(ddl.rstrip(";") + settings)


def inserts_of(writer: ClickHouseWriter, monkeypatch) -> list[int]:
    """The sizes of the inserts that the writer makes from now on."""
    sizes: list[int] = []
    connection = writer._connection
    insert = connection.insert

    def counted(table, columns, native, settings) -> None:
        sizes.append(len(native))
        insert(table, columns, native, settings)

    monkeypatch.setattr(connection, "insert", counted)
    return sizes


@pytest.mark.parametrize(
    "settings",
    [
        "",  # of the server: a hundred partitions in one insert
        "?max_partitions_per_insert_block=1",
        "?max_memory_usage=9000000&max_untracked_memory=1",
        "?max_rows_to_read=40&read_overflow_mode=throw",
    ],
)
def test_a_limit_on_one_insert_cuts_the_block(server: Server, table, settings: str) -> None:
    if not settings or "partitions" in settings:
        partitioned(table)
    writer = opened(server, settings)
    block = [reading(n, n, value="x" * (20_000 if "memory" in settings else 1)) for n in range(150)]

    assert writer.write(block) == [W] * 150
    assert rows(table) == [(n,) for n in range(150)]
    writer.close()


def test_an_item_with_rows_in_more_partitions_than_an_insert_may_have_is_written_whole(server: Server, table) -> None:
    partitioned(table)
    table.command("alter table readings add constraint no_bad check value is null or value != 'bad'")
    writer = opened(server)
    good = [msgspec.structs.replace(reading(n, n), same_item=n > 0) for n in range(150)]
    bad = [msgspec.structs.replace(reading(n, n, value="bad" if n == 299 else "ok"), same_item=n > 150)
           for n in range(150, 300)]  # fmt: skip

    assert writer.write([*good, *bad]) == [W] * 150 + [Refusal(Reason.CHECK, "469", "no_bad")] * 150
    assert rows(table) == [(n,) for n in range(150)]
    writer.close()


def test_a_table_with_too_many_parts_is_waited_for(server: Server, table, monkeypatch) -> None:
    partitioned(table, ", parts_to_throw_insert = 1, parts_to_delay_insert = 1, max_delay_to_insert = 1")
    table.command("system stop merges readings")
    writer = opened(server)
    assert writer.write([reading(7)]) == [W]
    inserts = inserts_of(writer, monkeypatch)

    with pytest.raises(DestinationFault) as fault:
        writer.write([reading(7, n) for n in range(1, 1001)])
    assert fault.value.code == "252"
    assert len(inserts) <= 11  # the block, its first half, and so on to one row: no row is blamed
    assert rows(table) == [(7,)]
    table.command("system start merges readings")
    writer.close()


@pytest.fixture
def view(table) -> str:
    """A view that raises for `bad`, by a function, and for `odd`, by a rule of its own table; and the rows in it."""
    table.command("drop view if exists readings_view sync")
    table.command("drop table if exists readings_seen sync")
    table.command(
        "create table readings_seen (sensor Int64, bad UInt8, place String, constraint fine check place != 'odd')"
        " engine = MergeTree order by sensor"
    )
    table.command(
        "create materialized view readings_view to readings_seen as"
        " select sensor, throwIf(value = 'bad', 'no') as bad, coalesce(value, '') as place from readings"
    )
    yield "select sensor from readings_seen order by sensor"
    table.command("drop view readings_view sync")


def test_what_a_view_refuses_is_written_if_it_is_stored(server: Server, table, view: str, capfd) -> None:
    writer = opened(server)
    refused = {3: "bad", 7: "odd"}
    block = [reading(n, n, value=refused.get(n, "ok")) for n in range(10)]

    assert writer.write(block) == [W] * 10
    assert rows(table) == [(n,) for n in range(10)]
    seen = {sensor for (sensor,) in table.query(view).result_rows}
    assert seen == set(range(10)) - {3, 7}  # the good rows of the block are in the view
    shown = "".join(capfd.readouterr())
    assert shown.count("refused_and_stored") == 2
    writer.close()


def test_what_a_view_refuses_is_looked_for_by_the_version_too(server: Server, table, view: str) -> None:
    table.command("alter table readings add constraint no_worse check value is null or value != 'worse'")
    writer = opened(server)
    assert writer.write([reading(1, 1, value="ok")]) == [W]

    item = [reading(1, 2, value="bad"), msgspec.structs.replace(reading(1, 3, value="worse"), same_item=True)]
    refusal = Refusal(Reason.CHECK, "469", "no_worse")
    assert writer.write([reading(1, 2, value="worse"), reading(2, 3, value="bad"), *item]) == [
        refusal,
        W,
        *[refusal] * 2,
    ]
    assert rows(table, "sensor, value") == [(1, "ok"), (2, "bad")]
    writer.close()


def test_keys_of_all_types_are_looked_for(clickhouse: str) -> None:
    class Keyed(Row, table="keyed", primary_key=("n", "text", "at", "day", "amount", "ref", "yes")):
        n: int
        text: str
        at: datetime
        day: date
        amount: Decimal
        ref: UUID
        yes: bool
        value: str = ""

    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        client.command(clickhouse_ddl.create_table(Keyed).rstrip(";"))
        client.command(
            "create materialized view keyed_view engine = MergeTree order by n as"
            " select n, throwIf(value = 'bad', 'no') as bad from keyed"
        )
        writer = ClickHouseWriter(ClickHouseSettings(clickhouse), Keyed)
        writer.open()
        key = {"day": date(1969, 2, 28), "ref": UUID(int=2**127), "yes": True}
        block = [
            Entry(Keyed(n=n, text=text, at=at, amount=amount, value="bad", **key), sequence=sequence_of(n + 9, 0))
            for n, text in ((-1, "it's"), (0, "\\n"), (1, "n\0l"), (2, "ü 日本"), (3, "{x:String} %s"), (4, ""))
            for at in (datetime(1901, 1, 1, microsecond=1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC))
            for amount in (Decimal("-12345678901234567890123456789.123456789"), Decimal("1e3"))
        ]

        assert writer.write(block) == [W] * len(block)
        writer.close()


def test_a_login_that_may_only_insert_is_told_nothing(server: Server, table, view: str, monkeypatch) -> None:
    writer = opened(server)
    client = writer._connection.client
    query = client.query
    monkeypatch.setattr(client, "query", lambda text: query(text.replace("FROM", "FROM nowhere.")))  # refused: code 81

    assert writer.write([reading(1, value="bad"), reading(2, value="ok")]) == [
        Refusal(Reason.REFUSED, "395"),
        W,
    ]
    writer.close()


def test_views_can_be_refused_at_start(server: Server, table, view: str) -> None:
    opened(server, views="accept").close()
    with pytest.raises(
        DeploymentFault, match=r"CLICKHOUSE_VIEWS=refuse, and materialized views depend on it .readings_view."
    ):
        opened(server, views="refuse")


class Limited(ThreadingHTTPServer):
    """A proxy before ClickHouse that takes requests up to a size, as many do."""

    daemon_threads = True

    def __init__(self, server: Server, size_max: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = self.rfile.read(size)
                if size > size_max:
                    self.send_error(413)
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                answer = httpx.post(
                    f"http://127.0.0.1:{server.port}{self.path}", content=body, headers=headers, trust_env=False
                )
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.startswith("x-clickhouse") or name == "content-length":
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


def test_a_proxy_that_takes_no_large_request_gets_smaller_ones(server: Server, table) -> None:
    with Limited(server, 30_000) as proxy:
        dsn = server.dsn(settings="?compress=false").replace(str(server.port), str(proxy.server_port))
        writer = ClickHouseWriter(ClickHouseSettings(dsn), Reading)
        writer.open()
        block = [reading(n, n, value="x" * (40_000 if n == 77 else 1000)) for n in range(150)]

        results = writer.write(block)
        assert results[77] == Refusal(Reason.REFUSED, "413")  # the one row that is too large by itself
        assert results[:77] + results[78:] == [W] * 149
        writer.close()
        proxy.shutdown()
    assert len(rows(table)) == 149


def test_no_server_and_a_wrong_password_and_no_database_are_told_apart(server: Server, table) -> None:
    def faulty(dsn: str) -> Exception:
        with pytest.raises((DeploymentFault, DestinationFault)) as fault:
            ClickHouseWriter(ClickHouseSettings(dsn), Reading).open()
        assert "secret" not in str(fault.value)
        return fault.value

    assert isinstance(faulty("http://default:secret@127.0.0.1:9/default"), DestinationFault)
    assert isinstance(faulty(server.dsn(password="secret")), DeploymentFault)
    assert "81" in str(faulty(server.dsn(database="nowhere")))
    assert "set CLICKHOUSE_DSN" in str(faulty(""))
    assert "begins with clickhouse://, which is another kind" in str(faulty("clickhouse://h/d"))
    assert "may not set insert_deduplication_token" in str(faulty("http://h/d?insert_deduplication_token=x"))


def test_a_server_that_freezes_is_cut_off_and_found_again(server: Server, table) -> None:
    writer = opened(server)
    writer.write([reading(1)])
    server.freeze()
    try:
        cut = threading.Timer(1, writer.abort)
        cut.start()
        with pytest.raises(DestinationFault):
            writer.write([reading(2)])
        cut.join()
    finally:
        server.thaw()

    writer.open()
    assert writer.write([reading(2)]) == [W]
    assert rows(table) == [(1,), (2,)]
    writer.close()


def test_an_answer_that_does_not_come_in_time_is_a_timeout(server: Server, table) -> None:
    writer = opened(server, write_seconds=3)
    server.freeze()
    try:
        with pytest.raises(DestinationFault) as fault:
            writer.write([reading(1)])
        assert fault.value.code == "timeout"
    finally:
        server.thaw()
    writer.close()


def test_a_server_that_is_restarted_is_written_to_again(server: Server, table) -> None:
    writer = opened(server)
    writer.write([reading(1)])
    server.kill()
    with pytest.raises(DestinationFault):
        writer.write([reading(2)])
    assert writer.probe() is False
    with pytest.raises(DestinationFault):
        writer.open()
    server.start()

    writer.open()
    assert writer.write([reading(2)]) == [W]
    assert writer.probe() is True
    assert rows(table) == [(1,), (2,)]
    writer.close()


def test_a_table_that_is_gone_while_running_stops_the_worker(server: Server, table) -> None:
    writer = opened(server)
    table.command("drop table readings sync")
    with pytest.raises(DeploymentFault, match="code 60"):
        writer.write([reading(1), reading(2)])


def test_a_proxy_that_refuses_everything_is_the_deployments_fault_and_no_records(server: Server, table) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404, "default backend")

        def log_message(self, *_: object) -> None:
            pass

    writer = opened(server)
    server.stop()
    try:
        with ThreadingHTTPServer(("127.0.0.1", server.port), Refusing) as proxy:
            threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
            with pytest.raises(DeploymentFault, match="CLICKHOUSE_DSN"):
                writer.write([reading(1), reading(2)])
            writer.close()
            proxy.shutdown()
    finally:
        server.start()


def test_a_probe_writes_whole_items_or_nothing(server: Server, table) -> None:
    table.command("alter table readings add constraint no_bad check value is null or value != 'bad'")
    writer = opened(server)
    bad = msgspec.structs.replace(reading(2, value="bad"), same_item=True)

    assert writer.probe([reading(1), bad]) is False
    assert rows(table) == []
    assert writer.probe([reading(1), bad, reading(3)]) is True
    assert rows(table) == [(3,)]
    writer.close()


def test_the_codes_have_the_names_that_the_engine_gives_them(clickhouse: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        names = client.query(f"select {', '.join(f'errorCodeToName({code})' for code, _, _ in CODES)}").first_row
    assert list(names) == [name for _, name, _ in CODES]


ENGINE = "ReplacingMergeTree(`_version`)"
WRONG = {
    "there is no such table": lambda ddl: ddl.replace("`readings`", "`others`"),
    "its engine is MergeTree": lambda ddl: ddl.replace(ENGINE, "MergeTree()"),
    "names no version column": lambda ddl: ddl.replace(ENGINE, "ReplacingMergeTree()"),
    "has to be UInt128": lambda ddl: ddl.replace("UInt128", "UInt64"),
    "replaces rows by .sensor.,": lambda ddl: ddl.replace("(`sensor`, `place`)", "(`sensor`)"),
    "replaces rows by .sensor, place, day": lambda ddl: ddl.replace(
        "ORDER BY (`sensor`, `place`)", "PRIMARY KEY (`sensor`) ORDER BY (`sensor`, `place`, `day`)"
    ).replace("fsync_part", "allow_nullable_key = 1, fsync_part"),
    "its partition depends on seen_at": lambda ddl: ddl.replace("ORDER BY", "PARTITION BY toDate(seen_at) ORDER BY"),
    "has no column value": lambda ddl: ddl.replace("  `value` Nullable(String),\n", ""),
    "column value is Nullable.Int64. and can't hold str": lambda ddl: ddl.replace(
        "Nullable(String)", "Nullable(Int64)"
    ),
    "value may be null": lambda ddl: ddl.replace("Nullable(String)", "String"),
    "column value is MATERIALIZED": lambda ddl: ddl.replace(
        "`value` Nullable(String)", "`value` Nullable(String) MATERIALIZED 'x'"
    ),
    "column place is FixedString.4.": lambda ddl: ddl.replace("`place` String", "`place` FixedString(4)"),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_table_that_does_not_fit_is_named_with_both_sides(clickhouse: str, says: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        ddl = clickhouse_ddl.create_table(Reading)
        wrong = WRONG[says](ddl)
        assert wrong != ddl
        client.command(wrong.rstrip(";"))
        with pytest.raises(DeploymentFault, match=says) as fault:
            ClickHouseWriter(ClickHouseSettings(clickhouse), Reading).open()
    assert "Reading ↔ table readings" in str(fault.value)
    assert "lovelace ddl" in str(fault.value)


class Price(Row, table="prices", primary_key="id"):
    id: int
    total: Annotated[Decimal, Scale(4)]
    vat: Decimal


def test_a_scale_is_the_columns_and_one_that_is_cut_stops_the_worker(clickhouse: str) -> None:
    ddl = clickhouse_ddl.create_table(Price)
    assert "`total` Decimal(38, 4)" in ddl
    assert "`vat` Decimal(38, 9)" in ddl
    writer = ClickHouseWriter(ClickHouseSettings(clickhouse), Price)
    try:
        with clickhouse_connect.get_client(dsn=clickhouse) as client:
            client.command(ddl.partition(";")[0].replace("(38, 4)", "(38, 2)"))
            with pytest.raises(
                DeploymentFault, match=r"total may have 4 digits .*, but the column is Decimal\(38, 2\)"
            ):
                writer.open()
            client.command("drop table prices")
            client.command(ddl.partition(";")[0])
        writer.open()
        kept, cut = (
            Price(id=1, total=Decimal("1.2345"), vat=Decimal(1)),
            Price(id=2, total=Decimal("1.23456"), vat=Decimal(1)),
        )
        assert [getattr(end, "reason", end) for end in writer.write([Entry(kept), Entry(cut)])] == [
            "written",
            "out_of_range",
        ]
    finally:
        writer.close()


def test_narrower_types_codecs_and_computed_columns_fit(clickhouse: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        client.command(
            """
            create table readings (
              place LowCardinality(String), sensor UInt32 codec(Delta, ZSTD), value LowCardinality(Nullable(String)),
              amount Nullable(Decimal(10, 2)), day Nullable(Date), ref Nullable(String), tags Array(String),
              extra String, seen_at DateTime, v UInt128, made DateTime materialized now(),
              hash UInt64 alias sipHash64(place)
            ) engine = ReplacingMergeTree(v) partition by sensor % 4 primary key place order by (place, sensor)
            """
        )
        writer = ClickHouseWriter(ClickHouseSettings(clickhouse), Reading)
        writer.open()

        results = writer.write([reading(1, value="a", day=date(2024, 5, 1)), reading(2**40), reading(2)])
        assert results == [W, Refusal(Reason.OUT_OF_RANGE, "321", "sensor"), W]
        assert rows(client, "sensor, value") == [(1, "a"), (2, None)]
        writer.close()


def test_a_server_that_is_away_for_an_hour_is_waited_for(server: Server, table) -> None:
    """An hour by the test's own clock: nothing is dead-lettered, and the first try after it writes the block."""
    from lovelace_streams.delivery.retry import BlockRetry

    writer = opened(server)
    server.stop()
    waited: list[float] = []
    back = False

    def call(entries):
        writer.open()
        return writer.write(entries)

    def wait(seconds: float) -> bool:
        nonlocal back
        waited.append(seconds)
        if sum(waited) > 3600 and not back:
            server.start()
            back = True
        return not back or len(waited) < 1000  # the test ends even if the writer never succeeds

    retry = BlockRetry(call, writer.probe, wait)
    assert retry.write([reading(n) for n in range(3)]) == [W, W, W]
    assert sum(waited) > 3600
    assert rows(table) == [(0,), (1,), (2,)]
    writer.close()


def test_no_fault_and_no_log_quotes_a_row(server: Server, table, capfd) -> None:
    table.command("alter table readings add constraint no_bad check value != 'secret value'")
    writer = opened(server)
    [refusal] = writer.write([reading(1, value="secret value")])
    assert refusal.rule == "no_bad"
    with pytest.raises(DestinationFault) as fault:
        opened(server, "?max_memory_usage=1&max_untracked_memory=1").write([reading(1, value="secret value")])
    shown = f"{refusal} {fault.value} {writer.name} {''.join(capfd.readouterr())}"
    assert "secret" not in shown
    assert "pass" not in shown
    writer.close()
