"""Run a Temporal worker for the workflow: `python -m dataflows.onboarding [TASK_QUEUE]` (default: `onboarding`).

It finds Temporal by TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, Kestra by KESTRA_URL and the others of `KestraSettings`.
SIGTERM and SIGINT end it; what it was doing, another worker goes on with.
"""

import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from dataflows.onboarding import Onboarding, next_step
from dataflows.onboarding.submission import SubmitByKestra
from lovelace_streams import Settings


async def work(task_queue: str = "onboarding", **options: Any) -> None:
    """Run a worker until a signal arrives; `options` are those of Temporal's `Worker`."""
    settings = Settings()
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    client = await Client.connect(settings.temporal_address, namespace=settings.temporal_namespace)
    with ThreadPoolExecutor(2) as threads:
        async with Worker(
            client,
            task_queue=task_queue,
            workflows=[Onboarding],
            activities=[SubmitByKestra().submit, next_step],
            activity_executor=threads,
            **options,
        ):
            await ended.wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
