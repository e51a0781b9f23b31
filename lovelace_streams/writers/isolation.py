"""Isolation: find the rows that a destination refuses, while every other row is written durably and in order.

1. All items are attempted as a whole.
2. If they are refused, `find_violations` may name items that would be refused on their own. The others are attempted.
3. If it names none, `write_singly` lets the destination write item by item, as far as it can.
4. Items that are left are cut in halves. The first half is durable before the second one is attempted.

Items that are too many for one attempt (`Refused.limit`) are no violations: they are cut in halves at once, and each
half is attempted as a whole.

So a single item is judged with all items before it written, as by a writer that writes one by one (law 8). One bad item
of n costs about log2(n) refused attempts and as many accepted ones: if the first half is accepted, the bad item is in
the second one, which is cut without an attempt. Nothing here knows a driver, an engine or SQL; faults (exceptions) pass
through untouched.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from lovelace_streams.writers import Refusal

T = TypeVar("T")
"""An item to write: a row, or the rows of an item, with what its writer needs."""
R = TypeVar("R")
"""The outcome of an accepted item."""


class Refused(msgspec.Struct, frozen=True):
    """Why an attempt was refused as a whole; as far as the destination says, nothing of it was written.

    `again`: the verdict depends on other rows, so it is believed of a single item only after one more attempt.
    `suspect`: its code may mean a fault of the deployment; the caller judges when all items have been tried.
    `limit`: it speaks of the attempt's size, so fewer items may pass. Of a single item it is the verdict, unless the
    attempt raises a fault instead. `sent`: the destination was given the items, so they may be written all the same.
    """

    refusal: Refusal
    again: bool = False
    suspect: bool = False
    limit: bool = False
    sent: bool = False


Attempt = Callable[[Sequence[T]], Sequence[R] | Refused]
"""Writes all items durably and returns the outcome of each, or writes none of them."""
FindViolations = Callable[[Sequence[T], Refused], Mapping[int, Refusal]]
"""Names items, by index, that would be refused on their own whatever is written before them; may name none."""
WriteSingly = Callable[[Sequence[T]], Sequence[R | Refused]]
"""Writes items durably as if one after the other, and returns the outcomes of the first ones, as far as it came. It
returns none if it can't write these items so: then it wrote nothing."""

VIOLATION_SEARCHES_MAX = 8
SINGLE_ITEMS_MAX = 512


def isolate_refused(
    items: Sequence[T],
    attempt: Attempt[T, R],
    find_violations: FindViolations[T] | None = None,
    *,
    write_singly: WriteSingly[T, R] | None = None,
    refused: Refused | None = None,
    searches_max: int = VIOLATION_SEARCHES_MAX,
    single_items_max: int = SINGLE_ITEMS_MAX,
) -> list[R | Refused]:
    """Write `items` in order; returns one outcome an item.

    `refused` is the outcome of attempting all of them, if the caller did that: of a single item it is no verdict, and
    the item is attempted. `find_violations` is called at most `searches_max` times: each call may find the rows of one
    rule, and halving finds the others. `write_singly` is given at most `single_items_max` items at a time.
    """
    return _Isolation(items, attempt, find_violations, write_singly, searches_max, single_items_max).run(refused)


class _Isolation(Generic[T, R]):
    """One call; `indexes` are those of the items that are still to be written."""

    def __init__(
        self,
        items: Sequence[T],
        attempt: Attempt[T, R],
        find_violations: FindViolations[T] | None,
        write_singly: WriteSingly[T, R] | None,
        searches_max: int,
        single_items_max: int,
    ) -> None:
        self.items = items
        self.attempt = attempt
        self.find_violations = find_violations
        self.write_singly = write_singly
        self.searches_left = searches_max
        self.single_items_max = single_items_max
        self.outcomes: dict[int, R | Refused] = {}

    def run(self, refused: Refused | None) -> list[R | Refused]:
        everything = list(range(len(self.items)))
        if refused is not None and len(everything) > 1:
            self._divide(everything, refused)
        elif everything:
            self._write(everything)
        return [self.outcomes[index] for index in range(len(self.items))]

    def _write(self, indexes: list[int]) -> bool:
        """Write items and isolate those that are refused; returns whether all were accepted at once."""
        outcome = self._try_to_write(indexes)
        if not isinstance(outcome, Refused):
            return True
        if len(indexes) == 1:
            self._judge(indexes, outcome)
        else:
            self._divide(indexes, outcome)
        return False

    def _divide(self, indexes: list[int], outcome: Refused) -> None:
        """Write items that were refused as a whole: without those that are named, else singly, else in halves."""
        if outcome.limit:
            self._halve(indexes, limit=True)
            return
        unnamed = self._without_violations(indexes, outcome)
        if len(unnamed) < len(indexes):
            if unnamed:
                self._write(unnamed)
        elif left := self._left_by_writing_singly(indexes):
            self._halve(left)

    def _without_violations(self, indexes: list[int], outcome: Refused) -> list[int]:
        """Return the items that are not named as violations; those that are get their outcome."""
        if self.find_violations is None or self.searches_left <= 0:
            return indexes
        self.searches_left -= 1
        named = self.find_violations([self.items[index] for index in indexes], outcome)
        for place, refusal in named.items():
            self.outcomes[indexes[place]] = Refused(refusal)
        return [index for place, index in enumerate(indexes) if place not in named]

    def _left_by_writing_singly(self, indexes: list[int]) -> list[int]:
        """Write items singly, as far as the destination can; returns the others."""
        at, length = 0, self.single_items_max
        while self.write_singly is not None and at < len(indexes):
            outcomes = self.write_singly([self.items[index] for index in indexes[at : at + length]])
            if not outcomes:
                break
            self.outcomes.update(zip(indexes[at:], outcomes, strict=False))
            at += len(outcomes)
            # items past those that it came to were sent for nothing, so the next call gets hardly more than it managed
            done = len(outcomes)
            length = min(self.single_items_max, 2 * done if done == length else done + done // 4)
        return indexes[at:]

    def _halve(self, indexes: list[int], *, limit: bool = False) -> None:
        middle = len(indexes) // 2
        accepted = self._write(indexes[:middle])
        second = indexes[middle:]
        if accepted and len(second) > 1 and not limit:
            self._halve(second)  # a refused item is in it: as a whole it would be refused
        else:
            self._write(second)

    def _judge(self, single: list[int], outcome: Refused) -> None:
        """Give a single item its refusal, after one more attempt if the verdict depends on other rows."""
        final = self._try_to_write(single) if outcome.again else outcome
        if isinstance(final, Refused):
            self.outcomes[single[0]] = final

    def _try_to_write(self, indexes: list[int]) -> Sequence[R] | Refused:
        outcome = self.attempt([self.items[index] for index in indexes])
        if not isinstance(outcome, Refused):
            self.outcomes.update(zip(indexes, outcome, strict=True))
        return outcome
