"""The members job by this project and by its peers, beside each other in one run: same topic, same table, same rows.

    make bench-peers ARGS="--rows 300000 --runs 3"

Every contender reads the same topic from its beginning, with a consumer group of its own, and writes into an empty
table (*new*), then reads it all again into the full one (*existing*). What counts is when rows are there: the table is
counted four times a second by somebody else, from the first rows seen to the last; start-up counts for nobody. In the
end the tables are compared. Ours runs with dead letters, the ledger and commits on; peers have nothing like it to turn
on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.common import COLUMNS, HOME, PARTITIONS, TABLE, cpu_seconds, median_speeds, messages, say, spread
from dataflows import discord_sample
from lovelace_streams.ddl import create_table
from lovelace_streams.demo import Api
from lovelace_streams.local import LocalStack
from lovelace_streams.local.processes import Program
from lovelace_streams.settings import Settings
from lovelace_streams.submit import open_job, produce

HERE = Path(__file__).parent
COUNT_SECONDS = 0.25
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True)
class Contender:
    """Somebody who does the job: how it is started, and with which settings."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


def ours(batch: int, **more: str) -> Contender:
    """This project's worker, as in production."""
    command = (sys.executable, "-m", "bytewax.run", "benchmarks.members_flow")
    return Contender(f"lovelace_streams, batch {batch}", command, {"BATCH_SIZE": str(batch), **more})


def bento(program: Path, batch: int, in_flight: int) -> Contender:
    """Bento, a fork of Redpanda Connect's engine."""
    command = (str(program), "-c", str(HERE / "bento" / "members.yaml"))
    return Contender(f"bento, batch {batch}", command, {"BATCH": str(batch), "IN_FLIGHT": str(in_flight)})


def build_bento(home: Path) -> Path:
    """Its program, built from the Go module's source at the version that go.mod names; minutes at first use."""
    program = home / "peers" / "bento"
    if not program.exists():
        if shutil.which("go") is None:
            sys.exit("building Bento takes Go 1.23 or newer on the PATH")
        say("building bento (minutes, once)")
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "build", "-o", str(program.resolve()), "."], cwd=HERE / "bento", check=True)
    return program


