"""The workflow that waits: it submits a job, sleeps until the job is complete, and takes its next step.

In production a Kestra script submits the job; here an activity does. The signal may arrive more than once. Its
`signal_id` lets it take effect once, as `onboarding_input_received` shows.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

SIGNAL = "onboarding_input_received"


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
    async def run(self, job_id: str) -> dict[str, Any]:
        """Return the counts of the signal, the number of signals and the answer of the next step."""
        await workflow.execute_activity(
            "submit", args=[job_id, workflow.info().workflow_id], start_to_close_timeout=timedelta(minutes=5)
        )
        await workflow.wait_condition(lambda: bool(self._seen))
        first = next(iter(self._seen.values()))
        next_step = await workflow.execute_activity(
            "next_step", args=[first], start_to_close_timeout=timedelta(minutes=1)
        )
        return {"signal": first, "signals": len(self._seen), "next_step": next_step}


def activities(submit: Callable[[str, str], int]) -> list[Callable[..., Any]]:
    """Make the activities, with the given `submit(job_id, workflow_id)`."""

    @activity.defn(name="submit")
    def _submit(job_id: str, workflow_id: str) -> int:
        return submit(job_id, workflow_id)

    @activity.defn(name="next_step")
    def _next_step(signal: dict[str, Any]) -> str:
        return f"welcome {signal['succeeded']} members"

    return [_submit, _next_step]
