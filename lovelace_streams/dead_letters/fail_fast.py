"""Hold failed items until they may be dead-lettered; recognize a wrong deployment (law 5)."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

L = TypeVar("L")
"""A held item, which the caller gets back unchanged."""
STREAK_ITEMS_MAX = 1000
"""This many items refused in a row for one cause mean that the deployment is wrong."""
STREAK_MESSAGES_MIN = 100
"""They must come from at least this many messages: one chunk is not enough."""
HELD_BYTES_MAX = 64 * 1024 * 1024


class FailFast(Generic[L]):
    """Holds failed items until it is clear that they are not the deployment's fault (law 5).

    The items of a step wait until another item has passed that step after them, or until a poll found nothing to read.
    At most a thousand items or 64 MiB wait. The deployment is wrong when a thousand items in a row, from at least a
    hundred messages, are refused for one cause: by a destination, or by another step across two jobs or more.

    >>> fail_fast = FailFast(frozenset({"upsert"}))
    >>> cause = ("null", "", "$.id")
    >>> fail_fast.refused("a", step="decode", cause=cause, message=1, job=None, items=1, size=10)  # no fault so far
    >>> fail_fast.waiting, fail_fast.take()
    (1, [])
    >>> fail_fast.passed("decode"); fail_fast.waiting, fail_fast.take()
    (0, ['a'])
    """

    def __init__(self, destination: frozenset[str], accepted: frozenset[str] = frozenset()) -> None:
        self._destination = destination
        self._accepted = accepted
        self._held: dict[str, _HeldLetters[L]] = {}
        self._streaks: dict[str, _Streak] = {}
        self._released: list[L] = []

    @property
    def waiting(self) -> int:
        """How many letters wait."""
        return sum(len(held.letters) for held in self._held.values())

    @property
    def steps(self) -> set[str]:
        """Steps with refused items that no later item has passed."""
        return {*self._held, *self._streaks}

    def refused(
        self, letter: L, *, step: str, cause: tuple[str, ...], message: Hashable, job: str | None, items: int, size: int
    ) -> tuple[str, ...] | None:
        """Hold a letter; returns its cause, step first, if the streak of refusals is now too long.

        `cause` is (reason, code, rule); `size` is the bytes that the letter keeps in memory.
        """
        streak = self._streaks.get(step)
        if streak is None or streak.cause != cause:
            streak = self._streaks[step] = _Streak(cause)
        streak.add(message, job, items)
        held = self._held.setdefault(step, _HeldLetters())
        held.add(letter, items, size)
        if streak.is_too_long(by_destination=step in self._destination) and cause[0] not in self._accepted:
            return (step, *cause)
        if held.items > STREAK_ITEMS_MAX or held.size > HELD_BYTES_MAX:
            self._release(step, keep_streak=True)
        return None

    def passed(self, step: str) -> None:
        """End a step's streak: an item has passed it, so the items it refused before are at fault themselves."""
        self._streaks.pop(step, None)
        self._release(step, keep_streak=False)

    def release_all(self) -> None:
        """Release all letters: no item passes a step for now. Streaks continue."""
        for step in list(self._held):
            self._release(step, keep_streak=True)

    def take(self) -> list[L]:
        """Take the letters that may be sent; each is handed out once."""
        taken, self._released = self._released, []
        return taken

    def drop(self, gone: Callable[[L], bool]) -> None:
        """Drop letters for which `gone` is true: their assignments have ended."""
        for held in self._held.values():
            held.drop(gone)
        self._released = [letter for letter in self._released if not gone(letter)]

    def _release(self, step: str, *, keep_streak: bool) -> None:
        if step in self._held:
            self._released += [letter for letter, _, _ in self._held.pop(step).letters]
        if not keep_streak:
            self._streaks.pop(step, None)


class _HeldLetters(Generic[L]):
    """The letters of a step that wait, with their items and their bytes in memory."""

    def __init__(self) -> None:
        self.letters: list[tuple[L, int, int]] = []
        self.items = self.size = 0

    def add(self, letter: L, items: int, size: int) -> None:
        self.letters.append((letter, items, size))
        self.items += items
        self.size += size

    def drop(self, gone: Callable[[L], bool]) -> None:
        letters, self.letters = self.letters, []
        self.items = self.size = 0
        for letter, items, size in letters:
            if not gone(letter):
                self.add(letter, items, size)


class _Streak:
    """Refusals of a step in a row, for one cause."""

    def __init__(self, cause: tuple[str, ...]) -> None:
        self.cause = cause
        self.items = 0
        self.messages: set[Hashable] = set()
        self.jobs: set[str | None] = set()

    def add(self, message: Hashable, job: str | None, items: int) -> None:
        self.items += items
        if len(self.messages) <= STREAK_MESSAGES_MIN:
            self.messages.add(message)
        self.jobs.add(job) if len(self.jobs) < 2 else None  # noqa: PLR2004 - two jobs are the condition

    def is_too_long(self, *, by_destination: bool) -> bool:
        jobs = 1 if by_destination else 2
        return self.items >= STREAK_ITEMS_MAX and len(self.messages) >= STREAK_MESSAGES_MIN and len(self.jobs) >= jobs
