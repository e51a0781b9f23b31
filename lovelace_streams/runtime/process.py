"""What a worker touches outside of the flow: the broker's clients, its log, metrics port and signals, its exit code.

One object, so that `lovelace_streams.testing` can put a broker in memory in its place and run everything else as it is.
"""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault
from lovelace_streams.observability.logs import observe

COLLECT_AFTER = 50_000, 20, 100
"""The collector's thresholds: so many new objects until it looks for cycles, and how often it looks at older ones."""


class Outside:
    """The real thing; opens nothing until it is asked."""

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """A member of a consumer group."""
        return Consumer(config)

    def producer(self, config: dict[str, Any]) -> Producer:
        """A client that sends."""
        return Producer(config)

    def admin(self, config: dict[str, Any]) -> AdminClient:
        """A client that asks and makes."""
        return AdminClient(config)

    def begin(self, drain: Callable[..., None]) -> None:
        """A worker begins: show its log and metrics, and drain when the process is asked to end."""
        observe()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, drain)
            signal.signal(signal.SIGINT, drain)

    def started(self) -> None:
        """All that stays is there: the collector of cycles looks at none of it again, and seldom at what is new.

        A window's tens of thousands of objects end by their counts. Looking through them for cycles took 10 to 13 µs of
        the 27 to 35 that a JSON or Avro message cost from bytes to ClickHouse, in windows of 10,000.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)

    def stop(self, line: str) -> None:
        """A worker stops for a reason: its one line, exit code 78. An exception would give 1 and ninety lines."""
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
        os._exit(EXIT_DEPLOYMENT)


def show_faults_in_one_line() -> None:
    """Let a fault that keeps `python -m bytewax.run` from building a flow end it as a worker's does.

    What is raised there (invalid settings, most of all) meets no code of ours on its way out.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is None or main.name != "bytewax.run":
        return
    otherwise = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, DeploymentFault):
            Outside().stop(str(error))
        otherwise(kind, error, trace)

    sys.excepthook = show
