"""Messages from a real broker to ClickHouse, as JSON and as Avro, beside inserting the same blocks alone.

    make bench ARGS="clickhouse --rows 300000"

*job*: one worker as in production, with dead letters, the ledger (a real progress service) and commits on; from the
first read to the job's completion as the service dates it. ClickHouse is chDB, the engine within the worker's process.
*insert*: the same rows by the client's own `insert`, in blocks as large, columns and versions prebuilt, and no more.
*send*: the same rows as the writer sends them, the bytes prebuilt: the engine alone.
*write*: the same rows handed to the writer, which checks them and builds the bytes.
All three after a first block that does not count, as what is imported and set up by it is paid once.

Only one process may have chDB's folder open, so tables are made and counted, and blocks inserted, in processes of
their own.
"""

import io
import json
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from typing import Any

import clickhouse_connect
import fastavro

from benchmarks.common import (
    GUILD,
    HOME,
    Servers,
    alternate,
    arguments,
    fresh_topic,
    say,
    servers,
    speed,
    submit,
    summary,
    work,
)
from dataflows import discord_messages, discord_messages_sample
from lovelace_streams import JsonDecoder, Record, Row
from lovelace_streams.avro import Registry
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.runtime.process import WorkerProcess
from lovelace_streams.settings import ClickHouseSettings
from lovelace_streams.submit import Outgoing
from lovelace_streams.writers import Entry, sequence_of
from lovelace_streams.writers.clickhouse import ClickHouseWriter

FOLDER = HOME.absolute() / "clickhouse"
DSN = f"chdb://{FOLDER}"
FLOW = "benchmarks.messages_flow"
TABLE = discord_messages.Message.__table__.name
SETTINGS: dict[str, dict[str, str]] = {"defaults": {}, "best": {"POLL_SIZE": "10000", "BATCH_LINGER_MS": "200"}}
"""What a worker is told: nothing, and fewer and larger windows."""
BLOCK = ClickHouseSettings(DSN).block_rows
"""How many rows an insert of a job holds, of several windows where it takes them, and so of the engine alone."""
JOBS = [f"job, {kind}, {name}" for name in SETTINGS for kind in ("JSON", "Avro")]
ALONE = f"insert {BLOCK}", f"send {BLOCK}"
PAIRS = [(job, alone) for alone in ALONE for job in JOBS] + [(f"write {BLOCK}", ALONE[0])]


class Bench:
    """What is measured, on one set of servers."""

    def __init__(self, servers: Servers, rows: int, only: str = "") -> None:
        say(f"preparing {rows} rows")
        self.servers = servers
        self.rows = rows
        self.only = only
        schema = registered()
        self.messages = {"JSON": list(as_json(rows)), "Avro": list(as_avro(rows, schema))}
        self.registry = {"JSON": "", "Avro": os.environ["SCHEMA_REGISTRY_URL"]}

    def measurements(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By name, in the order of a run."""
        made: dict[str, Callable[[], dict[str, Any]]] = {}
        for name in SETTINGS:
            made[f"job, JSON, {name}"] = lambda name=name: self.job("JSON", name)
            made[f"job, Avro, {name}"] = lambda name=name: self.job("Avro", name)
        for how in (insert, send, write):
            made[f"{how.__name__} {BLOCK}"] = lambda how=how: self.insert(BLOCK, how)
        return {what: measure for what, measure in made.items() if self.only in what}

    def job(self, kind: str, name: str) -> dict[str, Any]:
        """Submit all of it, then start a worker and wait until the service says that the job is complete."""
        alone(make_table)
        told = {**SETTINGS[name], "CLICKHOUSE_DSN": DSN, "SCHEMA_REGISTRY_URL": self.registry[kind]}
        with fresh_topic(self.servers.settings) as topic:
            job = submit(self.servers, topic, self.messages[kind], self.rows)
            result = work(self.servers, topic, job, self.rows, told, flow=FLOW)
        self.check()
        return result

    def insert(self, size: int, how: Callable[[int, int], dict[str, Any]]) -> dict[str, Any]:
        """The same rows as blocks, and nothing else."""
        alone(make_table)
        result: dict[str, Any] = alone(how, self.rows, size)
        self.check()
        return result

    def check(self) -> None:
        """No row may be missing, or the number means nothing."""
        count = alone(count_rows)
        if count != self.rows:
            sys.exit(f"{count} of {self.rows} rows are in the table")


# -- messages ----------------------------------------------------------------------------------------------------------


def dispatches(rows: int) -> Iterator[dict[str, Any]]:
    """One message each."""
    for number in range(10**17, 10**17 + rows):
        told = discord_messages_sample.message(number, GUILD)
        yield discord_messages_sample.dispatch("MESSAGE_CREATE", told, number - 10**17)


def as_json(rows: int) -> Iterator[Outgoing]:
    """As the gateway's own JSON."""
    for dispatch in dispatches(rows):
        yield from discord_messages.messages(dispatch)


def as_avro(rows: int, schema: int) -> Iterator[Outgoing]:
    """The same in Confluent's frame."""
    parsed = fastavro.parse_schema(json.loads(discord_messages.SCHEMA.read_text()))
    frame = struct.pack(">BI", 0, schema)
    for dispatch in dispatches(rows):
        [outgoing] = discord_messages.messages(dispatch)
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, parsed, dispatch | {"d": _typed(dispatch["d"])})
        yield Outgoing(outgoing.key, frame + stream.getvalue(), outgoing.items)


