"""The members job from a real broker to real Postgres, beside the database's own limit, in one run.

    make bench ARGS="--rows 60000 --runs 3"

*job*: one worker as in production, with dead letters, the ledger (a real progress service) and commits on; from the
first read to the job's completion as the service dates it. Messages hold one member each, and no row is there before.
*database*: the same rows as prebuilt blocks of COPY text over one connection, nothing else: staged and merged with
ON CONFLICT as the writer must, a transaction a block; and straight into the table, which only new rows allow.

Runs alternate, so that whatever else the machine does hits all alike. All of it shares the machine's cores: the
broker, Postgres, the service and the worker. Seconds are wall clock; CPU is the worker's own, or this process's.
"""

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
from confluent_kafka.admin import AdminClient, NewTopic

from dataflows import discord, discord_sample
from lovelace_streams import UNSET
from lovelace_streams.ddl import create_table
from lovelace_streams.demo import Api, Worker
from lovelace_streams.local import LocalStack
from lovelace_streams.settings import Settings
from lovelace_streams.submit import Outgoing, open_job, produce

HOME = Path(".lovelace/bench")
PARTITIONS = 3
GUILD = 81384788765712384
TABLE = discord.Member.__table__
COLUMNS = [column.name for column in TABLE.columns]
SETTINGS = {
    "job, batch 100": {"BATCH_SIZE": "100"},
    "job, batch 2000": {"BATCH_SIZE": "2000", "POLL_SIZE": "4000"},
}
"""The defaults (100 rows, committed each), and what is quickest."""
RATIOS = {
    "job, batch 100 / database, merge 100": ("job, batch 100", "database, merge 100"),
    "job, batch 2000 / database, merge 1000": ("job, batch 2000", "database, merge 1000"),
    "job, batch 2000 / database, copy 1000": ("job, batch 2000", "database, copy 1000"),
    "job, batch 2000 / job, batch 100": ("job, batch 2000", "job, batch 100"),
}


def main() -> int:
    """Run it; 1 if a row was lost."""
    parser = argparse.ArgumentParser(prog="benchmarks.members", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000, help="rows of each measurement (60000)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3)")
    options = parser.parse_args()
    with LocalStack(HOME, parts=("kafka", "postgres")) as stack:
        os.environ.update(stack.env | {"PROGRESS_API_TOKEN": uuid4().hex, "LOG_FORMAT": "json", "METRICS_PORT": "0"})
        os.environ["TEMPORAL_ADDRESS"] = ""
        api = Api(stack.home).start()
        try:
            results = Bench(stack, options.rows).run(options.runs)
        finally:
            api.stop()
    print(json.dumps(summary(results, options.rows, options.runs)), flush=True)
    return 0


