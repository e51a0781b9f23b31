"""The outbox's sender: each signal until it is acknowledged, each with its own back-off, so none holds up another.

At least once on the wire: a crash between Temporal's answer and the mark sends again, and `signal_id` makes the effect
once (the sample workflow shows how). The SDK's own request id is no help: it is new at each call, and the
server's de-duplication is not to be relied on (temporalio/sdk-go#1705).
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import structlog
from psycopg import Error
from psycopg_pool import PoolTimeout

from lovelace_streams.api.ledger import Conflict
from lovelace_streams.api.models import JobDetail
from lovelace_streams.api.store import Store
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

AT_A_TIME = 20
"""Signals sent side by side: one that waits for its deadline holds up nobody."""
DEADLINE = timedelta(seconds=10)
"""Of one call; the lease on a row is longer, so that nobody takes it meanwhile."""
LEASE = 30.0


class UnknownWorkflow(Exception):  # noqa: N818 - an answer, not an accident
    """Never started, or over."""


class Signaller(Protocol):
    """Who wakes a workflow. Raises `UnknownWorkflow`, anything else is tried again."""

    async def send(self, workflow_id: str, name: str, payload: dict[str, Any]) -> None:
        """Returns once the other side has taken the signal durably."""


class TemporalSignaller:
    """Temporal, connected at the first signal: a service whose jobs nobody waits for needs none."""

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
            await handle.signal(name, payload, rpc_timeout=DEADLINE)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise UnknownWorkflow from error
            raise


class Outbox:
    """Takes what is due, sends it, marks it; any number of services may do so side by side."""

    def __init__(self, store: Store, signaller: Signaller) -> None:
        self._store = store
        self._signaller = signaller
        self._settings = store.settings
        self.backoff = Backoff(first=0.5, longest=store.settings.signal_backoff_max)
        self.wake = asyncio.Event()
        """Set when a job changed: there may be something to send."""

    async def run(self) -> None:
        """Until cancelled; a database that is away is tried again."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), self._settings.signal_poll)
            self.wake.clear()
            try:
                while await self.send_due():
                    pass
            except (Error, PoolTimeout, TimeoutError) as error:
                log.warning("outbox waits for the database", code=getattr(error, "sqlstate", None))

    async def send_due(self) -> int:
        """Send what is due now; how many were tried."""
        due = await self._store.query("take_signals", {"limit": AT_A_TIME, "lease": LEASE})
        await asyncio.gather(*(self._send(signal) for signal in due))
        return len(due)

    async def _send(self, signal: dict[str, Any]) -> None:
        key = {"job_id": signal["job_id"], "attempt": signal["attempt"]}
        try:
            async with asyncio.timeout(2 * DEADLINE.total_seconds()):
                await self._signaller.send(signal["workflow_id"], self._settings.signal_name, signal["payload"])
        except UnknownWorkflow:
            await self._later(key, signal["tries"], unknown=True)
        except Exception as error:  # noqa: BLE001 - whatever the other side does, its neighbours are sent
            log.warning("signal not sent", **key, error=type(error).__name__)
            await self._later(key, signal["tries"], unknown=False)
        else:
            await self._store.query("signal_sent", key)

    async def _later(self, key: dict[str, Any], tries: int, *, unknown: bool) -> None:
        delay = self.backoff.seconds(tries)
        arguments = {**key, "delay": delay, "unknown": unknown, "grace": self._settings.signal_grace}
        for row in await self._store.query("signal_later", arguments):
            if row["state"] == "undeliverable":
                log.error("signal is undeliverable: its workflow is unknown; send it again when it is there", **key)


async def resend(store: Store, job_id: str) -> JobDetail:
    """Send an undeliverable signal again, now. Raises `UnknownJob`, and `Conflict` where there is none to send."""
    if not await store.query("signal_again", {"job_id": job_id}):
        job = await store.detail(job_id)
        raise Conflict("the signal is sent" if job.signal else "the job has no signal to send")
    return await store.detail(job_id)
