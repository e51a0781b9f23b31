"""`dataflows.discord` with a clock at each step: `python -m bytewax.run benchmarks.stages_flow`.

The flow is the real one; each function that the engine calls with a list is timed, step by step, in the engine's
thread. What each thread used goes beside it. Both are written to the file that `STAGES_FILE` names when it ends.
"""

import atexit
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.members_flow import flow as build
from lovelace_streams import KafkaSource, Settings

READ = "kafka"


class Clocks:
    """Seconds and CPU seconds by step, CPU seconds by thread."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {}
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.engine = 0

    def timed(self, step: str, function: Callable[..., Iterable[Any]]) -> Callable[..., list[Any]]:
        """The same function, timed to the end of what it answers."""
        spent = self.steps.setdefault(step, [0.0, 0.0])

        def call(*given: Any) -> list[Any]:
            began, cpu = time.perf_counter(), time.thread_time()
            made = list(function(*given))
            if step != READ or made:  # waiting for nothing is no reading
                spent[0] += time.perf_counter() - began
                spent[1] += time.thread_time() - cpu
            elif self.before:
                self.after = self.threads()
            if step == READ and made and not self.before:
                self.engine = threading.get_native_id()
                self.before = self.threads()
                for each in self.steps.values():
                    each[:] = [0.0, 0.0]
            return made

        return call

    def threads(self) -> dict[str, float]:
        """CPU seconds so far of each kind of thread: the engine's, those that have a name, librdkafka's."""
        names = {thread.native_id: thread.name.partition("_")[0] for thread in threading.enumerate()}
        used: dict[str, float] = {}
        for thread in psutil.Process().threads():
            name = "engine" if thread.id == self.engine else names.get(thread.id) or _named_by_system(thread.id)
            used[name] = used.get(name, 0.0) + thread.user_time + thread.system_time
        return used

    def write(self) -> None:
        """What was spent between the first window and the last moment with nothing to read."""
        threads = {name: seconds - self.before.get(name, 0.0) for name, seconds in self.after.items()}
        Path(os.environ["STAGES_FILE"]).write_text(json.dumps({"steps": self.steps, "threads": threads}))


def _named_by_system(thread: int) -> str:
    try:
        name = Path(f"/proc/self/task/{thread}/comm").read_text().strip()
    except OSError:
        return "other"
    return "librdkafka" if name.startswith("rdk:") else "other"


def _each(steps: Iterable[Any]) -> Iterator[Any]:
    for step in steps:
        yield step
        yield from _each(getattr(step, "substeps", ()))


def flow() -> Any:
    """The flow, timed."""
    clocks = Clocks()
    atexit.register(clocks.write)
    built = build(Settings())
    for step in _each(built.substeps):
        if hasattr(step, "mapper"):
            object.__setattr__(step, "mapper", clocks.timed(step.step_id.split(".")[1], step.mapper))
    source = next(s.source for s in _each(built.substeps) if isinstance(getattr(s, "source", None), KafkaSource))
    source.next_window = clocks.timed(READ, source.next_window)
    return built
