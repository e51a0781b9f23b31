"""The progress service beside the local servers: its ledger is in their Postgres, its signals go to their Temporal."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local.processes import HOST, ManagedServer, listens


class ProgressService(ManagedServer):
    """`lovelace api` as a server of the stack, on the loopback, at the address that `<home>/env` names."""

    name = "api"
    variable = "PROGRESS_API_URL"

    def __init__(self, home: Path, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(home, port)
        self.settings = settings or {}
        """Settings of the stack it belongs to. They win over those of `.env`, which may name servers elsewhere."""
        self.folder = Path.cwd()

    @property
    def url(self) -> str:
        """Where it serves requests, and its page for people."""
        return f"http://{self.address}"

    def setting(self) -> str:
        """Give its URL."""
        return self.url

    def prepare(self) -> None:
        """Refuse what uvicorn would say in twenty lines of the log."""
        if importlib.util.find_spec("fastapi") is None:
            raise DeploymentFault("the progress service needs the extra `api`: pip install 'lovelace-streams[api]'")
        if listens(self.port):
            raise DeploymentFault(
                f"another program listens on {self.address}, where the progress service is to be: stop it (it may be a "
                "`lovelace api`), or run `lovelace up` without --api"
            )

    def command(self) -> list[str]:
        """Give the command of `lovelace api`, which needs no command line."""
        # With the home, this command line differs from that of another stack.
        return [sys.executable, "-m", "lovelace_streams.api", str(self.home)]

    def environment(self) -> dict[str, str]:
        """Give our environment with the addresses and the token of the stack."""
        return {**super().environment(), **self.settings, "API_HOST": HOST, "API_PORT": str(self.port)}

    def answers(self) -> bool:
        """Whether it and its database are ready."""
        import httpx

        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False
