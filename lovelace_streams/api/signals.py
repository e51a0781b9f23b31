"""Send the outbox's signals until each is acknowledged, each with its own back-off, so that none delays another.

A signal is delivered at least once: after a crash between Temporal's answer and the outbox's mark it is sent again. The
receiver makes its effect once by `signal_id`, as the sample workflow shows. The SDK's own request id does not help:
it is new at each call, and the server's de-duplication is not reliable (temporalio/sdk-go#1705).
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import structlog
from psycopg import Error
from psycopg_pool import PoolTimeout

from lovelace_streams.api.ledger import ConflictError
from lovelace_streams.api.models import JobDetail
from lovelace_streams.api.store import Store
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.observability.outages import OutageLog
from lovelace_streams.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

SIGNALS_MAX = 20
"""Signals in flight at a time, so that one that waits for its deadline does not delay the others."""
SEND_DEADLINE = timedelta(seconds=10)
"""Of one call. The lease on a row is longer, so that no other service takes the signal meanwhile."""
LEASE_SECONDS = 30.0


class UnknownWorkflowError(Exception):
    """The workflow was never started, or has ended."""


class Signaller(Protocol):
    """Sends signals to workflows. `UnknownWorkflowError` says that there is none; any other error is tried again."""

    async def send(self, workflow_id: str, name: str, payload: dict[str, Any]) -> None:
        """Return once the receiver has stored the signal."""


class TemporalSignaller:
    """Temporal, connected at the first signal: a service whose jobs have no workflows needs no Temporal."""

    def __init__(self, address: str, namespace: str) -> None:
        try:
            from temporalio.client import Client
        except ImportError as absent:
            raise DeploymentFault(
                "TEMPORAL_ADDRESS is set, but temporalio is not installed: pip install 'lovelace-streams[temporal]', "
                "or leave TEMPORAL_ADDRESS empty"
            ) from absent
        self._connect = partial(Client.connect, address, namespace=namespace, lazy=True)
        self._client: Client | None = None

    async def send(self, workflow_id: str, name: str, payload: dict[str, Any]) -> None:
        """Signal the latest run of the workflow."""
        from temporalio.service import RPCError, RPCStatusCode

        if self._client is None:
            self._client = await self._connect()
        handle = self._client.get_workflow_handle(workflow_id)
        try:
            await handle.signal(name, payload, rpc_timeout=SEND_DEADLINE)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise UnknownWorkflowError from error
            raise


class Outbox:
    """Takes the signals that are due, sends and marks them. Any number of services may share one outbox."""

    def __init__(self, store: Store, signaller: Signaller, outage: OutageLog) -> None:
        self._store = store
        self._outage = outage
        self._signaller = signaller
        self._settings = store.settings
        self.backoff = Backoff(first=0.5, longest=store.settings.signal_backoff_max)
        self.wake = asyncio.Event()
        """Set when a job changed: there may be something to send."""

    async def run(self) -> None:
        """Send until cancelled; wait while the database is away."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), self._settings.signal_poll)
            self.wake.clear()
            try:
                while await self.send_due():
                    pass
            except (Error, PoolTimeout, TimeoutError) as error:
                self._outage.away(getattr(error, "sqlstate", None) or type(error).__name__)

    async def send_due(self) -> int:
        """Send what is due now; answer how many were tried."""
        due = await self._store.query("take_signals", {"limit": SIGNALS_MAX, "lease": LEASE_SECONDS})
        await asyncio.gather(*(self._send(signal) for signal in due))
        return len(due)

    async def _send(self, signal: dict[str, Any]) -> None:
        key = {"job_id": signal["job_id"], "attempt": signal["attempt"]}
        try:
            async with asyncio.timeout(2 * SEND_DEADLINE.total_seconds()):
                await self._signaller.send(signal["workflow_id"], self._settings.signal_name, signal["payload"])
        except UnknownWorkflowError:
            await self._postpone(key, signal["tries"], unknown=True)
        except Exception as error:  # noqa: BLE001 - an error of one signal must not end the others
            log.warning("signal not sent", **key, error=type(error).__name__)
            await self._postpone(key, signal["tries"], unknown=False)
        else:
            await self._store.query("signal_sent", key)

    async def _postpone(self, key: dict[str, Any], tries: int, *, unknown: bool) -> None:
        delay = self.backoff.seconds(tries)
        arguments = {**key, "delay": delay, "unknown": unknown, "grace": self._settings.signal_grace}
        for row in await self._store.query("signal_later", arguments):
            if row["state"] == "undeliverable":
                log.error("signal is undeliverable: its workflow is unknown; send it again when it is there", **key)


async def resend(store: Store, job_id: str) -> JobDetail:
    """Send an undeliverable signal again. Raises `UnknownJobError`, and `ConflictError` if no signal is unsent."""
    if not await store.query("signal_again", {"job_id": job_id}):
        job = await store.detail(job_id)
        raise ConflictError("the signal is sent already" if job.signal else "the job has no signal to send")
    return await store.detail(job_id)