class Bench:
    """All measurements on one set of servers."""

    def __init__(self, stack: LocalStack, rows: int) -> None:
        self.stack = stack
        self.rows = rows
        self.settings = Settings()

    def run(self, runs: int) -> list[dict[str, Any]]:
        """Every measurement, once a run, in the same order."""
        say(f"preparing {self.rows} rows")
        blocks = {size: list(self.blocks(size)) for size in (100, 1000)}
        measurements: dict[str, Callable[[], dict[str, Any]]] = {
            "job, batch 100": lambda: self.job("job, batch 100"),
            "database, merge 100": lambda: self.database(blocks[100], self.merge),
            "job, batch 2000": lambda: self.job("job, batch 2000"),
            "database, merge 1000": lambda: self.database(blocks[1000], self.merge),
            "database, copy 1000": lambda: self.database(blocks[1000], self.copy),
        }
        results = []
        for run in range(1, runs + 1):
            for what, measure in measurements.items():
                self.make_table()
                result = {"benchmark": "members", "what": what, "run": run, "rows": self.rows, **measure()}
                self.check(what)
                print(json.dumps(result), flush=True)
                say(f"run {run} of {runs}: {what}: {result['rows_per_second']:,} rows/s")
                results.append(result)
        return results

    def make_table(self) -> None:
        """Empty, by the rows' own DDL, after a checkpoint: what one measurement left to write slows no other."""
        with psycopg.connect(self.settings.postgres.dsn, autocommit=True) as connection:
            connection.execute(f"drop table if exists {TABLE.name}".encode())
            connection.execute(create_table(*discord_sample.ROWS).encode())
            connection.execute("checkpoint")

    def check(self, what: str) -> None:
        """No row may be missing, or the number means nothing."""
        with psycopg.connect(self.settings.postgres.dsn) as connection:
            [(count,)] = connection.execute(discord_sample.count_rows(GUILD).encode()).fetchall()
        if count != self.rows:
            sys.exit(f"{what}: {count} of {self.rows} rows are in the table")

    # -- the job -------------------------------------------------------------------------------------------------------

    def job(self, what: str) -> dict[str, Any]:
        """Submit all of it, then start a worker and wait until the service says that the job is complete."""
        name = f"bench-{uuid4().hex[:12]}"
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_brokers})
        admin.create_topics([NewTopic(name, PARTITIONS)])[name].result(30)
        changes = {"BENCH_TOPIC": name, "CONSUMER_GROUP_ID": name, **SETTINGS[what]}
        before = {key: os.environ.get(key) for key in changes}
        try:
            opened = {"job_id": name, "source": "discord", "total_items": self.rows, "pipelines": [name]}
            open_job(self.settings.progress, opened)
            produce(self.settings.kafka, name, messages(self.rows), job=name)
            os.environ.update(changes)
            return self.work(name)
        finally:
            for key, value in before.items():
                os.environ.pop(key, None) if value is None else os.environ.update({key: value})
            topics = [name, f"{name}.dlq", f"{name}.replay"]
            for deleted in admin.delete_topics(topics).values():
                deleted.exception(30)

    def work(self, name: str) -> dict[str, Any]:
        """One worker, from its first read to the job's completion."""
        worker = Worker(self.stack.home, "benchmarks.members_flow")
        worker.log.unlink(missing_ok=True)
        worker.start()
        try:
            began = until(lambda: first_read(worker), worker, 0.005)
            process = worker.process()
            cpu = cpu_seconds(process)
            state = until(lambda: self.completed(name), worker, 0.05)
            cpu = cpu_seconds(process) - cpu
            peak = peak_memory(process.pid)
        finally:
            worker.stop()
        if (state["succeeded"], state["failed"], state["skipped"]) != (self.rows, 0, 0):
            sys.exit(f"the job does not add up: {state}")
        seconds = (datetime.fromisoformat(state["completed_at"]) - began).total_seconds()
        return speed(self.rows, seconds, cpu) | {"peak_mb": round(peak / 2**20, 1)}

    def completed(self, name: str) -> dict[str, Any] | None:
        """The job's state, once it is complete."""
        progress = self.settings.progress
        headers = {"authorization": f"Bearer {progress.token}"}
        answer = httpx.get(f"{progress.url}/jobs/{name}", headers=headers, trust_env=False, timeout=10)
        state: dict[str, Any] = answer.raise_for_status().json()
        return state if state["status"] == "completed" else None

    # -- the database alone --------------------------------------------------------------------------------------------

    def blocks(self, size: int) -> Iterator[str]:
        """The rows of the same messages, as the text that COPY takes."""
        now = datetime.now(UTC)
        lines = []
        for user in range(1, self.rows + 1):
            raw = discord_sample.dispatch("GUILD_MEMBER_ADD", payload(user))
            row = discord.Member.from_raw(raw["d"], root=raw)
            row.seen_at = now
            lines.append("\t".join(copy_text(getattr(row, name)) for name in COLUMNS))
            if len(lines) == size or user == self.rows:
                yield "\n".join(lines) + "\n"
                lines = []

    def database(self, blocks: Sequence[str], write: Callable[[psycopg.Connection[Any], str], None]) -> dict[str, Any]:
        """All blocks over one connection, a transaction each."""
        with psycopg.connect(self.settings.postgres.dsn, autocommit=True) as connection:
            connection.execute(f"create temp table stage (like {TABLE.name}) on commit delete rows".encode())
            began, cpu = time.perf_counter(), time.process_time()
            for block in blocks:
                with connection.transaction():
                    write(connection, block)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return speed(self.rows, seconds, cpu)

    @staticmethod
    def merge(connection: psycopg.Connection[Any], block: str) -> None:
        """Staged, then merged: the newer row wins."""
        copy_into(connection, "stage", block)
        columns, key = ", ".join(COLUMNS), ", ".join(TABLE.key)
        rest = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in TABLE.key)
        connection.execute(
            f"insert into {TABLE.name} ({columns}) select {columns} from stage on conflict ({key}) do update set {rest}"
            f" where {TABLE.name}.{TABLE.version} <= excluded.{TABLE.version}".encode()
        )

    @staticmethod
    def copy(connection: psycopg.Connection[Any], block: str) -> None:
        """Straight into the table."""
        copy_into(connection, TABLE.name, block)


