"""Which dead letters may go, and when a thousand refusals in a row mean that the deployment is wrong (law 5)."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

L = TypeVar("L")
"""A held letter: the caller gets it back as it is."""
STREAK_ITEMS_MAX = 1000
"""So many items refused in a row for one cause mean that the deployment is wrong."""
STREAK_MESSAGES_MIN = 100
"""From at least so many messages: one chunk is not enough."""
HELD_BYTES_MAX = 64 * 1024 * 1024


class FailFast(Generic[L]):
    """Holds dead letters back until it is clear that they are not the deployment's fault (law 5).

    Letters of a step wait until an item has passed that step after them, or until a poll found nothing to read. At most
    a thousand items or 64 MiB wait. The deployment is wrong when a thousand items in a row, from at least a hundred
    messages, are refused for one cause: by a destination, or by another step across two jobs or more.
    """

    def __init__(self, destination: frozenset[str], accepted: frozenset[str] = frozenset()) -> None:
        self._destination = destination
        self._accepted = accepted
        self._held: dict[str, _HeldLetters[L]] = {}
        self._streaks: dict[str, _Streak] = {}
        self._released: list[L] = []

    @property
    def held(self) -> int:
        """How many letters wait."""
        return sum(len(held.letters) for held in self._held.values())

    @property
    def steps(self) -> set[str]:
        """Steps that refused something which is not forgiven yet."""
        return {*self._held, *self._streaks}

    def refused(
        self, letter: L, *, step: str, cause: tuple[str, ...], message: Hashable, job: str | None, items: int, size: int
    ) -> tuple[str, ...] | None:
        """Hold a letter; answers its cause (step first) when the streak of refusals has become too long.

        `cause` is (reason, code, rule); `size` the bytes it keeps in memory.
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
        """Forgive a step: an item has passed it, so what it refused before is the records' own fault."""
        self._streaks.pop(step, None)
        self._release(step, keep_streak=False)

    def idle(self) -> None:
        """Release all letters: a poll found nothing to read. Streaks go on."""
        for step in list(self._held):
            self._release(step, keep_streak=True)

    def take(self) -> list[L]:
        """Take the letters that may be sent; each is handed out once."""
        taken, self._released = self._released, []
        return taken

    def drop(self, gone: Callable[[L], bool]) -> None:
        """Forget letters of assignments that have ended."""
        for held in self._held.values():
            held.drop(gone)
        self._released = [letter for letter in self._released if not gone(letter)]

    def _release(self, step: str, *, keep_streak: bool) -> None:
        if step in self._held:
            self._released += [letter for letter, _, _ in self._held.pop(step).letters]
        if not keep_streak:
            self._streaks.pop(step, None)


class _HeldLetters(Generic[L]):
    """Letters of a step that wait, with their items and their bytes in memory."""

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
        self.jobs.add(job) if len(self.jobs) < 2 else None  # noqa: PLR2004 - two jobs are what is asked for

    def is_too_long(self, *, by_destination: bool) -> bool:
        jobs = 1 if by_destination else 2
        return self.items >= STREAK_ITEMS_MAX and len(self.messages) >= STREAK_MESSAGES_MIN and len(self.jobs) >= jobs
