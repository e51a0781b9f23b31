"""Which dead letters may go, and when a thousand refusals in a row mean that the deployment is wrong (law 5)."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

L = TypeVar("L")
"""A held letter: whatever the caller wants back."""
STREAK_ITEMS_MAX = 1000
"""This many items refused in a row for one reason mean that the deployment is wrong."""
MESSAGES = 100
"""From at least this many messages: one chunk does not trip it."""
HELD_BYTES = 64 * 1024 * 1024


class FailFast(Generic[L]):
    """Holds dead letters back until it is clear that they are not the deployment's fault (law 5).

    Letters of a step wait until an item has passed that step after them, or the source found nothing to read for one
    poll; a thousand items or 64 MiB wait at most. `trip` names the (step, code, rule) by which a thousand in a row,
    from at least a hundred messages, were refused: by the destination, or by decode or normalize over two jobs or more.
    """

    def __init__(self, destination: frozenset[str], accepted: frozenset[str] = frozenset()) -> None:
        self._destination = destination
        self._accepted = accepted
        self._held: dict[str, _Held[L]] = {}
        self._rows: dict[str, _Streak] = {}
        self._released: list[L] = []

    @property
    def held(self) -> int:
        """Letters that wait."""
        return sum(len(held.letters) for held in self._held.values())

    @property
    def steps(self) -> set[str]:
        """Steps that refused something which is not forgiven yet."""
        return {*self._held, *self._rows}

    def refused(
        self, letter: L, *, step: str, cause: tuple[str, ...], message: Hashable, job: str | None, items: int, size: int
    ) -> tuple[str, ...] | None:
        """Hold a letter; answers its cause (step first) when the row of refusals has become too long.

        `cause` is (reason, code, rule); `size` the bytes it keeps in memory.
        """
        row = self._rows.get(step)
        if row is None or row.cause != cause:
            row = self._rows[step] = _Streak(cause)
        row.add(message, job, items)
        held = self._held.setdefault(step, _Held())
        held.add(letter, items, size)
        if row.too_long(by_destination=step in self._destination) and cause[0] not in self._accepted:
            return (step, *cause)
        if held.items > STREAK_ITEMS_MAX or held.size > HELD_BYTES:
            self._release(step, keep_row=True)
        return None

    def passed(self, step: str) -> None:
        """An item passed this step: what was refused before it is the records' own fault."""
        self._rows.pop(step, None)
        self._release(step, keep_row=False)

    def idle(self) -> None:
        """The source found nothing to read for one poll."""
        for step in list(self._held):
            self._release(step, keep_row=True)

    def take(self) -> list[L]:
        """Letters that may go now; each is handed out once."""
        taken, self._released = self._released, []
        return taken

    def drop(self, gone: Callable[[L], bool]) -> None:
        """Forget letters of assignments that have ended."""
        for held in self._held.values():
            held.drop(gone)
        self._released = [letter for letter in self._released if not gone(letter)]

    def _release(self, step: str, *, keep_row: bool) -> None:
        if step in self._held:
            self._released += [letter for letter, _, _ in self._held.pop(step).letters]
        if not keep_row:
            self._rows.pop(step, None)


class _Held(Generic[L]):
    """Letters of a step that wait, with how many items they are and what they keep in memory."""

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
    """Refusals in a row for one cause."""

    def __init__(self, cause: tuple[str, ...]) -> None:
        self.cause = cause
        self.items = 0
        self.messages: set[Hashable] = set()
        self.jobs: set[str | None] = set()

    def add(self, message: Hashable, job: str | None, items: int) -> None:
        self.items += items
        if len(self.messages) <= MESSAGES:
            self.messages.add(message)
        self.jobs.add(job) if len(self.jobs) < 2 else None  # noqa: PLR2004 - two jobs are what is asked for

    def too_long(self, *, by_destination: bool) -> bool:
        jobs = 1 if by_destination else 2
        return self.items >= STREAK_ITEMS_MAX and len(self.messages) >= MESSAGES and len(self.jobs) >= jobs