def _typed(data: dict[str, Any]) -> dict[str, Any]:
    """Ids as numbers, times as instants: as the schema has them."""
    author = data["author"] | {"id": int(data["author"]["id"])}
    ids = {name: int(data[name]) for name in ("id", "channel_id", "guild_id")}
    roles = [int(role) for role in data["mention_roles"]]
    sent = datetime.fromisoformat(data["timestamp"])
    return data | ids | {"author": author, "mention_roles": roles, "timestamp": sent}


def registered() -> int:
    """The id that the registry gives the schema."""
    registry = Registry(os.environ["SCHEMA_REGISTRY_URL"], 10.0)
    body = {"schema": discord_messages.SCHEMA.read_text()}
    status, answer = registry.ask("POST", "/subjects/bench-value/versions", body)
    if status != 200:
        sys.exit(f"the registry answers {status}")
    return int(answer["id"])


# -- the engine, in a process that ends -------------------------------------------------------------------------------


def alone(function: Callable[..., Any], *given: Any) -> Any:
    """What the function answers in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *given).result()


def make_table() -> None:
    """Empty, by the rows' own DDL, in a folder that is new."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    _client().command(_writer().ddl().rstrip(";"))


def count_rows() -> int:
    """Rows of the table as readers see them."""
    return int(_client().command(f"select count() from {TABLE} final"))


def insert(rows: int, size: int) -> dict[str, Any]:
    """What the client's own `insert` is given, built before; and then nothing but that call."""
    writer = _writer()
    writer.open()
    encoder = writer._opened()  # noqa: SLF001 - to build what it builds
    schema = encoder.schema
    blocks = []
    for block in _blocks(rows, size):
        columns = encoder.columns(block)
        checked = [encoder.check_column(name, columns) for name in schema.names]
        blocks.append([*map(list, checked), schema.versions.numbers(columns)])
    client, names, types = _client(), list(schema.columns), list(schema.columns.values())
    return timed(
        rows,
        blocks,
        lambda columns: client.insert(
            TABLE,
            columns,
            column_names=names,
            column_type_names=types,
            column_oriented=True,
            settings={"async_insert": 0},
        ),
    )


def send(rows: int, size: int) -> dict[str, Any]:
    """What the writer hands to the client, built before; and then nothing but that call."""
    writer = _writer()
    writer.open()
    blocks = [writer._opened().encode(block) for block in _blocks(rows, size)]  # noqa: SLF001 - to leave it out
    return timed(rows, blocks, lambda body: writer._insert(body, {}))  # noqa: SLF001


def write(rows: int, size: int) -> dict[str, Any]:
    """The writer, given the rows."""
    writer = _writer()
    writer.open()
    return timed(rows, _blocks(rows, size), writer.write)


def timed(rows: int, blocks: Sequence[Any], write: Callable[[Any], Any]) -> dict[str, Any]:
    """Block after block, with the collector as quiet as in a worker."""
    write(blocks[0])
    WorkerProcess().started()
    began, cpu = time.perf_counter(), time.process_time()
    for block in blocks:
        write(block)
    return speed(rows, time.perf_counter() - began, time.process_time() - cpu)


def _blocks(rows: int, size: int) -> list[list[Entry]]:
    entries = [Entry(row, sequence=sequence_of(offset, 0)) for offset, row in enumerate(_rows(rows))]
    return [entries[at : at + size] for at in range(0, rows, size)]


def _rows(rows: int) -> Iterator[Row]:
    """The rows of the messages, as the flow makes them."""
    decoder, mapper = JsonDecoder(discord_messages.EVENTS), normalizer(discord_messages.Message)
    for offset, message in enumerate(as_json(rows)):
        now = int(time.time() * 1000)
        oks: list[Any] = []
        decoder.decode(Record("bench", 0, offset, offset, 0, message.key, message.value, [], now), oks, [], [])
        [item] = oks
        row = mapper.normalize(item, now)
        assert isinstance(row, Row)
        yield row


def _writer() -> ClickHouseWriter:
    return ClickHouseWriter(ClickHouseSettings(DSN), *discord_messages.SOURCE.rows)


def _client() -> Any:
    return clickhouse_connect.get_client(dsn=DSN)


def main() -> int:
    """Run it; prints its JSON lines."""
    parser = arguments("clickhouse", __doc__, rows=100_000, runs=3)
    parser.add_argument("--only", default="", help="measurements whose names hold this")
    options = parser.parse_args()
    with servers(("kafka", "postgres", "registry")) as started:
        results = alternate(
            "clickhouse", Bench(started, options.rows, options.only).measurements(), options.runs, options.minutes
        )
    print(json.dumps(summary("clickhouse", results, PAIRS, rows=options.rows, settings=SETTINGS)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
