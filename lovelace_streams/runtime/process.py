"""The worker's process: its log, metrics port, signals, garbage collector and exit code.

All of it is one object, so that `lovelace_streams.testing` can replace it by one that leaves the process alone.
"""

import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault, with_flow
from lovelace_streams.observability.logs import observe
from lovelace_streams.runtime.start import is_worker

COLLECT_AFTER = 50_000, 20, 100
"""The garbage collector's thresholds: new objects until it looks for cycles, and how often it looks at older ones."""


class WorkerProcess:
    """The process of a worker; it opens nothing before `begin`."""

    def begin(self, drain: Callable[..., None]) -> None:
        """Start the log and the metrics server, and drain on SIGTERM and SIGINT."""
        observe()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, drain)
            signal.signal(signal.SIGINT, drain)

    def started(self) -> None:
        """Exempt every object made so far from garbage collection, and collect new ones less often.

        A window's tens of thousands of objects are freed by their reference counts. Looking through them for cycles
        took 10 to 13 µs of the 27 to 35 that a JSON or Avro message cost from bytes to ClickHouse, in windows of
        10,000.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)

    def stop(self, line: str) -> None:
        """Print one line and exit with code 78. An exception would print ninety lines and exit with code 1."""
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.write(f"{with_flow(line, flow_of_command(sys.argv))}\n")
        sys.stderr.flush()
        os._exit(EXIT_DEPLOYMENT)


def flow_of_command(argv: Sequence[str]) -> str | None:
    """Give the flow that `python -m bytewax.run` runs, as our commands name it; None for another program.

    >>> flow_of_command(["/…/bytewax/run.py", "dataflows.orders"])
    'orders'
    >>> flow_of_command(["/…/bytewax/run.py", "shop.flows:flow"])
    'shop.flows'
    >>> flow_of_command(["/usr/bin/pytest", "dataflows.orders"])
    """
    if len(argv) < 2 or not argv[0].replace("\\", "/").endswith("bytewax/run.py"):  # noqa: PLR2004 - program, flow
        return None
    module = argv[1].partition(":")[0].removesuffix(".py").replace("/", ".")
    return module.removeprefix("dataflows.") if re.fullmatch(r"\w+(\.\w+)*", module) else None


def show_faults_in_one_line() -> None:
    """Print a fault raised while `python -m bytewax.run` builds a flow in one line, and exit with code 78.

    Such a fault (invalid settings, for example) passes no code of this library on its way out of the process.
    """
    if not is_worker():
        return
    otherwise = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, DeploymentFault):
            WorkerProcess().stop(str(error))
        otherwise(kind, error, trace)

    sys.excepthook = show
