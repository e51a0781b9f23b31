"""Isolation: find the rows that a destination refuses, while every other row is written, in order, for good.

A run of rows is attempted whole. If it is refused, a *sieve* may name the guilty ones at once; what is left, or what no
sieve can tell, is *swept*: the destination itself writes it one by one, where it can. Else it is cut in two halves that
are attempted one after the other, each durable before the next begins. So a single row is judged with everything before
it written, which is how the writer that writes one by one judges it (law 8). Nothing here knows a driver, an engine or
SQL; faults (exceptions) pass through untouched.

One bad row costs about log2(n) refused and as many accepted attempts: if the first half is accepted, the second one
holds the culprit and is cut without being tried.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from lovelace_streams.writers import Refusal

T = TypeVar("T")
"""What is written: a row with whatever its writer needs."""
R = TypeVar("R")
"""What an accepted item came to."""


class Refused(msgspec.Struct, frozen=True):
    """Why an attempt was refused as a whole; nothing of it was written.

    `again`: the verdict depends on other rows, so of a single row it is believed only after one more try.
    `suspect`: by its code it may be the deployment's fault; whoever asked judges when all rows have been tried.
    """

    refusal: Refusal
    again: bool = False
    suspect: bool = False


Attempt = Callable[[Sequence[T]], Sequence[R] | Refused]
"""Writes all items durably and says what became of each, or writes none of them."""
Sieve = Callable[[Sequence[T], Refused], Mapping[int, Refusal]]
"""Names items (by their index) that would be refused alone as well, whatever is written before them; may name none."""
Sweep = Callable[[Sequence[T]], Sequence[R | Refused] | None]
"""Writes items durably as if one after the other, each by itself, and says what became of each; of the first at least,
and of as many as it came to. None where it can't."""


def isolate(
    items: Sequence[T],
    attempt: Attempt[T, R],
    sieve: Sieve[T] | None = None,
    sieves: int = 8,
    refused: Refused | None = None,
    sweep: Sweep[T, R] | None = None,
    swept: int = 512,
) -> list[R | Refused]:
    """Write `items` in order; one result an item.

    `refused` is what attempting all of them came to, where that was done: of a single item it is no verdict.
    `sweep` takes at most `swept` items at a time; runs that were refused are swept instead of cut in halves.
    `sieves` bounds how often a sieve is asked: each asking may take one rule's rows, halving takes what is left.
    """
    return _Isolation(items, attempt, sieve, sieves, sweep, swept).run(refused)


class _Isolation(Generic[T, R]):
    def __init__(
        self,
        items: Sequence[T],
        attempt: Attempt[T, R],
        sieve: Sieve[T] | None,
        sieves: int,
        sweep: Sweep[T, R] | None,
        swept: int,
    ) -> None:
        self.sweep = sweep
        self.swept = swept
        self.items = items
        self.attempt = attempt
        self.sieve = sieve
        self.sieves = sieves
        self.results: dict[int, R | Refused] = {}

    def run(self, refused: Refused | None) -> list[R | Refused]:
        everything = list(range(len(self.items)))
        if refused is not None and len(everything) > 1:
            self._part(everything, refused)
        elif everything:
            self._write(everything)
        return [self.results[index] for index in range(len(self.items))]

    def _write(self, run: list[int]) -> bool:
        """Whether the whole run was accepted at once."""
        outcome = self._try(run)
        if not isinstance(outcome, Refused):
            return True
        if len(run) == 1:
            self._judge(run, outcome)
            return False
        self._part(run, outcome)
        return False

    def _part(self, run: list[int], outcome: Refused) -> None:
        """A run that was refused: without those that are named, else one by one, else in halves."""
        rest = self._sift(run, outcome)
        if len(rest) < len(run):
            if rest:
                self._write(rest)
        elif rest := self._left_by_sweeping(run):
            self._halve(rest)

    def _left_by_sweeping(self, run: list[int]) -> list[int]:
        """What sweeping did not come to, because it can't."""
        at, length = 0, self.swept
        while self.sweep is not None and at < len(run):
            outcomes = self.sweep([self.items[index] for index in run[at : at + length]])
            if outcomes is None:
                break
            self.results.update(zip(run[at:], outcomes, strict=False))
            at += len(outcomes)
            done = len(outcomes)  # what it will not come to is sent in vain
            length = min(self.swept, 2 * done if done == length else done + done // 4)
        return run[at:]

    def _halve(self, run: list[int]) -> None:
        middle = len(run) // 2
        accepted = self._write(run[:middle])
        last = run[middle:]
        if accepted and len(last) > 1:
            self._halve(last)  # the culprit is in it
        else:
            self._write(last)

    def _judge(self, run: list[int], outcome: Refused) -> None:
        again = self._try(run) if outcome.again else outcome
        if isinstance(again, Refused):
            self.results[run[0]] = again

    def _try(self, run: list[int]) -> Sequence[R] | Refused:
        outcome = self.attempt([self.items[index] for index in run])
        if not isinstance(outcome, Refused):
            self.results.update(zip(run, outcome, strict=True))
        return outcome

    def _sift(self, run: list[int], outcome: Refused) -> list[int]:
        """The items that the sieve does not name."""
        if self.sieve is None or self.sieves <= 0:
            return run
        self.sieves -= 1
        named = self.sieve([self.items[index] for index in run], outcome)
        for place, refusal in named.items():
            self.results[run[place]] = Refused(refusal)
        return [index for place, index in enumerate(run) if place not in named]
