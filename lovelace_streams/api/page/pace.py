"""How fast each job moves, from the states that the ledger's transactions notify; the method is `reporting.rates`."""

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from lovelace_streams.api.models import JobState
from lovelace_streams.reporting.rates import Rate

JOBS_MAX = 1000
"""The rates of so many jobs are kept, of those that changed last."""


class Pace(msgspec.Struct, frozen=True):
    """Items a second over the last minute, and how long the rest takes at that; None where nobody can say."""

    rate: float | None = None
    seconds_left: float | None = None


class _Moving(msgspec.Struct):
    state: JobState
    rate: Rate


class Paces:
    """What moves now. A service that has just started knows nothing of what was before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, _Moving] = OrderedDict()

    def note(self, state: JobState) -> None:
        """A job has changed; one that has ended moves no more."""
        moving = self._jobs.get(state.job_id)
        if state.status.ended:
            self._jobs.pop(state.job_id, None)
            return
        if moving is None or moving.state.attempt != state.attempt:
            self._jobs[state.job_id] = moving = _Moving(state, Rate())
        moving.state = state
        moving.rate.add(self._clock(), state.processed)
        self._jobs.move_to_end(state.job_id)
        if len(self._jobs) > JOBS_MAX:
            self._jobs.popitem(last=False)

    def of(self, state: JobState) -> Pace:
        """The pace of a job as it stands."""
        moving = self._jobs.get(state.job_id)
        if moving is None or state.status.ended or moving.state.attempt != state.attempt:
            return Pace()
        now = self._clock()
        return Pace(moving.rate.per_second(now), moving.rate.seconds_left(now, state.total_items))

    @property
    def states(self) -> list[JobState]:
        """The latest state of each job that moves."""
        return [moving.state for moving in self._jobs.values()]
