"""What a worker tells the progress service of where it stands: for people to look at, nothing is decided by it.

A thread and a connection of its own, so that it never holds up a report, a drain or a revocation. What is not accepted
is not repeated: the next one says more.
"""

import threading

import httpx
import msgspec
import structlog

from lovelace_streams.runtime.gauges import PartitionStatus
from lovelace_streams.settings import ProgressSettings
from lovelace_streams.sources.kafka import KafkaSource

log = structlog.get_logger(__name__)

TELL_SECONDS = 5.0
DEADLINE = 5.0


class StatusReporter:
    """Tells every few seconds how far this worker's partitions are; says nothing while it has none.

    A service that does not take it (an older one) is left alone: reports are what matters, and they say more about it.
    """

    def __init__(self, source: KafkaSource, settings: ProgressSettings, every: float = TELL_SECONDS) -> None:
        assert settings.url is not None
        self._source = source
        self._url = f"{settings.url.rstrip('/')}/progress"
        self._every = every
        self._standings: list[PartitionStatus] = []
        self._ended = threading.Event()
        self.thread: threading.Thread | None = None
        headers = {"authorization": f"Bearer {settings.token}", "content-type": "application/json"}
        self.client = httpx.Client(headers=headers, timeout=DEADLINE, trust_env=False)

    def serve(self, *, idle: bool, between: bool) -> None:  # noqa: ARG002
        """Take over what was seen last."""
        self._standings = self._source.standings
        if self._standings and self.thread is None:
            self.thread = threading.Thread(target=self._run, name="telling", daemon=True)
            self.thread.start()

    def unfinished(self) -> bool:
        """Nobody waits for it."""
        return False

    def revoke(self, seconds: float) -> None:
        """The next owner tells."""

    def full(self) -> bool:
        """Nothing waits here."""
        return False

    def close(self) -> None:
        """End the thread; one that waits for an answer ends with the process."""
        self._ended.set()

    def _run(self) -> None:
        with self.client:
            while self._tell() and not self._ended.wait(self._every):
                pass

    def _tell(self) -> bool:
        """Whether it is worth telling again."""
        if not (standings := self._standings):
            return True
        body = {"pipeline": self._source.pipeline, "reports": [], "partitions": standings}
        try:
            answer = self.client.post(self._url, content=msgspec.json.encode(body))
        except httpx.HTTPError:
            return True  # reports wait for it too, and say so
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            log.info("the progress service takes no partitions", url=self._url)
            return False
        return True
