"""The main job on the embedded stack, from an empty folder to the signal: what `lovelace demo` shows.

Everything is real: the broker, Postgres, the progress API, Temporal's test server with a workflow that submits the
items and sleeps, and a worker started as in production. The other flows that have a sample follow, each as a job and
a worker of its own, into ClickHouse's engine. All of it ends with this process, also when it is killed.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lovelace_streams.admin.submit import produce
from lovelace_streams.dead_letters.reader import read_letters
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import find_flow, sampled_flows, topology
from lovelace_streams.flows.spec import FlowSpec, Outgoing
from lovelace_streams.local import LocalStack
from lovelace_streams.local.processes import Program
from lovelace_streams.reporting.client import open_job
from lovelace_streams.settings import Settings
from lovelace_streams.writers.postgres.ddl import create_table

err = Console(stderr=True)
HOME = Path(".lovelace/demo")
BESIDE = 2
"""The other flows' jobs have the main one's items divided by this."""
JOB_SECONDS = 150.0
"""How long the job may take before the demo gives up."""
PARTITIONS = 3
MESSAGE_MAX = 64 * 1024 * 1024


class Api(Program):
    """The progress API, with its address in the environment of whoever is started after it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, "api", [sys.executable, "-m", "lovelace_streams.api"])

    def answers(self) -> bool:
        """Whether it and its database are ready."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False

    def before_launch(self) -> None:
        """Its port is known now."""
        os.environ["API_PORT"] = str(self.port)
        os.environ["PROGRESS_API_URL"] = f"http://127.0.0.1:{self.port}"


class Worker(Program):
    """A worker, started as in production: it is its flow's only one, and told nothing but the environment."""

    def __init__(self, home: Path, flow: str, name: str = "worker", **settings: str) -> None:
        super().__init__(home, name, [sys.executable, "-m", "bytewax.run", flow])
        self.settings = settings

    def environment(self) -> dict[str, str]:
        """Ours, with what this worker alone is told."""
        return super().environment() | self.settings


