"""The job that a workflow waits for, into Postgres."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from lovelace_streams.cli.demo.job import JOB_SECONDS, Job
from lovelace_streams.cli.demo.processes import Worker
from lovelace_streams.cli.shared import progress_bar
from lovelace_streams.writers.postgres.ddl import create_table


class WorkflowJob(Job):
    """A workflow submits the job and sleeps, a worker does the job, the signal wakes the workflow."""

    def run(self) -> dict[str, Any]:
        """Make table and topic, run worker and workflow, and count."""
        self._make_tables()
        self.make_topic()
        worker = Worker(self.stack.home, f"dataflows.{self.name}", CONSUMER_GROUP_ID=self.name).start()
        try:
            outcome = self._run_watched(worker)
        finally:
            worker.stop()
        return self._count(outcome, worker)

    def _make_tables(self) -> None:
        self.stack.postgres.execute(self.sample.setup(create_table(*self.source.rows), self.scope))

    def _run_watched(self, worker: Worker) -> dict[str, Any]:
        """Run the workflow to its end, while another thread moves the bar."""
        with progress_bar() as bar, ThreadPoolExecutor(1) as threads:
            ended = threading.Event()
            watching = threads.submit(self.watch, bar, worker, lambda _job: ended.is_set())
            try:
                return asyncio.run(self._workflow())
            finally:
                ended.set()
                watching.result()

    async def _workflow(self) -> dict[str, Any]:
        """Run the workflow and give its result. Only the signal wakes it."""
        from temporalio.client import Client
        from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
        from temporalio.worker import Worker as TemporalWorker

        # Otherwise its core warns that the test server is older than the newest servers.
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

    def _submit(self, job_id: str, workflow_id: str) -> int:
        return self.submit(self.sample.members(self.total, self.scope), job_id, workflow_id)

    def _count(self, outcome: dict[str, Any], worker: Worker) -> dict[str, Any]:
        [(rows,)] = self.stack.postgres.execute(self.sample.count_rows(self.scope))
        counts = self.counts(rows)
        seconds = _seconds(_first_read(worker.log, self.began), counts.pop("completed_at"))
        completed = counts.pop("completed")
        return counts | {
            "signals": outcome["signals"],
            "completed": completed,
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds) if seconds else None,
        }


def _first_read(log: Path, since: datetime) -> datetime:
    """Find in the worker's log when it read the first records of this run."""
    for line in _lines(log):
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
