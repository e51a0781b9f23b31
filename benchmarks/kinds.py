"""Jobs of other kinds than one member a message by the plain flow, each beside that one, in one run.

    make bench ARGS="kinds --rows 300000"
    make bench ARGS="kinds --kind chunks"

*Chunks* are messages of many members; *bad* ones among these have no user, and become dead letters. *A mixture of
classes*: of ten messages six join, three change, one leaves. *Items' way* is the plain flow with `COLUMNAR=off`.
Everything else is what a flow of one's own may have that the plain one has not: what it costs, and that nobody is told
of rows that are not there, is measured as in `members`. New rows by one worker that is told nothing, unless the name
says otherwise. `compare` runs the same jobs by another commit's package.
"""

import json
import os
import random
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks import clickhouse, database, kinds_flow
from benchmarks.common import (
    FLOW,
    GUILD,
    SETTINGS,
    TABLE,
    Servers,
    alternate,
    arguments,
    count_rows,
    fresh_topic,
    make_table,
    messages,
    payload,
    say,
    servers,
    submit,
    summary,
    work,
)
from benchmarks.peers.records import avro
from dataflows import discord, discord_sample
from lovelace_streams.submit import Outgoing
from lovelace_streams.writers.postgres.ddl import create_table

Make = Callable[[int], Sequence[Outgoing]]
AVRO = "benchmarks.peers.avro.flow"
CLASSES = ("GUILD_MEMBER_ADD",) * 6 + ("GUILD_MEMBER_UPDATE",) * 3 + ("GUILD_MEMBER_REMOVE",)
LEAVERS = kinds_flow.Leaver.__table__.name


# -- messages ----------------------------------------------------------------------------------------------------------


