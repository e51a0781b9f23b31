"""Questions to the progress service from the command line, with advice where it does not answer."""

from collections.abc import Mapping
from typing import Any

from lovelace_streams.errors import DestinationFault
from lovelace_streams.reporting.client import ProgressClient
from lovelace_streams.settings import ProgressSettings

NO_ANSWER = "08006"


def ask_service(settings: ProgressSettings, path: str, query: Mapping[str, Any] | None = None) -> Any:
    """GET a path of the progress service. Raises `DestinationFault` (no answer) or `DeploymentFault` (a refusal)."""
    settings.check()
    with ProgressClient(settings) as client:
        try:
            return client.get(path, query)
        except DestinationFault as fault:
            if fault.code != NO_ANSWER:
                raise
            advice = "start it with `lovelace api`, or correct PROGRESS_API_URL"
            raise DestinationFault(fault.code, f"{fault.detail}; {advice}") from None
