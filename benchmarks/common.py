"""What all benchmarks share: servers, a job's messages, a worker that is measured, JSON lines and their summary.

A benchmark is a module that measures several things in alternating runs, so that whatever else the machine does hits
all alike, prints one JSON object a measurement, and a summary last:

    {"benchmark": "members", "what": "job, new rows", "run": 1, "rows": 300000, "rows_per_second": …, …}
    {"benchmark": "members", "summary": true, "rows_per_second": {what: {"median", "low", "high"}}, "ratios": {…}, …}

Everything runs on one machine: the broker, Postgres, the service, the worker. Seconds are wall clock.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from dataflows import discord, discord_sample
from lovelace_streams.cli.demo.processes import Api, Worker
from lovelace_streams.kafka.client import common_config
from lovelace_streams.local import LocalStack
from lovelace_streams.local.processes import ManagedServer
from lovelace_streams.settings import Settings
from lovelace_streams.submit import Outgoing, open_job
from lovelace_streams.writers.postgres.ddl import create_table

HOME = Path(".lovelace/bench")
SETTINGS = {
    "batch 100": {"BATCH_SIZE": "100", "POSTGRES_BLOCK_ROWS": "100", "POSTGRES_POOL": "8"},
    "best": {},
}
"""A hundred rows, committed each; and what is quickest, which is what a worker does that is told nothing."""
BLOCK = {"batch 100": 100, "best": 2000}
"""How many rows the writer's transactions hold with these settings: those of the database alone are as large."""
PARTITIONS = 3
GUILD = 81384788765712384
TABLE = discord.Member.__table__
COLUMNS = [column.name for column in TABLE.columns]
FLOW = "benchmarks.members_flow"
PACKAGES = ("bytewax", "confluent-kafka", "msgspec", "psycopg", "clickhouse-connect", "chdb", "fastavro")


# -- how a benchmark is called -----------------------------------------------------------------------------------------


