"""Make dead letters of failed items, message by message, and decide which may be sent.

A failed item waits for two things: until `FailFast` releases it (law 5), and until every item of its message has an
outcome (law 7). Then its letter goes to the sender.
"""

from lovelace_streams.dead_letters.fail_fast import FailFast
from lovelace_streams.dead_letters.letter import PendingDeadLetter
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import DeadLetter, Outcome
from lovelace_streams.runtime.worker import WorkerContext


class DeadLetterCollector:
    """Holds failed items until their letters may be sent; `release` is called once a window."""

    def __init__(self, context: WorkerContext, destination_steps: frozenset[str]) -> None:
        self._context = context
        self._destination_steps = destination_steps
        self._order: dict[str, int] = {}
        """Step → its place in the flow, learned from the first item that failed in it."""
        self._fail_fast: FailFast[DeadLetter] = FailFast(destination_steps, context.settings.accept_refusals)
        self._arrived: list[DeadLetter] = []
        self._collecting: dict[tuple[int, int], PendingDeadLetter] = {}
        """(Assignment, offset) → the letter of a message of which other items may still fail."""
        self._judged_assignments: frozenset[int] = frozenset()
        self._items_through = 0
        self._items_at_writer = 0
        """Items that were written, and that had come to a writer, at the last call of `release`."""

    def __bool__(self) -> bool:
        return bool(self._arrived or self._collecting)

    def take(self, letters: list[DeadLetter], order: int = 0) -> None:
        """Add items that failed in the `order`-th step of the flow.

        If two steps have one name, the place of the first counts: an item that it refuses has passed neither.
        """
        for step in {letter.step for letter in letters}:
            self._order[step] = min(order, self._order.get(step, order))
        self._arrived += letters

    def release(self, *, idle: bool) -> list[PendingDeadLetter]:
        """Take the letters that may be sent, after every step has seen the window.

        Notes a fault, and releases no held item, if the deployment looks wrong.
        """
        arrived, self._arrived = [*self._arrived, *self._context.take_dead_letters()], []
        passed = self._passed(arrived)
        for step in passed:
            self._fail_fast.passed(step)
        self._drop_ended()
        released: list[PendingDeadLetter] = []
        for letter in arrived:
            if not self._context.is_current(letter.record):
                continue
            if letter.step in passed or letter.record.origin is not None:
                # A replayed item failed before: its failure says nothing about the deployment.
                released += self._collect(letter)
            elif cause := self._hold(letter):
                self._context.note(_wrong_deployment(cause))
                return released
        draining = self._context.draining_since is not None
        if (idle or draining) and not self._context.holds_items:
            self._fail_fast.release_all()
        for letter in self._fail_fast.take():
            released += self._collect(letter)
        return released + self._completed()

    def _drop_ended(self) -> None:
        """Drop held items of assignments that have ended: the next owner reads their records again."""
        current = self._context.in_flight.current
        if self._judged_assignments != current.keys():
            self._judged_assignments = frozenset(current)
            self._fail_fast.drop(lambda letter: letter.record.assignment not in current)

    def _passed(self, arrived: list[DeadLetter]) -> set[str]:
        """Find the steps that an item has passed since the last call.

        It passed all of them if it was written, and those before the step that refused it.
        """
        totals = self._context.in_flight.totals
        items_through = totals[Outcome.WRITTEN] + totals[Outcome.SUPERSEDED]
        steps = self._fail_fast.steps | {letter.step for letter in arrived}
        passed = set(steps) if items_through > self._items_through else set()
        self._items_through = items_through
        if at_writer := self._context.items_at_writer:  # items at the writer passed the steps before it, and no other
            passed &= self._destination_steps
            passed |= steps - self._destination_steps if at_writer > self._items_at_writer else set()
            self._items_at_writer = at_writer
        last = max((self._order_of(letter.step) for letter in arrived), default=0)
        return passed | {step for step in steps if self._order_of(step) < last}

    def _order_of(self, step: str) -> float:
        """Give a step's place in the flow.

        A step whose items only failed while it was not being called is a destination's: the last.
        """
        return self._order.get(step, float("inf"))

    def _hold(self, letter: DeadLetter) -> tuple[str, ...] | None:
        record = letter.record
        return self._fail_fast.refused(
            letter,
            step=letter.step,
            cause=(letter.reason, letter.code, letter.detail),
            message=(record.assignment, record.offset),
            job=record.job,
            items=letter.count,
            size=len(record.value or b"") // max(1, record.items),
        )

    def _collect(self, failed: DeadLetter) -> list[PendingDeadLetter]:
        """Add failed items to their message's letter; returns the letter at once if all items of the message failed."""
        record = failed.record
        if record.origin is None and failed.count == record.items:  # as most letters are
            failures = dict.fromkeys(range(failed.item, failed.item + failed.count), failed.reason)
            return [PendingDeadLetter(record, failures, failed)]
        key = (record.assignment, record.offset)
        letter = self._collecting.setdefault(key, PendingDeadLetter(record, {}, failed))
        items = record.origin.items if record.origin and failed.count > 1 else None
        for item in items or range(failed.item, failed.item + failed.count):
            letter.failures[item] = failed.reason
        return []

    def _completed(self) -> list[PendingDeadLetter]:
        """Take the letters of messages whose every item has an outcome."""
        completed = []
        for key, letter in list(self._collecting.items()):
            if not self._context.is_current(letter.record):
                del self._collecting[key]
            elif letter.complete:
                del self._collecting[key]
                completed.append(letter)
        return completed


def _wrong_deployment(cause: tuple[str, ...]) -> DeploymentFault:
    step, reason, code, rule = cause
    named = ", ".join(filter(None, (reason, code, rule)))
    return DeploymentFault(
        f"a thousand items in a row were refused by {step!r} for one cause ({named}): that looks like a wrong "
        f"deployment, so none of those still held was dead-lettered. Mend it and start again; if they are to be "
        f"dead-lettered, start with ACCEPT_REFUSALS={reason}",
        code,
    )
