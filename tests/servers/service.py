"""The progress service on a real port, and requests to it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from lovelace_streams.api import ApiSettings
from lovelace_streams.api.__main__ import Server, config

TOKEN = "a token of the tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `condition` answers as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.02)
    return answer


@contextmanager
def running(dsn: str, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a service of its own, which is ended as SIGTERM would; `client.events` is what it streams."""
    options = {"temporal_address": None, "signal_poll": 0.1, "signal_backoff_max": 0.2, "sweep_seconds": 0.2}
    server = Server(config(ApiSettings(dsn=dsn, token=TOKEN, **{"port": 0, **options, **settings})))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=20, trust_env=False) as client:
            client.events = server.config.loaded_app.app.state.service.events
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the service did not end"


def ready(client: httpx.Client) -> httpx.Client:
    """Wait for the migrations."""
    until(lambda: client.get("/readyz").status_code == 200)
    return client


def part(first: int, last: int | None = None, job: str | None = "job", **fields: Any) -> dict[str, Any]:
    """One range, of one succeeded item an offset unless said otherwise."""
    counts = {"succeeded": 1, "failed": 0, "skipped": 0}
    return {"job_id": job, "attempt": 1, "first": first, "last": first if last is None else last, **counts, **fields}


def report(*ranges: dict[str, Any], partition: int = 0, topic_id: str = "T", pipeline: str = "flow") -> dict[str, Any]:
    """The body of a report of one partition."""
    only = {"topic": "raw", "topic_id": topic_id, "partition": partition, "ranges": list(ranges)}
    return {"pipeline": pipeline, "reports": [only]}
