"""Isolation: find the items that a destination refuses, while every other item is written, in order, durably.

A run of items is attempted whole. If it is refused, the writer may name violations: items that would be refused alone
as well. What is left, or what cannot be named, is tried one by one in subtransactions, if the destination has them.
Else the run is cut in two halves that are attempted one after the other, each durable before the next begins. So a
single item is judged with everything before it written, as the writer that writes one by one judges it (law 8). Nothing
here knows a driver, an engine or SQL; faults (exceptions) pass through untouched.

By halving, one bad item costs about log2(n) refused and as many accepted attempts: if the first half is accepted, the
second one holds the culprit and is cut without an attempt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from lovelace_streams.writers import Refusal

T = TypeVar("T")
"""An item that is written: a row, or several, with what their writer needs."""
R = TypeVar("R")
"""The outcome of an accepted item."""


class Refused(msgspec.Struct, frozen=True):
    """Why an attempt was refused as a whole; nothing of it was written.

    `again`: the verdict depends on other rows, so it is believed of a single item only after one more try.
    `suspect`: by its code it may be the deployment's fault; the writer judges when all items have been tried.
    """

    refusal: Refusal
    again: bool = False
    suspect: bool = False


Attempt = Callable[[Sequence[T]], Sequence[R] | Refused]
"""Writes all items durably and returns the outcome of each, or writes none of them."""
FindViolations = Callable[[Sequence[T], Refused], Mapping[int, Refusal]]
"""Names items (by their index) that would be refused alone as well, whatever is written before them; may name none."""
TryInSubtransactions = Callable[[Sequence[T]], Sequence[R | Refused] | None]
"""Writes items durably, each as if by itself, one after the other; returns the outcomes of the first items, at least of
one. None if it can't."""


def isolate(
    items: Sequence[T],
    attempt: Attempt[T, R],
    find_violations: FindViolations[T] | None = None,
    searches_max: int = 8,
    refused: Refused | None = None,
    try_in_subtransactions: TryInSubtransactions[T, R] | None = None,
    call_items: int = 512,
) -> list[R | Refused]:
    """Write `items` in order; return one result an item.

    `refused` is the outcome of an attempt to write all of them, if there was one; of a single item it is no verdict.
    `find_violations` is called at most `searches_max` times: each call may name one rule's items.
    `try_in_subtransactions` gets at most `call_items` items a call. Without it refused runs are cut in halves.
    """
    return _Isolation(items, attempt, find_violations, searches_max, try_in_subtransactions, call_items).run(refused)


class _Isolation(Generic[T, R]):
    def __init__(
        self,
        items: Sequence[T],
        attempt: Attempt[T, R],
        find_violations: FindViolations[T] | None,
        searches_max: int,
        try_in_subtransactions: TryInSubtransactions[T, R] | None,
        call_items: int,
    ) -> None:
        self.items = items
        self.attempt = attempt
        self.find_violations = find_violations
        self.searches_left = searches_max
        self.try_in_subtransactions = try_in_subtransactions
        self.call_items = call_items
        self.results: dict[int, R | Refused] = {}

    def run(self, refused: Refused | None) -> list[R | Refused]:
        everything = list(range(len(self.items)))
        if refused is not None and len(everything) > 1:
            self._divide(everything, refused)
        elif everything:
            self._write(everything)
        return [self.results[index] for index in range(len(self.items))]

    def _write(self, run: list[int]) -> bool:
        """Write a run, divided if need be; return whether it was accepted whole."""
        outcome = self._try(run)
        if not isinstance(outcome, Refused):
            return True
        if len(run) == 1:
            self._judge(run, outcome)
            return False
        self._divide(run, outcome)
        return False

    def _divide(self, run: list[int], refused: Refused) -> None:
        """Write a run that was refused: without its violations, else one by one, else in halves."""
        rest = self._without_violations(run, refused)
        if len(rest) < len(run):
            if rest:
                self._write(rest)
        elif rest := self._left_by_subtransactions(run):
            self._halve(rest)

    def _without_violations(self, run: list[int], refused: Refused) -> list[int]:
        if self.find_violations is None or self.searches_left <= 0:
            return run
        self.searches_left -= 1
        violations = self.find_violations([self.items[index] for index in run], refused)
        for n, refusal in violations.items():
            self.results[run[n]] = Refused(refusal)
        return [index for n, index in enumerate(run) if n not in violations]

    def _left_by_subtransactions(self, run: list[int]) -> list[int]:
        """Try a run in subtransactions; return the items that these could not try."""
        at, length = 0, self.call_items
        while self.try_in_subtransactions is not None and at < len(run):
            outcomes = self.try_in_subtransactions([self.items[index] for index in run[at : at + length]])
            if outcomes is None:
                break
            self.results.update(zip(run[at:], outcomes, strict=False))
            at += len(outcomes)
            done = len(outcomes)  # items that the next call does not come to would be sent in vain
            length = min(self.call_items, 2 * done if done == length else done + done // 4)
        return run[at:]

    def _halve(self, run: list[int]) -> None:
        middle = len(run) // 2
        accepted = self._write(run[:middle])
        last = run[middle:]
        if accepted and len(last) > 1:
            self._halve(last)  # the culprit is in it
        else:
            self._write(last)

    def _judge(self, run: list[int], refused: Refused) -> None:
        again = self._try(run) if refused.again else refused
        if isinstance(again, Refused):
            self.results[run[0]] = again

    def _try(self, run: list[int]) -> Sequence[R] | Refused:
        outcome = self.attempt([self.items[index] for index in run])
        if not isinstance(outcome, Refused):
            self.results.update(zip(run, outcome, strict=True))
        return outcome
