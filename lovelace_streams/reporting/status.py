"""Send the partitions' status to the progress service: for people to read; nothing is decided by it.

It has a thread and a connection of its own, so that it never delays a report, a drain or a revocation. A status that
the service does not accept is not repeated: the next one replaces it.
"""

import threading

import msgspec
import structlog

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.reporting.client import UNPROCESSABLE, ProgressClient
from lovelace_streams.runtime.gauges import PartitionStatus
from lovelace_streams.runtime.service import Service
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import ProgressSettings

log = structlog.get_logger(__name__)

STATUS_INTERVAL_SECONDS = 5.0
REQUEST_SECONDS = 5.0


class StatusReporter(Service):
    """Sends the partitions' status every `interval` seconds, if the worker holds any.

    A service that does not accept it (an older one) is not asked again.
    """

    def __init__(
        self, context: WorkerContext, settings: ProgressSettings, interval: float = STATUS_INTERVAL_SECONDS
    ) -> None:
        self._context = context
        self._interval = interval
        self._statuses: list[PartitionStatus] = []
        self._ended = threading.Event()
        self.thread: threading.Thread | None = None
        self.client = ProgressClient(settings, timeout=REQUEST_SECONDS)

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Pass the newest status to the thread."""
        self._statuses = self._context.partition_statuses
        if self._statuses and self.thread is None:
            self.thread = threading.Thread(target=self._run, name="status", daemon=True)
            self.thread.start()

    def close(self) -> None:
        """End the thread; if it waits for an answer it ends with the process."""
        self._ended.set()

    def _run(self) -> None:
        with self.client:
            while self._send() and not self._ended.wait(self._interval):
                pass

    def _send(self) -> bool:
        """Send the status; returns whether to continue."""
        if not (statuses := self._statuses):
            return True
        body = {"pipeline": self._context.pipeline, "reports": [], "partitions": statuses}
        try:
            answer = self.client.request("POST", "/progress", body=msgspec.json.encode(body))
        except (DestinationFault, DeploymentFault):
            return True  # reports meet the same fault, and the reporter logs it
        if answer.status == UNPROCESSABLE:
            log.info("the progress service takes no partitions", url=self.client.url)
            return False
        return True
