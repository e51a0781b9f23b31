"""The main job on the embedded stack, from an empty folder to the signal: what `lovelace demo` shows.

Everything is real: the broker, Postgres, the progress API, Temporal's test server with a workflow that submits the
items and sleeps, and a worker started as in production. All of it ends with this process, also when it is killed.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
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

from lovelace_streams.ddl import create_table
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows import find_flow, flow_names
from lovelace_streams.letters import read_letters
from lovelace_streams.local import LocalStack
from lovelace_streams.local.processes import Program
from lovelace_streams.settings import Settings
from lovelace_streams.submit import Source, open_job, produce

err = Console(stderr=True)
HOME = Path(".lovelace/demo")
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
    """A worker, started as in production."""

    def __init__(self, home: Path, flow: str) -> None:
        super().__init__(home, "worker", [sys.executable, "-m", "bytewax.run", flow])


def run(total: int, *, keep_logs: bool = False, home: Path = HOME) -> int:
    """Run the demo; prints its JSON object and answers the exit code: 0 only if the job completed and adds up."""
    name = next(iter(n for n in flow_names() if hasattr(find_flow(n), "SOURCE")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with LocalStack(home, parts=("kafka", "postgres", "temporal")) as stack:
        os.environ.update(
            stack.env
            | {"PROGRESS_API_TOKEN": uuid4().hex, "LOG_FORMAT": "json", "METRICS_PORT": "0", "CONSUMER_GROUP_ID": name}
        )
        api = Api(stack.home).start()
        try:
            err.print(f"servers are up after {time.monotonic() - began:.1f} s; logs in {stack.home / 'logs'}")
            result = Demo(name, total, stack).run()
        finally:
            api.stop()
    exact = (
        result["completed"]
        and result["total"] == result["succeeded"] + result["failed"] + result["skipped"] == total
        and result["rows"] == result["succeeded"]
        and result["dead_letters"] == result["failed"]
        and result["signals"] == 1
    )
    if keep_logs or not exact:
        err.print(f"logs: {stack.home / 'logs'}")
    print(json.dumps(result), flush=True)  # noqa: T201 - the last line is the interface
    return 0 if exact else 1


class Demo:
    """One job: who submits, who works, who watches, and what is counted in the end."""

    def __init__(self, name: str, total: int, stack: LocalStack) -> None:
        self.name = name
        self.total = total
        self.stack = stack
        self.settings = Settings()
        self.source: Source = find_flow(name).SOURCE
        self.sample: ModuleType = importlib.import_module(f"dataflows.{name}_sample")
        self.job = f"demo-{uuid4().hex[:12]}"
        self.scope = int(uuid4().int % 9 * 10**17 + time.time_ns() % 10**17) + 10**17
        self.began = datetime.now().astimezone()

    def run(self) -> dict[str, Any]:
        """Set up, let the workflow submit and sleep, let the worker work, and count."""
        self._make_tables()
        self._make_topic()
        worker = Worker(self.stack.home, f"dataflows.{self.name}").start()
        try:
            with _bar() as bar, ThreadPoolExecutor(1) as threads:
                done = threading.Event()
                watching = threads.submit(self._watch, bar, worker, done)
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

    def _make_topic(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_brokers})
        topic = NewTopic(self.source.topic, PARTITIONS, config={"max.message.bytes": str(MESSAGE_MAX)})
        try:
            admin.create_topics([topic])[self.source.topic].result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _submit(self, job_id: str, workflow_id: str) -> int:
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
        messages = self.sample.members(self.total, self.scope)
        return produce(self.settings.kafka, self.source.topic, messages, job=job_id, attempt=int(opened["attempt"]))

    async def _workflow(self) -> dict[str, Any]:
        """Start the workflow and answer what it ends with: it wakes up by the signal alone."""
        from temporalio.client import Client
        from temporalio.worker import Worker as TemporalWorker

        client = await Client.connect(self.settings.temporal_address)
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

    def _watch(self, bar: Progress, worker: Worker, done: threading.Event) -> None:
        """Move the bar with the job's counts; say so if the worker ends."""
        task = bar.add_task(f"{self.job}", total=self.total)
        while not done.wait(0.2):
            job = self._job()
            if job is not None:
                bar.update(task, completed=job["succeeded"] + job["failed"] + job["skipped"])
            if worker.poll() is not None:
                raise DeploymentFault(f"the worker ended with exit code {worker.poll()} (log: {worker.log})")
        bar.update(task, completed=self.total)

    def _job(self) -> dict[str, Any] | None:
        progress = self.settings.progress
        headers = {"authorization": f"Bearer {progress.token}"}
        try:
            answer = httpx.get(f"{progress.url}/jobs/{self.job}", headers=headers, trust_env=False, timeout=5)
        except httpx.HTTPError:
            return None
        return dict(answer.json()) if answer.is_success else None

    # -- what came of it -------------------------------------------------------------------------------------------

    def _count(self, outcome: dict[str, Any], worker: Worker) -> dict[str, Any]:
        job = self._job() or {}
        with psycopg.connect(self.settings.postgres_dsn.get_secret_value()) as connection:
            [(rows,)] = connection.execute(self.sample.count_rows(self.scope).encode()).fetchall()
        letters = read_letters(self.settings, f"{self.name}.dlq")
        dead = sum(len(letter.items) for letter in letters if letter.job == self.job)
        seconds = _seconds(_first_read(worker, self.began), job.get("completed_at"))
        return {
            "job_id": self.job,
            "total": job.get("total_items"),
            "succeeded": job.get("succeeded"),
            "failed": job.get("failed"),
            "skipped": job.get("skipped"),
            "dead_letters": dead,
            "rows": rows,
            "signals": outcome["signals"],
            "completed": job.get("status") == "completed",
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds) if seconds else None,
        }


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