@cache
def bad_ones(rows: int, one_in: int) -> frozenset[int]:
    """Which members are bad: by chance, the same in every run, and exactly one in so many."""
    return frozenset(random.Random(7).sample(range(1, rows + 1), rows // one_in) if one_in else ())


def single(rows: int) -> list[Outgoing]:
    """A member a message."""
    return list(messages(rows))


def chunks(size: int, one_in: int, rows: int) -> list[Outgoing]:
    """So many members a message, one in so many of them bad, none of them with `one_in` 0."""
    bad = bad_ones(rows, one_in)
    made: list[Outgoing] = []
    for number, first in enumerate(range(1, rows + 1, size)):
        listed = [
            {"nick": "no user at all"} if user in bad else discord_sample.member(10**17 + user)
            for user in range(first, min(first + size, rows + 1))
        ]
        data = {"guild_id": str(GUILD), "members": listed, "chunk_index": number, "chunk_count": 0}
        made += discord.messages(discord_sample.dispatch("GUILD_MEMBERS_CHUNK", data, number))
    return made


def mixture(rows: int) -> list[Outgoing]:
    """Members that join, change and leave, in no order, each once."""
    made: list[Outgoing] = []
    for user, event in enumerate(events_of(rows), start=1):
        made += discord.messages(discord_sample.dispatch(event, payload(user), user))
    return made


def events_of(rows: int) -> list[str]:
    """The events of a mixture: of every ten as many of each kind, in no order."""
    chance = random.Random(7)
    made: list[str] = []
    while len(made) < rows:
        made += chance.sample(CLASSES, len(CLASSES))
    return made[:rows]


def leaving(rows: int) -> int:
    """How many of a mixture leave."""
    return events_of(rows).count("GUILD_MEMBER_REMOVE")


def members_as_avro(rows: int) -> list[Outgoing]:
    """A member a message as Avro; the registry has to be there."""
    return [Outgoing(b"%d:%d" % (GUILD, user), avro(payload(user)), 1) for user in range(1, rows + 1)]


# -- kinds -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A job: what it reads, by which flow, with which settings."""

    name: str
    make: Make = single
    flow: str = FLOW
    settings: Mapping[str, str] = field(default_factory=dict)
    existing: bool = False
    """Whether each row is there already, with an older version."""
    one_in: int = 0
    """One in so many items is bad; 0: none is."""
    traced: bool = False
    into: str = TABLE.name


def _chunks(size: int, one_in: int = 0) -> Kind:
    words = {0: "", 1000: ", one bad in a thousand", 100: ", one bad in a hundred"}[one_in]
    return Kind(f"chunks of {size:,}{words}", partial(chunks, size, one_in), one_in=one_in)


PLAIN = Kind("members, new rows")
KINDS = [
    PLAIN,
    Kind("members, existing rows", existing=True),
    Kind("members, batch 100, new rows", settings=SETTINGS["batch 100"]),
    Kind("members, batch 100, existing rows", settings=SETTINGS["batch 100"], existing=True),
    *(_chunks(size, one_in) for size in (1000, 10) for one_in in (0, 1000, 100)),
    Kind("a mixture of classes", mixture),
    Kind("a mixture of classes, two tables", mixture, f"{kinds_flow.__name__}:tables", into=LEAVERS),
    Kind("a step of one's own", flow=f"{kinds_flow.__name__}:own_step"),
    Kind("a function in normalize", flow=f"{kinds_flow.__name__}:function"),
    Kind("items' way", settings={"COLUMNAR": "off"}),
    Kind("tracing on", traced=True),
    Kind("Avro, new rows", members_as_avro, AVRO),
    Kind("Avro, existing rows", members_as_avro, AVRO, existing=True),
    Kind("ClickHouse, JSON", lambda rows: list(clickhouse.as_json(rows)), clickhouse.FLOW, into=clickhouse.TABLE),
    Kind(
        "ClickHouse, Avro",
        lambda rows: list(clickhouse.as_avro(rows, clickhouse.registered())),
        clickhouse.FLOW,
        into=clickhouse.TABLE,
    ),
]
ELSEWHERE = ("members, existing rows", "members, batch 100", "Avro", "ClickHouse")
"""Names begin so of what other benchmarks measure: only `compare` runs it as well."""
PARTS = ("kafka", "postgres", "registry")
WAY = """
import sys
from importlib import import_module
from lovelace_streams.sources.plan import column_plans
module, _, name = sys.argv[1].partition(":")
made = getattr(import_module(module), name or "flow")
[plan] = column_plans(made() if callable(made) else made, traced="traced" in sys.argv)
print(": ".join(filter(None, (plan.way, plan.reason))))
"""
"""Prints which way the messages of a flow pass."""


def add_kind(parser: ArgumentParser) -> None:
    """The option that chooses."""
    parser.add_argument("--kind", nargs="+", default=[], metavar="TEXT", help="kinds whose names hold one of these")


def chosen(wanted: Sequence[str], kinds: Sequence[Kind]) -> list[Kind]:
    """The kinds of these names, or whose names hold one of the texts; all without any.

    Ends the process for a text that no name holds.
    """
    names = [kind.name for kind in kinds]
    if unknown := [text for text in wanted if not any(text in name for name in names)]:
        sys.exit(f"there is no kind {', '.join(unknown)}. There are: {'; '.join(names)}")
    found = {name for text in wanted for name in ([text] if text in names else names) if text in name}
    return [kind for kind in kinds if not wanted or kind.name in found]


class Jobs:
    """Jobs of any kind, on one set of servers."""

    def __init__(self, servers: Servers, rows: int, collector: str) -> None:
        self.servers = servers
        self.rows = rows
        self.collector = collector
        self._made: dict[Any, Sequence[Outgoing]] = {}
        self._lines: list[str] = []

    def messages(self, kind: Kind) -> Sequence[Outgoing]:
        """What it reads; the same list for kinds that read the same."""
        if kind.make not in self._made:
            say(f"preparing {self.rows:,} items: {kind.name}")
            self._made[kind.make] = kind.make(self.rows)
        return self._made[kind.make]

    def run(self, kind: Kind, settings: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, Any]:
        """Submit all of it, then start a worker and wait until the service says that the job is complete."""
        told = self.settings(kind) | dict(settings or {})
        outgoing = self.messages(kind)
        bad = len(bad_ones(self.rows, kind.one_in))
        self.prepare(kind)
        with fresh_topic(self.servers.settings) as topic:
            job = submit(self.servers, topic, outgoing, self.rows)
            expected = (self.rows - bad, bad, 0)
            result = work(self.servers, topic, job, self.rows, told, flow=kind.flow, expected=expected, folder=folder)
        if (count := self.count(kind)) != self.rows - bad:
            sys.exit(f"{kind.name}: {count} of {self.rows - bad} rows are in the table")
        return result

    def settings(self, kind: Kind) -> dict[str, str]:
        """What its worker is told."""
        told = dict(kind.settings)
        if kind.traced:
            told["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.collector
        if kind.into == clickhouse.TABLE:
            registry = os.environ["SCHEMA_REGISTRY_URL"] if "Avro" in kind.name else ""
            told |= {"CLICKHOUSE_DSN": clickhouse.DSN, "SCHEMA_REGISTRY_URL": registry}
        return told

    def way(self, kind: Kind) -> str:
        """Which way its messages pass, and why item by item, as its flow says."""
        told = os.environ | self.settings(kind) | {"BENCH_TOPIC": "none"}
        command = [sys.executable, "-c", WAY, kind.flow, *(["traced"] if kind.traced else [])]
        done = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{kind.name}: {kind.flow} can't be built: {done.stderr[-2000:]}")
        return done.stdout.strip()

    def prepare(self, kind: Kind) -> None:
        """Make its tables, empty, or with an older version of each row."""
        if kind.into == clickhouse.TABLE:
            clickhouse.alone(clickhouse.make_table)
            return
        make_table(self.servers)
        if kind.into == LEAVERS:
            with self.servers.connect() as connection:
                connection.execute(f"drop table if exists {LEAVERS}".encode())
                connection.execute(create_table(kinds_flow.Leaver).encode())
        if kind.existing:
            self._lines = self._lines or database.lines(self.rows)
            database.fill(self.servers, self._lines)

    def count(self, kind: Kind) -> int:
        """Rows that it wrote; none may be missing or old, or the number means nothing."""
        if kind.into == clickhouse.TABLE:
            return int(clickhouse.alone(clickhouse.count_rows))
        count = count_rows(self.servers, f"guild_id = {GUILD} and {TABLE.version} > '{database.OLD}'")
        if kind.make is not mixture:
            return count
        if kind.into == LEAVERS:
            with self.servers.connect() as connection:
                [(left,)] = connection.execute(f"select count(*) from {LEAVERS}".encode()).fetchall()
            count += left
        else:
            left = count_rows(self.servers, "left_at is not null")
        if left != leaving(self.rows):
            sys.exit(f"{kind.name}: {left} of {leaving(self.rows)} leavers are in the table")
        return count


class _Takes(BaseHTTPRequestHandler):
    """Spans are read and forgotten."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """A collector of spans in this process that takes everything; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Takes) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main() -> int:
    """Run it; prints its JSON lines."""
    parser = arguments("kinds", __doc__, rows=100_000, runs=3)
    add_kind(parser)
    options = parser.parse_args()
    own = [kind for kind in KINDS if not kind.name.startswith(ELSEWHERE)]
    found = chosen(options.kind, own)
    found = found if PLAIN in found else [PLAIN, *found]
    with servers(PARTS) as started, collector() as spans:
        jobs = Jobs(started, options.rows, spans)
        measurements = {kind.name: partial(jobs.run, kind) for kind in found}
        ways = {kind.name: jobs.way(kind) for kind in found}
        results = alternate("kinds", measurements, options.runs, options.minutes)
    pairs = [(kind.name, PLAIN.name) for kind in found if kind is not PLAIN]
    print(json.dumps(summary("kinds", results, pairs, rows=options.rows, ways=ways)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