def arguments(benchmark: str, doc: str | None, *, rows: int, runs: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    about = (doc or "").strip().splitlines()[0] if doc else None
    parser = argparse.ArgumentParser(prog=f"benchmarks.{benchmark}", description=about)
    parser.add_argument("--rows", type=int, default=rows, help=f"rows of each measurement ({rows})")
    parser.add_argument("--runs", type=int, default=runs, help=f"how often each is measured ({runs})")
    add_minutes(parser)
    return parser


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """The option that ends a benchmark after fewer runs."""
    parser.add_argument("--minutes", type=float, help="begin no run that would end later; one is always made")


def rounds(runs: int, minutes: float | None = None) -> Iterator[int]:
    """The numbers of the runs, one after the other, as long as the next one fits into the time.

    A run is whole or is not made, since what is compared has to alternate.

    >>> list(rounds(3)), list(rounds(3, minutes=0))
    ([1, 2, 3], [1])
    """
    began = time.monotonic()
    for run in range(1, runs + 1):
        yield run
        taken = time.monotonic() - began
        if minutes is not None and run < runs and taken * (run + 1) / run > minutes * 60:
            say(f"{run} of {runs} runs: another one would not end within {minutes:.1f} minutes")
            return


def alternate(
    benchmark: str,
    measurements: Mapping[str, Callable[[], dict[str, Any]]],
    runs: int,
    minutes: float | None = None,
) -> list[dict[str, Any]]:
    """Every measurement once a run, in the same order; each is printed as it comes."""
    results = []
    for run in rounds(runs, minutes):
        for what, measure in measurements.items():
            result = {"benchmark": benchmark, "what": what, "run": run, **measure()}
            print(json.dumps(result), flush=True)
            figure = next((f"{result[it]:,} {it}" for it in ("rows_per_second", "cpu_us_per_row") if it in result), "")
            say(f"run {run} of {runs}: {what}: {figure.replace('_', ' ')}")
            results.append(result)
    return results


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


# -- servers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Servers:
    """A broker, a database, and the progress service where it was asked for; the environment leads to them."""

    stack: LocalStack
    api: Api | None
    settings: Settings

    @property
    def parts(self) -> dict[str, ManagedServer]:
        """Who uses CPU beside the worker."""
        return {part.name: part for part in (*self.stack.servers, *([self.api] if self.api else []))}

    @property
    def dsn(self) -> str:
        """The database's."""
        return self.settings.postgres.dsn

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its own, each statement committed."""
        return psycopg.connect(self.dsn, autocommit=True)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each server with all its processes."""
        return {name: cpu_seconds(part.process(), children=True) for name, part in self.parts.items()}

    def wal(self) -> int:
        """Where the database's log ends, in bytes."""
        with self.connect() as connection:
            [(at,)] = connection.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchall()
        return int(at)


@contextmanager
def servers(parts: Sequence[str] = ("kafka", "postgres"), *, api: bool = True) -> Iterator[Servers]:
    """Start them, in a home of the benchmarks' own, and let the environment lead to them."""
    with LocalStack(HOME, parts=parts) as stack:
        os.environ.update(stack.env | {"PROGRESS_API_TOKEN": uuid4().hex, "LOG_FORMAT": "json", "METRICS_PORT": "0"})
        os.environ["TEMPORAL_ADDRESS"] = ""
        service = Api(stack.home).start() if api else None
        try:
            yield Servers(stack, service, Settings())
        finally:
            _admin.cache_clear()
            if service is not None:
                service.stop()


def admin_of(settings: Settings) -> AdminClient:
    """A client that asks the broker; kept, because what was asked of one that is let go is never answered."""
    return _admin(settings.kafka_brokers)


@cache
def _admin(brokers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": brokers, "log_level": 3})


@contextmanager
def fresh_topic(settings: Settings, partitions: int = PARTITIONS) -> Iterator[str]:
    """A topic that is gone afterwards, with those that a worker makes beside it."""
    name = f"bench-{uuid4().hex[:12]}"
    admin = admin_of(settings)
    admin.create_topics([NewTopic(name, partitions)])[name].result(30)
    try:
        yield name
    finally:
        for deleted in admin.delete_topics([name, f"{name}.dlq", f"{name}.replay"]).values():
            deleted.exception(30)


def make_table(servers: Servers, constraints: str = "") -> None:
    """Empty, by the rows' own DDL, after a checkpoint: what one measurement left to write slows no other."""
    with servers.connect() as connection:
        connection.execute(f"drop table if exists {TABLE.name}".encode())
        connection.execute((create_table(*discord_sample.ROWS) + constraints).encode())
        connection.execute("checkpoint")


def count_rows(servers: Servers, where: str = "true") -> int:
    """Rows of the table."""
    with servers.connect() as connection:
        [(count,)] = connection.execute(f"select count(*) from {TABLE.name} where {where}".encode()).fetchall()
    return int(count)


# -- messages ----------------------------------------------------------------------------------------------------------


def payload(user: int) -> dict[str, Any]:
    """A member of the benchmark's guild."""
    return discord_sample.member(10**17 + user) | {"guild_id": str(GUILD)}


def messages(rows: int, first: int = 1) -> Iterator[Outgoing]:
    """One member a message."""
    for user in range(first, first + rows):
        yield from discord.messages(discord_sample.dispatch("GUILD_MEMBER_ADD", payload(user), user))


def many_messages(rows: int, number: Callable[[int], int] = lambda n: n) -> Iterator[Outgoing]:
    """The same, made quickly: a dozen shapes, with ids and names of the members `number(1)`, `number(2)`, …"""
    shapes = [(str(10**17 + user).encode(), each.value) for user, each in enumerate(messages(12), start=1)]
    for n in range(1, rows + 1):
        old, value = shapes[n % len(shapes)]
        new = b"%d" % (10**17 + number(n))
        yield Outgoing(b"%d:%s" % (GUILD, new), value.replace(old, new))


def send(settings: Settings, topic: str, outgoing: Iterable[Outgoing], *, job: str | None = None) -> int:
    """Produce messages as `lovelace submit` does, without a callback a message; answers how many."""
    with held_back(settings, topic, outgoing, job=job, transaction=None) as sent:
        return sent


@contextmanager
def held_back(
    settings: Settings,
    topic: str,
    outgoing: Iterable[Outgoing],
    *,
    job: str | None = None,
    transaction: str | None,
) -> Iterator[int]:
    """Produce messages in a transaction of this name: they are all there, and are seen when the block ends.

    So workers can have joined, and begin at the same moment.
    """
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.name())

    config = common_config(settings.kafka) | {
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 20,
        "delivery.report.only.error": True,
        "log_level": 3,
    }
    if transaction:
        config |= {"transactional.id": transaction, "transaction.timeout.ms": 600_000}
    producer = Producer(config)
    if transaction:
        producer.init_transactions(30)
        producer.begin_transaction()
    owned = [("lovelace-job-id", job.encode()), ("lovelace-job-attempt", b"1")] if job else []
    sent = 0
    for message in outgoing:
        headers = [*owned, ("lovelace-items", b"%d" % message.items)]
        about: dict[str, Any] = {"key": message.key or None, "headers": headers}
        while True:
            try:
                producer.produce(topic, message.value, on_delivery=delivered, **about)
                break
            except BufferError:
                producer.poll(0.05)
        sent += 1
    if producer.flush(120) or failed:
        sys.exit(f"messages to {topic} were not delivered: {failed[:1]}")
    yield sent
    if transaction:
        producer.commit_transaction(30)


# -- a job by a worker -------------------------------------------------------------------------------------------------


def submit(servers: Servers, topic: str, outgoing: Iterable[Outgoing], total: int) -> str:
    """Open a job for the pipeline that is named like the topic, and send its messages; answers the job's name."""
    job = f"job-{uuid4().hex[:12]}"
    opened = {"job_id": job, "source": "discord", "total_items": total, "pipelines": [topic]}
    open_job(servers.settings.progress, opened)
    send(servers.settings, topic, outgoing, job=job)
    return job


def work(
    servers: Servers,
    topic: str,
    job: str,
    total: int,
    settings: Mapping[str, str],
    *,
    flow: str = FLOW,
    expected: tuple[int, int, int] | None = None,
    look: Callable[[psutil.Process], object] = lambda _process: None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """One worker as in production, from its first read to the job's completion as the service dates it.

    `expected` is what the job has to end with: succeeded, failed, skipped. Ends the benchmark where it does not.
    `look` is called with the worker's process while it works. `folder` is its current folder, by default this
    process's: Bytewax imports from there before anything else.
    """
    worker = Worker(servers.stack.home, flow, BENCH_TOPIC=topic, CONSUMER_GROUP_ID=topic, **settings)
    worker.folder = folder or worker.folder
    worker.log.unlink(missing_ok=True)
    worker.start()
    try:
        began = until(lambda: first_read(worker), worker, 0.005)
        process = worker.process()
        if folder is not None and Path(process.cwd()) != folder.resolve():
            sys.exit(f"the worker runs in {process.cwd()}, not in {folder}")
        cpu, others, wal = cpu_seconds(process), servers.cpu(), servers.wal()
        state = until(
            lambda: (look(process), completed(servers.settings, job))[1], worker, 0.05, seconds=120 + total / 2000
        )
        cpu = cpu_seconds(process) - cpu
        others = {name: seconds - others[name] for name, seconds in servers.cpu().items()}
        wal = servers.wal() - wal
        peak = peak_memory(process.pid)
    finally:
        worker.stop()
    if (state["succeeded"], state["failed"], state["skipped"]) != (expected or (total, 0, 0)):
        sys.exit(f"the job does not add up: {state}")
    seconds = (datetime.fromisoformat(state["completed_at"]) - began).total_seconds()
    return speed(total, seconds, cpu) | {
        "peak_mb": round(peak / 2**20, 1),
        "servers_cpu_us_per_row": {name: round(used / total * 1e6, 2) for name, used in others.items()},
        "wal_bytes_per_row": round(wal / total),
    }


def completed(settings: Settings, job: str) -> dict[str, Any] | None:
    """The job's state, once it is complete."""
    state = state_of(settings, job)
    return state if state["status"] == "completed" else None


def state_of(settings: Settings, job: str) -> dict[str, Any]:
    """The job, as the progress service has it."""
    headers = {"authorization": f"Bearer {settings.progress.token}"}
    answer = httpx.get(f"{settings.progress.url}/jobs/{job}", headers=headers, trust_env=False, timeout=10)
    return dict(answer.raise_for_status().json())


def first_read(worker: Worker) -> datetime | None:
    """When it read its first records, by its log."""
    return next((datetime.fromisoformat(it["timestamp"]) for it in logged(worker) if it["event"] == "reading"), None)


def logged(worker: ManagedServer) -> Iterator[dict[str, Any]]:
    """What it said, line by line; not what is being written just now."""
    for line in worker.log.read_text(errors="replace").splitlines(keepends=True) if worker.log.exists() else ():
        if line.startswith("{") and line.endswith("\n"):
            yield json.loads(line)


def until(condition: Callable[[], Any], worker: ManagedServer, pause: float, seconds: float = 120) -> Any:
    """What the condition answers as soon as it answers something."""
    deadline = time.monotonic() + seconds
    while (answer := condition()) is None:
        if worker.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the worker ended or took too long (log: {worker.log})")
        time.sleep(pause)
    return answer


# -- figures -----------------------------------------------------------------------------------------------------------


def cpu_seconds(process: psutil.Process, *, children: bool = False) -> float:
    """User and system time so far; with its children those that have ended, too."""
    times = process.cpu_times()
    used = float(times.user + times.system)
    if children:
        used += float(times.children_user + times.children_system)
        for child in process.children(recursive=True):
            try:
                used += cpu_seconds(child)
            except psutil.NoSuchProcess:  # from now on its parent counts it
                continue
    return used


def peak_memory(pid: int) -> int:
    """The most that was ever resident, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def speed(rows: int, seconds: float, cpu: float) -> dict[str, Any]:
    """What every measurement says."""
    return {
        "rows": rows,
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
    fast = by_what([each for each in results if "rows_per_second" in each])
    return {what: statistics.median(each["rows_per_second"] for each in found) for what, found in fast.items()}


def spread(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of speed with the slowest and quickest run, of CPU, and the most memory, by what was measured."""
    found = by_what(results)
    speeds = {
        what: [each["rows_per_second"] for each in them] for what, them in found.items() if "rows_per_second" in them[0]
    }
    return {
        "rows_per_second": {
            what: {"median": round(statistics.median(them)), "low": min(them), "high": max(them)}
            for what, them in speeds.items()
        },
        "cpu_us_per_row": {
            what: round(statistics.median(each["cpu_us_per_row"] for each in them), 2)
            for what, them in found.items()
            if "cpu_us_per_row" in them[0]
        },
        "peak_mb": {
            what: max(each["peak_mb"] for each in them) for what, them in found.items() if "peak_mb" in them[0]
        },
    }


def ratios(results: Sequence[dict[str, Any]], pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """How fast the first of each pair is, the second being 1; pairs that were not measured are left out."""
    medians = median_speeds(results)
    return {f"{a} / {b}": round(medians[a] / medians[b], 3) for a, b in pairs if a in medians and b in medians}


def summary(
    benchmark: str, results: Sequence[dict[str, Any]], pairs: Iterable[tuple[str, str]] = (), **more: Any
) -> dict[str, Any]:
    """The last line: medians with their spread, how near one comes to the other, and where it was measured."""
    return {
        "benchmark": benchmark,
        "summary": True,
        "runs": max((each["run"] for each in results), default=0),
        **spread(results),
        "ratios": ratios(results, pairs),
        **more,
        **machine(),
    }


@cache
def machine() -> dict[str, Any]:
    """Where this runs: cores, memory, and the versions that matter."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
            "cpu": cpu[1].strip() if cpu else platform.machine(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": commit.stdout.strip(),
    }
