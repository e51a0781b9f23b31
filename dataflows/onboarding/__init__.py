"""The workflow that waits: it has a job submitted, sleeps until the job is complete, and takes its next step.

    python -m dataflows.onboarding      # a Temporal worker for it; Kestra submits the jobs

Given a file, it has Kestra submit it: `submit_by_kestra` runs the flow of deploy/kestra/submit.yaml and ends as the
execution ends (submission.py). Without a file, `submit` does what the program around it wants (`lovelace demo`).

The signal may arrive more than once. Its `signal_id` lets it take effect once, as `onboarding_input_received` shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

SIGNAL = "onboarding_input_received"
SUBMIT_SECONDS_MAX = 7 * 3600
"""A submission by Kestra: three tries of two hours, and what is between them (deploy/kestra/submit.yaml)."""
HEARTBEAT_SECONDS = 15
"""After so long without a heartbeat the worker counts as dead, and another one takes the activity over."""


@dataclass
class Submission:
    """What Kestra is to submit: a file on the worker's machine, as a job of a dataflow."""

    job_id: str
    workflow_id: str
    file: str
    flow: str = "discord"
    guild: str | None = None


@workflow.defn(name="Onboarding")
class Onboarding:
    """Submit, sleep, wake up once, continue."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Any]] = {}

    @workflow.signal(name=SIGNAL)
    def onboarding_input_received(self, signal: dict[str, Any]) -> None:
        """Note that a job is complete; the same `signal_id` again changes nothing."""
        self._seen.setdefault(signal["signal_id"], signal)

    @workflow.query
    def signals(self) -> int:
        """Count the different signals."""
        return len(self._seen)

    @workflow.run
    async def run(self, job_id: str, file: str | None = None, guild: str | None = None) -> dict[str, Any]:
        """Return the counts of the signal, the number of signals and the answer of the next step."""
        await self._submit(job_id, file, guild)
        await workflow.wait_condition(lambda: bool(self._seen))
        first = next(iter(self._seen.values()))
        next_step = await workflow.execute_activity(
            "next_step", args=[first], start_to_close_timeout=timedelta(minutes=1)
        )
        return {"signal": first, "signals": len(self._seen), "next_step": next_step}

    async def _submit(self, job_id: str, file: str | None, guild: str | None) -> None:
        workflow_id = workflow.info().workflow_id
        if file is None:
            await workflow.execute_activity(
                "submit", args=[job_id, workflow_id], start_to_close_timeout=timedelta(minutes=5)
            )
            return
        await workflow.execute_activity(
            "submit_by_kestra",
            Submission(job_id, workflow_id, file, guild=guild),
            start_to_close_timeout=timedelta(seconds=SUBMIT_SECONDS_MAX),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_SECONDS),
            # A cancelled workflow ends when Kestra has been told to stop.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


def activities(submit: Callable[[str, str], int]) -> list[Callable[..., Any]]:
    """Make the activities, with the given `submit(job_id, workflow_id)`."""

    @activity.defn(name="submit")
    def _submit(job_id: str, workflow_id: str) -> int:
        return submit(job_id, workflow_id)

    return [_submit, next_step]


@activity.defn(name="next_step")
def next_step(signal: dict[str, Any]) -> str:
    """What follows a complete job."""
    return f"welcome {signal['succeeded']} members"
