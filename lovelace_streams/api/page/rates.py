"""The rate of each job, from the states that the ledger's transactions notify, by `reporting.rates`."""

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from lovelace_streams.api.models import JobState
from lovelace_streams.reporting.rates import Rate

JOBS_MAX = 1000
"""Rates are kept for this many jobs, those that changed last."""


class JobRate(msgspec.Struct, frozen=True):
    """Items a second over the last minute, and the seconds that the rest takes at that rate; None if unknown."""

    rate: float | None = None
    seconds_left: float | None = None


class _MovingJob(msgspec.Struct):
    state: JobState
    rate: Rate


class JobRates:
    """The rates of jobs that changed since the service started."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, _MovingJob] = OrderedDict()

    def note(self, state: JobState) -> None:
        """Take the new state of a job; a job that has ended is forgotten."""
        moving = self._jobs.get(state.job_id)
        if state.status.ended:
            self._jobs.pop(state.job_id, None)
            return
        if moving is None or moving.state.attempt != state.attempt:
            self._jobs[state.job_id] = moving = _MovingJob(state, Rate())
        moving.state = state
        moving.rate.add(self._clock(), state.processed)
        self._jobs.move_to_end(state.job_id)
        if len(self._jobs) > JOBS_MAX:
            self._jobs.popitem(last=False)

    def of(self, state: JobState) -> JobRate:
        """Compute the rate of a job in this state."""
        moving = self._jobs.get(state.job_id)
        if moving is None or state.status.ended or moving.state.attempt != state.attempt:
            return JobRate()
        now = self._clock()
        return JobRate(moving.rate.per_second(now), moving.rate.seconds_left(now, state.total_items))

    @property
    def states(self) -> list[JobState]:
        """The latest state of each job that is kept."""
        return [moving.state for moving in self._jobs.values()]
