"""Call a writer in a background thread, one call at a time, under the client's own deadline.

    submit ─▶ waiting ─▶ running ─▶ done
                 │           └─ the deadline is over, or the drain ─▶ aborted ─▶ `DestinationFault("timeout")`
                 └─ a call before it failed, and the caller has not heard of it yet ─▶ `NotTried`

Calls end in the order given, so a call is not tried behind one that failed: rows of one key would be written in another
order. The caller tries the one that failed again, and then those behind it.

The thread may hang in a driver. Then the writer's connection is closed from the worker's thread. If that does not end
the call either, the thread is abandoned, and a new one takes its place.
"""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from lovelace_streams.errors import DestinationFault
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.writers import Writer

T = TypeVar("T")
"""What a call of the writer returns."""
T_co = TypeVar("T_co", covariant=True)
"""The same, where it is only returned."""

KEEP_ALIVE_AFTER_SECONDS = 0.5
"""How long a call may take before the consumer is kept alive meanwhile: most calls end within milliseconds."""
ABORT_SECONDS = 1.0
"""How long a call may take to end after its connection was closed."""
LOOK_SECONDS, KEEP_ALIVE_SECONDS = 0.01, 0.1
"""How often a long call is looked at, and for how long the consumer is kept alive between two looks."""


class NotTried(Exception):  # noqa: N818 - no error: nothing was done
    """A call was not tried, because one before it had failed."""


class BackgroundCall(Generic[T_co]):
    """One call of the writer that was given to the thread."""

    __slots__ = ("_future", "started_at")

    def __init__(self) -> None:
        self._future: Future[T_co]
        self.started_at = float("inf")
        """When it began to run, by the monotonic clock."""

    def begin(self, executor: ThreadPoolExecutor, function: Callable[[], T_co]) -> None:
        """Give it to the thread."""
        self._future = executor.submit(function)

    def is_done(self) -> bool:
        """Whether the call has ended."""
        return self._future.done()

    def is_overdue(self, deadline: float) -> bool:
        """Whether it has been running for longer than this many seconds."""
        return time.monotonic() > self.started_at + deadline

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; returns whether the call has ended."""
        return not wait([self._future], seconds).not_done

    def result(self) -> T_co:
        """Give what the call returned. Raises what it raised, or `NotTried`."""
        try:
            return self._future.result()
        except CancelledError:
            raise NotTried from None


class BackgroundThread:
    """The one thread that calls a writer."""

    def __init__(self, name: str, writer: Callable[[], Writer], context: WorkerContext) -> None:
        self._name = name
        self._writer = writer
        self._context = context
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._faults = _Faults()
        self.waited_for: BackgroundCall[object] | None = None
        """The call that a step is waiting for right now."""

    def start(self, function: Callable[[], T]) -> BackgroundCall[T]:
        """Give a call to the thread, which does not try it if one before it fails."""
        return self._start(function, self._faults.heard)

    def run(self, function: Callable[[], T], meanwhile: Callable[[], None] | None = None) -> T:
        """Give a call to the thread and wait for it. Raises as `finish` does."""
        return self.finish(self._start(function, None), meanwhile)

    def _start(self, function: Callable[[], T], heard: int | None) -> BackgroundCall[T]:
        call: BackgroundCall[T] = BackgroundCall()
        faults = self._faults

        def tried() -> T:
            if heard is not None and faults.before(heard):
                raise NotTried
            call.started_at = time.monotonic()
            try:
                return function()
            except BaseException:
                faults.add()
                raise

        call.begin(self._executor, tried)
        return call

    def finish(self, call: BackgroundCall[T], meanwhile: Callable[[], None] | None = None) -> T:
        """Wait for a call and keep the consumer alive; `meanwhile` is called once before.

        Raises what the call raised, `DestinationFault("timeout")` when its deadline or the drain's is over, and
        `NotTried`.
        """
        self.waited_for = call
        try:
            return self._finished(call, meanwhile)
        except NotTried:
            raise
        except BaseException:
            self._faults.hear()
            raise
        finally:
            self.waited_for = None

    def _finished(self, call: BackgroundCall[T], meanwhile: Callable[[], None] | None) -> T:
        if meanwhile is not None:
            meanwhile()
        if call.wait(KEEP_ALIVE_AFTER_SECONDS):
            return call.result()
        while not call.wait(LOOK_SECONDS):
            if call.is_overdue(self._writer().deadline) or self._context.drain_left <= 0:
                return self._given_up(call)
            if not self._context.keep_alive(KEEP_ALIVE_SECONDS):
                call.wait(KEEP_ALIVE_SECONDS)
        return call.result()

    def abort(self, call: BackgroundCall[object]) -> bool:
        """Close the connection that a call uses; returns whether that has ended the call."""
        self._writer().abort()
        return call.wait(ABORT_SECONDS)

    def close(self) -> None:
        """Accept no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _given_up(self, call: BackgroundCall[T]) -> T:
        """Close the connection under a call that takes too long; unless it has just ended, raise `DestinationFault`."""
        self._faults.stopped = True  # before anything else: the call behind it must not be tried
        if call.is_done():
            self._faults.stopped = False
            return call.result()
        writer = self._writer()
        has_ended = self.abort(call)
        self._faults.add()
        if has_ended:
            raise DestinationFault("timeout", f"{writer.name}: no answer in {writer.deadline:g} s")
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        self._faults = _Faults()
        raise DestinationFault("timeout", f"{writer.name}: no answer, and none to shutting it")


class _Faults:
    """Which calls of a thread failed: how many did, and of how many the caller has heard."""

    def __init__(self) -> None:
        self._count: list[None] = []  # two threads append to it
        self.heard = 0
        self.stopped = False
        """Whether the call that runs is being given up."""

    def add(self) -> None:
        """Count one more."""
        self._count.append(None)

    def hear(self) -> None:
        """Note that the caller has heard of all of them."""
        self.heard, self.stopped = len(self._count), False

    def before(self, heard: int) -> bool:
        """Whether one came before a call that was given when the caller had heard of so many."""
        return self.stopped or len(self._count) != heard
