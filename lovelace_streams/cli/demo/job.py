"""A job of one flow: its topic, its submission, its state and its counts."""

import importlib
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from types import ModuleType
from typing import Any
from uuid import uuid4

import httpx
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from rich.progress import Progress

from lovelace_streams.admin.submit import produce
from lovelace_streams.cli.demo.processes import Worker
from lovelace_streams.dead_letters.reader import read_letters
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import find_flow
from lovelace_streams.flows.spec import FlowSpec, Outgoing
from lovelace_streams.local import LocalStack
from lovelace_streams.reporting.client import open_job
from lovelace_streams.settings import Settings

JOB_SECONDS = 150.0
"""How long a job may take before the demo gives up."""
POLL_SECONDS = 0.2
PARTITIONS = 3
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


def sample_of(name: str) -> ModuleType:
    """Import the module that generates a flow's sample."""
    return importlib.import_module(f"dataflows.{name}_sample")


class Job:
    """What the jobs of all flows have in common."""

    def __init__(self, name: str, total: int, stack: LocalStack) -> None:
        self.name = name
        self.total = total
        self.stack = stack
        self.settings = Settings()
        self.source: FlowSpec = find_flow(name).SOURCE
        self.sample = sample_of(name)
        self.job = f"demo-{uuid4().hex[:12]}"
        self.scope = int(uuid4().int % 9 * 10**17 + time.time_ns() % 10**17) + 10**17
        """A number that all rows of this run share."""
        self.began = datetime.now().astimezone()

    def make_topic(self) -> None:
        """Make the flow's topic, if it does not exist."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_brokers})
        topic = NewTopic(self.source.topic, PARTITIONS, config={"max.message.bytes": str(MESSAGE_BYTES_MAX)})
        try:
            admin.create_topics([topic])[self.source.topic].result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def submit(self, messages: Iterable[Outgoing], job_id: str, workflow_id: str | None = None) -> int:
        """Open the job and send the raw payloads, as the extraction script does in production."""
        job = {
            "job_id": job_id,
            "source": self.source.name,
            "workflow_id": workflow_id,
            "total_items": self.total,
            "pipelines": [self.name],
        }
        opened = open_job(self.settings.progress, job, key=job_id)
        return produce(self.settings.kafka, self.source.topic, messages, job=job_id, attempt=int(opened["attempt"]))

    def state(self) -> dict[str, Any] | None:
        """Ask the progress service for the job; None if it does not answer."""
        progress = self.settings.progress
        headers = {"authorization": f"Bearer {progress.token}"}
        try:
            answer = httpx.get(f"{progress.url}/jobs/{self.job}", headers=headers, trust_env=False, timeout=5)
        except httpx.HTTPError:
            return None
        return dict(answer.json()) if answer.is_success else None

    def watch(self, bar: Progress, worker: Worker, is_done: Callable[[dict[str, Any] | None], bool]) -> None:
        """Move the bar with the job's counts until it is done. Raises `DeploymentFault` if the worker ends."""
        task = bar.add_task(f"{self.name}: {self.job}", total=self.total)
        while not is_done(job := self.state()):
            if job is not None:
                bar.update(task, completed=job["succeeded"] + job["failed"] + job["skipped"])
            if worker.poll() is not None:
                raise DeploymentFault(f"the worker ended with exit code {worker.poll()}: see its log {worker.log}")
            time.sleep(POLL_SECONDS)
        bar.update(task, completed=self.total)

    def counts(self, rows: int) -> dict[str, Any]:
        """Put the numbers of the service and of the dead-letter topic beside the rows of the table."""
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
