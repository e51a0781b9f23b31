"""Compute a rate over a sliding window of absolute counts, and the time left at that rate.

Counts are absolute, so a lost or repeated sample changes nothing. Between two samples the rate is taken as constant;
after the last one it is zero. No clock here: the caller passes the time.
"""

from collections import deque
from typing import NamedTuple

WINDOW_SECONDS = 60.0
SAMPLES_A_WINDOW = 60
"""How many samples a window keeps, twice that at most: enough for a smooth rate, and few enough for every job."""


class Sample(NamedTuple):
    """The count `done` at the time `at`, in seconds."""

    at: float
    done: int


class Rate:
    """The rate of one counter, in items a second over the last `window` seconds.

    >>> rate = Rate()
    >>> rate.add(100.0, 0)
    >>> rate.per_second(100.0) is None  # one sample is no rate
    True
    >>> rate.add(110.0, 500)
    >>> rate.per_second(110.0), rate.seconds_left(110.0, total=2000)
    (50.0, 30.0)
    >>> rate.per_second(150.0)  # nothing since
    10.0
    """

    __slots__ = ("_samples", "_window")

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        self._samples: deque[Sample] = deque()

    def add(self, at: float, done: int) -> None:
        """Add a sample; a count below the last one means that counting started again."""
        samples = self._samples
        if samples and done < samples[-1].done:
            samples.clear()
        if samples:
            at = max(at, samples[-1].at)
        if len(samples) > 1 and at - samples[-2].at < self._window / SAMPLES_A_WINDOW:
            samples.pop()  # of samples close together the newest is kept
        samples.append(Sample(at, done))
        while len(samples) > 1 and samples[1].at <= at - self._window:
            samples.popleft()

    @property
    def done(self) -> int:
        """The count of the last sample, 0 before the first."""
        return self._samples[-1].done if self._samples else 0

    def per_second(self, now: float) -> float | None:
        """Give the items a second; None while the samples span no time."""
        if not self._samples:
            return None
        begin = max(self._samples[0].at, now - self._window)
        return (self.done - self._done_at(begin)) / (now - begin) if now > begin else None

    def seconds_left(self, now: float, total: int | None) -> float | None:
        """Give the seconds until `total` at this rate: 0 if it is reached, None if it is unknown."""
        if total is None:
            return None
        if self.done >= total:
            return 0.0
        rate = self.per_second(now)
        return (total - self.done) / rate if rate else None

    def _done_at(self, time: float) -> float:
        before = self._samples[0]
        for after in self._samples:
            if after.at > time:
                share = (time - before.at) / (after.at - before.at)
                return before.done + share * (after.done - before.done)
            before = after
        return before.done
