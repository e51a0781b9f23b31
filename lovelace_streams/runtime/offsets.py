"""A set of offsets: what was covered, so that nothing counts twice (law 4)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Offsets:
    """A set of offsets, kept as disjoint, ascending, inclusive intervals that do not touch.

    >>> covered = Offsets()
    >>> covered.add(5, 9); covered.add(0, 3); list(covered)
    [(0, 3), (5, 9)]
    >>> covered.add(4, 4); list(covered), 7 in covered, covered.end_of(0)
    ([(0, 9)], True, 10)
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add `first … last`, inclusive."""
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def end_of(self, first: int) -> int:
        """Give the end (exclusive) of the interval that holds `first`; `first` itself if none holds it."""
        index = bisect_left(self._lasts, first)
        return self._lasts[index] + 1 if index < len(self._lasts) and self._firsts[index] <= first else first

    def __contains__(self, offset: int) -> bool:
        return self.end_of(offset) > offset

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self)

    def __repr__(self) -> str:
        return f"Offsets({list(self)})"
