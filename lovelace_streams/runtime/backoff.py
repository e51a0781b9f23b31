"""How long to wait after failures in a row: one backoff for all that waits."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential with full jitter, in seconds: between half and all of `first * 2**n`, at most `longest`.

    Source of the jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("equal jitter").
    """

    def __init__(self, first: float = 0.1, longest: float = 10.0, chance: Callable[[], float] = random.random) -> None:
        self.first = first
        self.longest = longest
        self._chance = chance

    def seconds(self, failures: int) -> float:
        """Give the seconds to wait after this many failures in a row (from 1)."""
        full = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return full * (0.5 + self._chance() / 2)
