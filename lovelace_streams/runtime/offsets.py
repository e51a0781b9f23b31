"""A set of offsets: what was covered, so that nothing counts twice (law 4)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Offsets:
    """A set of offsets, kept as disjoint, ascending, inclusive intervals that do not touch.

    >>> covered = Offsets([(5, 9)])
    >>> covered.add(0, 3), covered.add(2, 4), list(covered)
    (4, 1, [(0, 9)])
    >>> 7 in covered, covered.touches(9, 12), covered.end_of(0)
    (True, True, 10)

    It has no length: `list(offsets)` would reserve room for as many intervals as there are offsets.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int) -> int:
        """Add `first … last`, inclusive; returns how many of these offsets were new."""
        firsts, lasts = self._firsts, self._lasts
        low = bisect_left(lasts, first - 1)
        high = bisect_right(firsts, last + 1)
        if low == high:
            firsts.insert(low, first)
            lasts.insert(low, last)
            return last - first + 1
        known = lasts[low] - firsts[low] + 1
        if high - low > 1:  # rare: in nearly every call of a worker one interval grows
            known += sum(lasts[low + 1 : high]) - sum(firsts[low + 1 : high]) + high - low - 1
            lasts[low] = lasts[high - 1]
            del firsts[low + 1 : high], lasts[low + 1 : high]
        firsts[low] = first = min(first, firsts[low])
        lasts[low] = last = max(last, lasts[low])
        return last - first + 1 - known

    def touches(self, first: int, last: int) -> bool:
        """Whether one of `first … last`, inclusive, is in the set."""
        index = bisect_left(self._lasts, first)
        return index < len(self._lasts) and self._firsts[index] <= last

    def end_of(self, first: int) -> int:
        """Give the end (exclusive) of the interval that holds `first`; `first` itself if none holds it."""
        index = bisect_left(self._lasts, first)
        return self._lasts[index] + 1 if index < len(self._lasts) and self._firsts[index] <= first else first

    def __contains__(self, offset: int) -> bool:
        return self.end_of(offset) > offset

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __repr__(self) -> str:
        return f"Offsets({list(self)})"
