"""The progress service's part of a check: it is ready and accepts the token."""

from lovelace_streams.reporting.client import ProgressClient
from lovelace_streams.settings import ProgressSettings


def check_service(settings: ProgressSettings) -> str:
    """Ask for readiness, then with the token for a job. Raises `DestinationFault` or `DeploymentFault`."""
    with ProgressClient(settings) as client:
        client.get("/readyz")
        client.get("/jobs", {"limit": 1})
        return f"{client.url}: the progress service is ready and takes our token"