def main() -> int:
    """Run it; 1 if somebody's rows are not those of the others."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000, help="rows of each measurement (300000)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--only", help="contenders whose name contains this")
    options = parser.parse_args()
    program = build_bento(HOME)
    contenders = [ours(100), bento(program, 100, 4), ours(2000, POLL_SIZE="4000"), bento(program, 1000, 4)]
    chosen = [each for each in contenders if options.only is None or options.only in each.name]
    with LocalStack(HOME, parts=("kafka", "postgres")) as stack:
        os.environ.update(stack.env | {"PROGRESS_API_TOKEN": uuid4().hex, "LOG_FORMAT": "json", "METRICS_PORT": "0"})
        os.environ["TEMPORAL_ADDRESS"] = ""
        api = Api(stack.home).start()
        try:
            results = Contest(stack, options.rows).run(chosen, options.runs)
        finally:
            api.stop()
    print(json.dumps(summary(results, options.rows, options.runs)), flush=True)
    return 0 if len({result["rows_digest"] for result in results}) == 1 else 1


class Contest:
    """One topic, one table, one contender at a time."""

    def __init__(self, stack: LocalStack, rows: int) -> None:
        self.stack = stack
        self.rows = rows
        self.settings = Settings()
        self.dsn = self.settings.postgres.dsn

    def run(self, contenders: Sequence[Contender], runs: int) -> list[dict[str, Any]]:
        """Every contender, once a run, in the same order: new rows, then the same again."""
        results = []
        for run in range(1, runs + 1):
            for contender in contenders:
                with self.topic() as topic:
                    self.empty_table()
                    for existing in (False, True):
                        result = {
                            "benchmark": "peers",
                            "what": f"{contender.name}, {'existing' if existing else 'new'} rows",
                            "run": run,
                            **self.measure(contender, topic, existing=existing),
                        }
                        print(json.dumps(result), flush=True)
                        say(f"run {run} of {runs}: {result['what']}: {result['rows_per_second']:,} rows/s")
                        results.append(result)
        return results

    @contextmanager
    def topic(self) -> Iterator[str]:
        """A topic with a job's messages, twice: the second half comes when the first is through."""
        name = f"peers-{uuid4().hex[:12]}"
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_brokers})
        admin.create_topics([NewTopic(name, PARTITIONS)])[name].result(30)
        try:
            yield name
        finally:
            for deleted in admin.delete_topics([name, f"{name}.dlq", f"{name}.replay"]).values():
                deleted.exception(30)

    def empty_table(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"drop table if exists {TABLE.name}".encode())
            connection.execute(create_table(*discord_sample.ROWS).encode())
            connection.execute("checkpoint")

    def measure(self, contender: Contender, topic: str, *, existing: bool) -> dict[str, Any]:
        """Produce a job's messages, start the contender, and watch the rows come (or change)."""
        job = f"{topic}-{existing}"
        opened = {"job_id": job, "source": "discord", "total_items": self.rows, "pipelines": [topic]}
        open_job(self.settings.progress, opened)
        since = self.clock()
        produce(self.settings.kafka, topic, messages(self.rows), job=job)
        environment = {
            "TOPIC": topic,
            "BENCH_TOPIC": topic,
            "CONSUMER_GROUP_ID": topic,
            "POSTGRES_URL": f"{self.dsn}?sslmode=disable",
            **contender.environment,
        }
        os.environ.update(environment)
        program = Program(self.stack.home, "contender", list(contender.command)).start()
        try:
            (first, began, cpu), (last, ended, cpu_end) = self.watch(program, since)
        finally:
            program.stop()
        rows = last - first
        return {
            "rows": self.rows,
            "rows_per_second": round(rows / (ended - began)),
            "cpu_us_per_row": round((cpu_end - cpu) / rows * 1e6, 2),
            "rows_digest": self.digest(),
        }

    def clock(self) -> str:
        """The database's time."""
        with psycopg.connect(self.dsn) as connection:
            [(now,)] = connection.execute("select date_trunc('second', clock_timestamp())").fetchall()
        return str(now)

    def watch(self, program: Program, since: str) -> tuple[tuple[int, float, float], tuple[int, float, float]]:
        """(rows, when, CPU seconds) at the first rows seen, and when all were there."""
        first: tuple[int, float, float] | None = None
        deadline = time.monotonic() + GIVE_UP_SECONDS
        count = f"select count(*) from {TABLE.name} where {TABLE.version} >= %s".encode()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while True:
                if program.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the contender ended or took too long (log: {program.log})")
                now = time.monotonic()
                [(rows,)] = connection.execute(count, (since,)).fetchall()
                if rows:
                    seen = (rows, (now + time.monotonic()) / 2, cpu_seconds(program.process()))
                    first = first or seen
                    if rows >= self.rows:
                        return first, seen
                time.sleep(COUNT_SECONDS)

    def digest(self) -> str:
        """All rows but for the version, whose resolution differs between the contenders."""
        columns = ", ".join(name for name in COLUMNS if name not in {TABLE.version, "left_at"})
        ordered = (
            f"select md5(string_agg(t::text, '|' order by user_id)) from (select {columns} from {TABLE.name}) as t"
        )
        with psycopg.connect(self.dsn) as connection:
            [(digest,)] = connection.execute(ordered.encode()).fetchall()
        return str(digest)


def summary(results: Sequence[dict[str, Any]], rows: int, runs: int) -> dict[str, Any]:
    """Medians with their spread, and how far apart."""
    medians = median_speeds(results)
    return {
        "benchmark": "peers",
        "summary": True,
        "rows": rows,
        "runs": runs,
        **spread(results),
        "ratios": {
            f"{a} / {b}": round(medians[a] / medians[b], 2)
            for a in medians
            for b in medians
            if a.startswith("lovelace") and not b.startswith("lovelace") and a.split(", ")[-1] == b.split(", ")[-1]
        },
        "same_rows": len({result["rows_digest"] for result in results}) == 1,
    }


if __name__ == "__main__":
    sys.exit(main())