def run(total: int, *, keep_logs: bool = False, home: Path = HOME) -> int:
    """Run the demo; prints its JSON object and answers the exit code: 0 only if the job completed and adds up."""
    name, *others = shown()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with LocalStack(home, parts=("kafka", "postgres", "temporal")) as stack:
        os.environ.update(stack.env | {"PROGRESS_API_TOKEN": uuid4().hex, "LOG_FORMAT": "json", "METRICS_PORT": "0"})
        api = Api(stack.home).start()
        try:
            err.print(f"servers are up after {time.monotonic() - began:.1f} s; logs in {stack.home / 'logs'}")
            result = Demo(name, total, stack).run()
            exact = _exact(result, total) and result["signals"] == 1
            for other in others:
                job = Beside(other, max(total // BESIDE, 1), stack)
                counts = job.run()
                exact = exact and _exact(counts, job.total)
                result |= {f"{job.source.row}s": counts["total"], f"{job.source.row}_rows": counts["rows"]}
        finally:
            api.stop()
    if keep_logs or not exact:
        err.print(f"logs: {stack.home / 'logs'}")
    print(json.dumps(result), flush=True)  # the last line is the interface
    return 0 if exact else 1


def shown() -> list[str]:
    """The flows with a sample beside them, first the one that a workflow waits for; any others are their users' own."""
    return sorted(sampled_flows(), key=lambda name: not hasattr(_sample(name), "WORKFLOW"))


def _sample(name: str) -> ModuleType:
    return importlib.import_module(f"dataflows.{name}_sample")


def _exact(result: dict[str, Any], total: int) -> bool:
    """Whether a job completed and all of its numbers agree."""
    return bool(
        result["completed"]
        and result["total"] == result["succeeded"] + result["failed"] + result["skipped"] == total
        and result["rows"] == result["succeeded"]
        and result["dead_letters"] == result["failed"]
    )


class Job:
    """A job of one flow: its topic, its items, its counts."""

    def __init__(self, name: str, total: int, stack: LocalStack) -> None:
        self.name = name
        self.total = total
        self.stack = stack
        self.settings = Settings()
        self.source: FlowSpec = find_flow(name).SOURCE
        self.sample = _sample(name)
        self.job = f"demo-{uuid4().hex[:12]}"
        self.scope = int(uuid4().int % 9 * 10**17 + time.time_ns() % 10**17) + 10**17
        self.began = datetime.now().astimezone()

    def make_topic(self) -> None:
        """The flow's topic, where it is not there yet."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_brokers})
        topic = NewTopic(self.source.topic, PARTITIONS, config={"max.message.bytes": str(MESSAGE_MAX)})
        try:
            admin.create_topics([topic])[self.source.topic].result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def submit(self, messages: Iterable[Outgoing], job_id: str, workflow_id: str | None = None) -> int:
        """What the extraction script does in production: count, open the job, send the raw payloads."""
        opened = open_job(
            self.settings.progress,
            {
                "job_id": job_id,
                "source": self.source.name,
                "workflow_id": workflow_id,
                "total_items": self.total,
                "pipelines": [self.name],
            },
            key=job_id,
        )
        return produce(self.settings.kafka, self.source.topic, messages, job=job_id, attempt=int(opened["attempt"]))

    def state(self) -> dict[str, Any] | None:
        """The job, as the progress service has it; None where it does not answer."""
        progress = self.settings.progress
        headers = {"authorization": f"Bearer {progress.token}"}
        try:
            answer = httpx.get(f"{progress.url}/jobs/{self.job}", headers=headers, trust_env=False, timeout=5)
        except httpx.HTTPError:
            return None
        return dict(answer.json()) if answer.is_success else None

    def watch(self, bar: Progress, worker: Worker, done: Callable[[dict[str, Any] | None], bool]) -> None:
        """Move the bar with the job's counts until it is done; raises `DeploymentFault` if the worker ends."""
        task = bar.add_task(f"{self.name}: {self.job}", total=self.total)
        while not done(job := self.state()):
            if job is not None:
                bar.update(task, completed=job["succeeded"] + job["failed"] + job["skipped"])
            if worker.poll() is not None:
                raise DeploymentFault(f"the worker ended with exit code {worker.poll()} (log: {worker.log})")
            time.sleep(0.2)
        bar.update(task, completed=self.total)

    def counts(self, rows: int) -> dict[str, Any]:
        """What the progress service and the dead-letter topic say, beside the rows of the table."""
        job = self.state() or {}
        letters = read_letters(self.settings, f"{self.name}.dlq")
        return {
            "job_id": self.job,
            "total": job.get("total_items"),
            "succeeded": job.get("succeeded"),
            "failed": job.get("failed"),
            "skipped": job.get("skipped"),
            "dead_letters": sum(len(letter.items) for letter in letters if letter.job == self.job),
            "rows": rows,
            "completed": job.get("status") == "completed",
            "completed_at": job.get("completed_at"),
        }


class Demo(Job):
    """The job that a workflow waits for: who submits, who works, who watches, and what is counted in the end."""

    def run(self) -> dict[str, Any]:
        """Set up, let the workflow submit and sleep, let the worker work, and count."""
        self._make_tables()
        self.make_topic()
        worker = Worker(self.stack.home, f"dataflows.{self.name}", CONSUMER_GROUP_ID=self.name).start()
        try:
            with _bar() as bar, ThreadPoolExecutor(1) as threads:
                done = threading.Event()
                watching = threads.submit(self.watch, bar, worker, lambda _job: done.is_set())
                try:
                    outcome = asyncio.run(self._workflow())
                finally:
                    done.set()
                    watching.result()
        finally:
            worker.stop()
        return self._count(outcome, worker)

    # -- the parts -------------------------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        with psycopg.connect(self.settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:
            connection.execute(self.sample.setup(create_table(*self.source.rows), self.scope).encode())

    def _submit(self, job_id: str, workflow_id: str) -> int:
        return self.submit(self.sample.members(self.total, self.scope), job_id, workflow_id)

    async def _workflow(self) -> dict[str, Any]:
        """Start the workflow and answer what it ends with: it wakes up by the signal alone."""
        from temporalio.client import Client
        from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
        from temporalio.worker import Worker as TemporalWorker

        # Its core warns that the test server is none of the newest servers.
        quiet = TelemetryConfig(logging=LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR")))
        client = await Client.connect(self.settings.temporal_address, runtime=Runtime(telemetry=quiet))
        async with TemporalWorker(
            client,
            task_queue=self.job,
            workflows=[self.sample.WORKFLOW],
            activities=self.sample.activities(self._submit),
            activity_executor=ThreadPoolExecutor(2),
        ):
            started = client.execute_workflow(self.sample.WORKFLOW.run, self.job, id=self.job, task_queue=self.job)
            result: dict[str, Any] = await asyncio.wait_for(started, JOB_SECONDS)
            return result

    # -- what came of it -------------------------------------------------------------------------------------------

    def _count(self, outcome: dict[str, Any], worker: Worker) -> dict[str, Any]:
        with psycopg.connect(self.settings.postgres_dsn.get_secret_value()) as connection:
            [(rows,)] = connection.execute(self.sample.count_rows(self.scope).encode()).fetchall()
        counts = self.counts(rows)
        seconds = _seconds(_first_read(worker, self.began), counts.pop("completed_at"))
        completed = counts.pop("completed")
        return counts | {
            "signals": outcome["signals"],
            "completed": completed,
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds) if seconds else None,
        }


class Beside(Job):
    """A job of another flow, with a worker of its own, into ClickHouse's engine: no workflow waits for it.

    A process opens the engine's folder alone, so the table is made before the worker begins, and counted when it has
    ended.
    """

    def run(self) -> dict[str, Any]:
        """Set up, submit, let the worker work until the job is complete, and count."""
        dsn = f"chdb://{(self.stack.home / 'clickhouse').absolute()}"
        with _clickhouse(dsn) as client:
            for writer in topology(self.name).writers:
                for statement in self.sample.setup(writer.ddl(), self.scope):
                    client.command(statement)
        self.make_topic()
        worker = Worker(
            self.stack.home,
            f"dataflows.{self.name}",
            f"worker-{self.source.row}s",
            CONSUMER_GROUP_ID=self.name,
            CLICKHOUSE_DSN=dsn,
            SCHEMA_REGISTRY_URL="",  # of this stack there is none
            POLL_SIZE="5000",
            BATCH_LINGER_MS="200",
        ).start()
        try:
            self.submit(self.sample.items(self.total, self.scope), self.job)
            end = time.monotonic() + JOB_SECONDS
            with _bar() as bar:
                self.watch(bar, worker, lambda job: bool(job and job["completed_at"]) or time.monotonic() > end)
        finally:
            worker.stop()
        with _clickhouse(dsn) as client:
            return self.counts(int(client.command(self.sample.count_rows(self.scope))))


def _clickhouse(dsn: str) -> Any:
    import clickhouse_connect

    return clickhouse_connect.get_client(dsn=dsn)


def _first_read(worker: Worker, since: datetime) -> datetime:
    """When the worker read its first records of this run, by its log."""
    for line in _lines(worker.log):
        at = datetime.fromisoformat(line["timestamp"])
        if line.get("event") == "reading" and at >= since:
            return at
    return since


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _seconds(first: datetime, completed: str | None) -> float:
    return (datetime.fromisoformat(completed) - first).total_seconds() if completed else 0.0


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )
