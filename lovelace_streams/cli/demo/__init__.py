"""The example flows on local servers, from an empty folder to the signal: what `lovelace demo` runs.

Everything is real: the broker, Postgres, the progress service, Temporal's test server with a workflow that submits the
items and sleeps, and a worker started as in production. The other flows with a sample follow, each as a job with a
worker of its own, into ClickHouse's engine. All processes end with this one, also when it is killed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from lovelace_streams.cli.demo.clickhouse_job import ClickHouseJob
from lovelace_streams.cli.demo.job import sample_of
from lovelace_streams.cli.demo.processes import Api
from lovelace_streams.cli.demo.workflow_job import WorkflowJob
from lovelace_streams.cli.shared import err
from lovelace_streams.flows.discovery import sampled_flows
from lovelace_streams.local import LocalStack

HOME = Path(".lovelace/demo")
OTHERS_SHARE = 2
"""The jobs of the other flows have the items of the first one, divided by this."""
EXIT_TERMINATED = 128 + signal.SIGTERM


def run(total: int, *, keep_logs: bool = False, home: Path = HOME) -> int:
    """Run the demo and print its JSON object. Answers the exit code: 0 only if all jobs completed and add up."""
    name, *others = demonstrated_flows()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    began = time.monotonic()
    with LocalStack(home, parts=("kafka", "postgres", "temporal")) as stack:
        os.environ.update(stack.env | {"PROGRESS_API_TOKEN": uuid4().hex, "LOG_FORMAT": "json", "METRICS_PORT": "0"})
        api = Api(stack.home).start()
        try:
            err.print(f"servers are up after {time.monotonic() - began:.1f} s; logs in {stack.home / 'logs'}")
            result, exact = _run_jobs(name, others, total, stack)
        finally:
            api.stop()
    if keep_logs or not exact:
        err.print(f"logs: {stack.home / 'logs'}")
    print(json.dumps(result), flush=True)  # programs read the last line
    return 0 if exact else 1


def _run_jobs(name: str, others: list[str], total: int, stack: LocalStack) -> tuple[dict[str, Any], bool]:
    """Run one job after the other. Answers their counts, and whether all of them add up."""
    result = WorkflowJob(name, total, stack).run()
    exact = _is_exact(result, total) and result["signals"] == 1
    for other in others:
        job = ClickHouseJob(other, max(total // OTHERS_SHARE, 1), stack)
        counts = job.run()
        exact = exact and _is_exact(counts, job.total)
        result |= {f"{job.source.row}s": counts["total"], f"{job.source.row}_rows": counts["rows"]}
    return result, exact


def demonstrated_flows() -> list[str]:
    """Find the flows with a sample, the one that a workflow waits for first. Users' own flows have none."""
    return sorted(sampled_flows(), key=lambda name: not hasattr(sample_of(name), "WORKFLOW"))


def _is_exact(result: dict[str, Any], total: int) -> bool:
    """Whether a job completed and all of its numbers agree."""
    return bool(
        result["completed"]
        and result["total"] == result["succeeded"] + result["failed"] + result["skipped"] == total
        and result["rows"] == result["succeeded"]
        and result["dead_letters"] == result["failed"]
    )
