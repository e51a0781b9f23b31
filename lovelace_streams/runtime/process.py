"""The worker's process: its log, metrics port and signals, the collector of cycles, its exit code.

One object, so that `lovelace_streams.testing` can put one in its place that leaves the process alone.
"""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault
from lovelace_streams.observability.logs import observe

COLLECT_AFTER = 50_000, 20, 100
"""The collector's thresholds: so many new objects until it looks for cycles, and how often it looks at older ones."""


class WorkerProcess:
    """The process of a worker; opens nothing before `begin`."""

    def begin(self, drain: Callable[..., None]) -> None:
        """Show the log and the metrics, and drain when the process is asked to end."""
        observe()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, drain)
            signal.signal(signal.SIGINT, drain)

    def started(self) -> None:
        """Keep the collector of cycles off everything made so far, and have it look seldom at what is new.

        A window's tens of thousands of objects end by their counts. Looking through them for cycles took 10 to 13 µs of
        the 27 to 35 that a JSON or Avro message cost from bytes to ClickHouse, in windows of 10,000.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)

    def stop(self, line: str) -> None:
        """Print the one line and exit with 78. An exception would give ninety lines and exit code 1."""
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
        os._exit(EXIT_DEPLOYMENT)


def show_faults_in_one_line() -> None:
    """Have a fault that keeps `python -m bytewax.run` from building a flow end it as a worker's does.

    What is raised there (invalid settings, most of all) meets no code of ours on its way out.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is None or main.name != "bytewax.run":
        return
    otherwise = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, DeploymentFault):
            WorkerProcess().stop(str(error))
        otherwise(kind, error, trace)

    sys.excepthook = show
