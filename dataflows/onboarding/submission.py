"""The activity by which Kestra submits a job: run the flow `lovelace_submit`, wait, and end as its execution ends.

An activity is tried again when its worker dies, but Kestra takes no execution id of the caller's and has no request
that counts once. So each execution carries a label whose value is the same for all tries of one activity. A further try
goes on with the execution that the heartbeat or the label names. It starts one only if none is to be found for
`settle_seconds`, because an execution is listed some moments after it was accepted. Should a second one start
nevertheless, it opens a new attempt of the job, and the counts stay exact.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from temporalio import activity
from temporalio.exceptions import ApplicationError

from dataflows.onboarding import HEARTBEAT_SECONDS, Submission
from dataflows.onboarding.kestra import Kestra, KestraAway, KestraRefusal, KestraSettings

SUCCEEDED = frozenset({"SUCCESS", "WARNING"})
UNDER_WAY = frozenset(
    {
        "CREATED",
        "SUBMITTED",
        "QUEUED",
        "RUNNING",
        "PAUSED",
        "RESTARTED",
        "RESUBMITTED",
        "RETRYING",
        "KILLING",
        "BREAKPOINT",
    }
)
"""Every other state is an end that is no success: FAILED, KILLED, CANCELLED, and what a newer Kestra may know."""
KILL_TRIES = 5


class SubmitByKestra:
    """The activity, with its settings."""

    def __init__(self, settings: KestraSettings | None = None) -> None:
        self._settings = settings or KestraSettings()

    @activity.defn(name="submit_by_kestra")
    async def submit(self, submission: Submission) -> str:
        """Have Kestra submit the file; give the id of the execution.

        Raises an `ApplicationError`, which is not tried again if the execution fails or Kestra refuses. While Kestra is
        away, the execution is waited for. If the activity is cancelled, the execution is killed.
        """
        try:
            async with Kestra(self._settings) as kestra:
                execution = _Execution(kestra, self._settings)
                async with execution.beating():
                    return await execution.run(submission)
        except KestraAway as away:
            raise ApplicationError(str(away), type="KestraAway") from None
        except KestraRefusal as refusal:
            raise ApplicationError(str(refusal), type="KestraRefusal", non_retryable=True) from None


class _Execution:
    """The execution of an activity, as one try of it sees it."""

    def __init__(self, kestra: Kestra, settings: KestraSettings) -> None:
        self._kestra = kestra
        self._settings = settings
        info = activity.info()
        self._key = _key_of(info)
        self._id: str | None = next(iter(info.heartbeat_details), None)
        self._may_be_started = info.attempt > 1
        """By this try or one before it, and the answer did not arrive."""

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Send heartbeats that name the execution, also while a file is sent or Kestra is away."""

        async def beat() -> None:
            while True:
                self._beat()
                await asyncio.sleep(HEARTBEAT_SECONDS / 5)

        beats = asyncio.create_task(beat())
        try:
            yield
        finally:
            beats.cancel()

    def _beat(self) -> None:
        activity.heartbeat(*([self._id] if self._id else []))

    async def run(self, submission: Submission) -> str:
        """Start the execution, if no try before has, and wait for its success."""
        try:
            if self._id is None and self._may_be_started:
                self._id = await self._look()
            if self._id is None:
                self._id = await self._start(submission)
            self._beat()
            await self._wait(self._id)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.cancel_requested:  # else this worker ends, and another one goes on
                await self._kill()
            raise
        return self._id

    async def _start(self, submission: Submission) -> str:
        inputs = {"flow": submission.flow, "job_id": submission.job_id, "workflow_id": submission.workflow_id}
        if submission.guild is not None:
            inputs["guild"] = submission.guild
        try:
            file = Path(submission.file).open("rb")  # noqa: ASYNC230, SIM115 - a local file; closed below
        except OSError as error:
            raise KestraRefusal(f"the file {submission.file} can't be read here: {error.strerror}") from None
        with file:
            self._may_be_started = True
            return await self._kestra.start(inputs, file, self._key)

    async def _look(self) -> str | None:
        """Look for the execution until it would be listed if there were one."""
        deadline = monotonic() + self._settings.settle_seconds
        while True:
            found = await self._kestra.find(self._key)
            if found is not None or monotonic() > deadline:
                return found
            await asyncio.sleep(min(1.0, self._settings.poll_seconds))

    async def _wait(self, execution: str) -> None:
        """Return when the execution has succeeded, however long Kestra is away in between."""
        missing_since: float | None = None
        while True:
            state = await self._state(execution)
            missing_since = (missing_since or monotonic()) if state is None else None
            if state in SUCCEEDED:
                return
            is_gone = missing_since is not None and monotonic() - missing_since > self._settings.settle_seconds
            if is_gone or not (state is None or state in UNDER_WAY):
                end = state or "deleted"
                raise ApplicationError(
                    f"Kestra's execution {execution} ended as {end}: see its log, {self._page(execution)}",
                    type="KestraExecutionFailed",
                    non_retryable=True,
                )
            await asyncio.sleep(self._settings.poll_seconds)

    async def _state(self, execution: str) -> str | None:
        """Ask for the state, until Kestra answers."""
        is_told = False
        while True:
            try:
                return await self._kestra.state(execution)
            except KestraAway as away:
                if not is_told:
                    activity.logger.warning("the execution %s is waited for: %s", execution, away)
                    is_told = True
            await asyncio.sleep(self._settings.poll_seconds)

    def _page(self, execution: str) -> str:
        settings = self._settings
        return f"{settings.url}/ui/{settings.tenant}/executions/{settings.namespace}/{settings.flow}/{execution}"

    async def _kill(self) -> None:
        """Have the execution stopped, if there is one; Kestra's absence is waited for a little while."""
        for _ in range(KILL_TRIES):
            try:
                if self._id is None and self._may_be_started:
                    self._id = await self._look()
                if self._id is not None:
                    await self._kestra.kill(self._id)
            except KestraAway:
                await asyncio.sleep(self._settings.poll_seconds)
            except KestraRefusal as refusal:
                activity.logger.warning("the execution %s is not killed: %s", self._id, refusal)
                return
            else:
                return
        activity.logger.warning("the execution %s is not killed: Kestra does not answer", self._id)


def _key_of(info: activity.Info) -> str:
    """Give what all tries of an activity share. A label's value holds no colon, and ids of workflows may."""
    names = (info.workflow_namespace or "", info.workflow_id or "", info.workflow_run_id or "", info.activity_id)
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]
