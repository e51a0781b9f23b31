"""A job of a flow that no workflow waits for, into ClickHouse's engine."""

import time
from typing import Any

from lovelace_streams.cli.demo.job import JOB_SECONDS, Job
from lovelace_streams.cli.demo.processes import Worker
from lovelace_streams.cli.shared import progress_bar
from lovelace_streams.flows.discovery import topology


class ClickHouseJob(Job):
    """A job with a worker of its own.

    Only one process may open the engine's folder. So the table is made before the worker starts, and counted after the
    worker has ended.
    """

    def run(self) -> dict[str, Any]:
        """Make table and topic, submit, let the worker do the job, and count."""
        dsn = f"chdb://{(self.stack.home / 'clickhouse').absolute()}"
        self._make_tables(dsn)
        self.make_topic()
        worker = self._worker(dsn).start()
        try:
            self.submit(self.sample.items(self.total, self.scope), self.job)
            self._wait(worker)
        finally:
            worker.stop()
        with _client(dsn) as client:
            return self.counts(int(client.command(self.sample.count_rows(self.scope))))

    def _make_tables(self, dsn: str) -> None:
        with _client(dsn) as client:
            for writer in topology(self.name).writers:
                for statement in self.sample.setup(writer.ddl(), self.scope):
                    client.command(statement)

    def _worker(self, dsn: str) -> Worker:
        return Worker(
            self.stack.home,
            f"dataflows.{self.name}",
            f"worker-{self.source.row}s",
            CONSUMER_GROUP_ID=self.name,
            CLICKHOUSE_DSN=dsn,
            SCHEMA_REGISTRY_URL="",  # this stack has no registry
            POLL_SIZE="5000",
            BATCH_LINGER_MS="200",
        )

    def _wait(self, worker: Worker) -> None:
        end = time.monotonic() + JOB_SECONDS
        with progress_bar() as bar:
            self.watch(bar, worker, lambda job: bool(job and job["completed_at"]) or time.monotonic() > end)


def _client(dsn: str) -> Any:
    import clickhouse_connect

    return clickhouse_connect.get_client(dsn=dsn)