def payload(user: int) -> dict[str, Any]:
    """A member of the benchmark's guild."""
    return discord_sample.member(10**17 + user) | {"guild_id": str(GUILD)}


def messages(rows: int) -> Iterator[Outgoing]:
    """One member a message."""
    for user in range(1, rows + 1):
        yield from discord.messages(discord_sample.dispatch("GUILD_MEMBER_ADD", payload(user), user))


def copy_into(connection: psycopg.Connection[Any], table: str, block: str) -> None:
    """One COPY."""
    with connection.cursor().copy(f"copy {table} ({', '.join(COLUMNS)}) from stdin".encode()) as copy:
        copy.write(block)


def copy_text(value: Any) -> str:
    """A value in COPY's text format; what is absent is NULL here."""
    if value is None or value is UNSET:
        return r"\N"
    if isinstance(value, list):
        return "{" + ",".join(map(str, value)) + "}"
    if isinstance(value, datetime):
        return value.isoformat()
    return re.sub(r"[\\\t\n\r]", lambda found: "\\" + found.group(), str(value))


def first_read(worker: Worker) -> datetime | None:
    """When it read its first records, by its log."""
    for line in worker.log.read_text(errors="replace").splitlines() if worker.log.exists() else ():
        if line.startswith("{") and (entry := json.loads(line)).get("event") == "reading":
            return datetime.fromisoformat(entry["timestamp"])
    return None


def until(condition: Callable[[], Any], worker: Worker, pause: float, seconds: float = 120) -> Any:
    """What the condition answers as soon as it answers something."""
    deadline = time.monotonic() + seconds
    while (answer := condition()) is None:
        if worker.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the worker ended or took too long (log: {worker.log})")
        time.sleep(pause)
    return answer


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def peak_memory(pid: int) -> int:
    """The most that was ever resident, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def speed(rows: int, seconds: float, cpu: float) -> dict[str, Any]:
    """What every measurement says."""
    return {
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds),
        "cpu_us_per_row": round(cpu / rows * 1e6, 2),
    }


def by_what(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The measurements by what they measure."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["what"], []).append(result)
    return found


def median_speeds(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Rows a second by what was measured: of ratios, before rounding."""
    return {
        what: statistics.median(each["rows_per_second"] for each in found) for what, found in by_what(results).items()
    }


def spread(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of speed with the slowest and quickest run, and of CPU, by what was measured."""
    speeds = {what: [each["rows_per_second"] for each in found] for what, found in by_what(results).items()}
    return {
        "rows_per_second": {
            what: {"median": round(statistics.median(found)), "low": min(found), "high": max(found)}
            for what, found in speeds.items()
        },
        "cpu_us_per_row": {
            what: statistics.median(each["cpu_us_per_row"] for each in found)
            for what, found in by_what(results).items()
        },
    }


def summary(results: Sequence[dict[str, Any]], rows: int, runs: int) -> dict[str, Any]:
    """Medians with their spread, and how near the job comes to the database."""
    by_name = by_what(results)
    medians = median_speeds(results)
    return {
        "benchmark": "members",
        "summary": True,
        "rows": rows,
        "runs": runs,
        **spread(results),
        "peak_mb": {
            what: max(each["peak_mb"] for each in found) for what, found in by_name.items() if "peak_mb" in found[0]
        },
        "ratios": {name: round(medians[a] / medians[b], 2) for name, (a, b) in RATIOS.items()},
        "settings": SETTINGS,
        "cores": os.cpu_count(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("bytewax", "confluent-kafka", "psycopg", "msgspec")},
        },
    }


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
