"""The demo's own processes beside the servers: the progress service, and workers."""

import os
import sys
from pathlib import Path

import httpx

from lovelace_streams.local.processes import HOST, Program


class Api(Program):
    """The progress service. Processes that start after it find its address in their environment."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, "api", [sys.executable, "-m", "lovelace_streams.api"])

    def answers(self) -> bool:
        """Whether the service and its database are ready."""
        try:
            return httpx.get(f"http://{HOST}:{self.port}/readyz", trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False

    def before_launch(self) -> None:
        """Set its address in the environment, now that its port is known."""
        os.environ["API_PORT"] = str(self.port)
        os.environ["PROGRESS_API_URL"] = f"http://{HOST}:{self.port}"


class Worker(Program):
    """A worker, started as in production: the only one of its flow, configured by its environment alone."""

    def __init__(self, home: Path, flow: str, name: str = "worker", **settings: str) -> None:
        super().__init__(home, name, [sys.executable, "-m", "bytewax.run", flow])
        self.settings = settings

    def environment(self) -> dict[str, str]:
        """Give our environment with the settings of this worker."""
        return super().environment() | self.settings
