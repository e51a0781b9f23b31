"""Call a writer in a background thread, one call at a time, under the client's own deadline.

    submit ─▶ running ─▶ done
                 └─ the deadline is over, or the drain ─▶ aborted ─▶ `DestinationFault("timeout")`

The thread may hang in a driver. Then the writer's connection is closed from the worker's thread. If that does not end
the call either, the thread is abandoned, and a new one takes its place.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


class BackgroundCall(Generic[T_co]):
    """One call of the writer that was given to the thread, and when."""

    __slots__ = ("_future", "started_at")

    def __init__(self, future: "Future[T_co]", started_at: float) -> None:
        self._future = future
        self.started_at = started_at

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
        """Give what the call returned. Raises what it raised."""
        return self._future.result()


class BackgroundThread:
    """The one thread that calls a writer."""

    def __init__(self, name: str, writer: Callable[[], Writer], context: WorkerContext) -> None:
        self._name = name
        self._writer = writer
        self._context = context
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.waited_for: BackgroundCall[object] | None = None
        """The call that a step is waiting for right now."""

    def start(self, function: Callable[[], T]) -> BackgroundCall[T]:
        """Give a call to the thread."""
        return BackgroundCall(self._executor.submit(function), time.monotonic())

    def run(self, function: Callable[[], T], meanwhile: Callable[[], None] | None = None) -> T:
        """Give a call to the thread and wait for it. Raises as `finish` does."""
        return self.finish(self.start(function), meanwhile)

    def finish(self, call: BackgroundCall[T], meanwhile: Callable[[], None] | None = None) -> T:
        """Wait for a call and keep the consumer alive; `meanwhile` is called once before.

        Raises what the call raised, and `DestinationFault("timeout")` when its deadline or the drain's is over.
        """
        self.waited_for = call
        try:
            if meanwhile is not None:
                meanwhile()
            if call.wait(KEEP_ALIVE_AFTER_SECONDS):
                return call.result()
            while not call.wait(LOOK_SECONDS):
                if call.is_overdue(self._writer().deadline) or self._context.drain_left <= 0:
                    raise self._aborted(call)
                if not self._context.keep_alive(KEEP_ALIVE_SECONDS):
                    call.wait(KEEP_ALIVE_SECONDS)
            return call.result()
        finally:
            self.waited_for = None

    def abort(self, call: BackgroundCall[object]) -> bool:
        """Close the connection that a call uses; returns whether that has ended the call."""
        self._writer().abort()
        return call.wait(ABORT_SECONDS)

    def close(self) -> None:
        """Accept no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _aborted(self, call: BackgroundCall[object]) -> DestinationFault:
        writer = self._writer()
        if self.abort(call):
            return DestinationFault("timeout", f"{writer.name}: no answer in {writer.deadline:g} s")
        self._executor.shutdown(wait=False)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return DestinationFault("timeout", f"{writer.name}: no answer, and none to shutting it")
