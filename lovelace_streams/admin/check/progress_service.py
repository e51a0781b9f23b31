"""The progress service's part of a check: it is ready and accepts the token."""

import httpx

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import ProgressSettings

REFUSED = {401, 403}
SERVER_ERROR_MIN = 500


def check_service(settings: ProgressSettings) -> str:
    """Ask for readiness, then with the token for a job. Raises `DestinationFault` or `DeploymentFault`."""
    url = str(settings.url).rstrip("/")
    for path in ("/readyz", "/jobs?limit=1"):
        _judge(url, path, _get(settings, f"{url}{path}", url).status_code)
    return f"{url}: the progress service is ready and takes our token"


def _get(settings: ProgressSettings, address: str, url: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {settings.token}"}
    try:
        return httpx.get(address, headers=headers, timeout=settings.timeout, trust_env=False)
    except httpx.HTTPError as error:
        raise DestinationFault(
            "08006",
            f"the progress service {url} (PROGRESS_API_URL) does not answer, {type(error).__name__}: "
            "start it with `lovelace api`, or correct its address",
        ) from None


def _judge(url: str, path: str, status: int) -> None:
    if status in REFUSED:
        raise DeploymentFault(
            f"the progress service {url} refuses our token ({status}): set PROGRESS_API_TOKEN to the service's own"
        )
    if status >= SERVER_ERROR_MIN:
        raise DestinationFault(str(status), f"the progress service {url} is not ready: see its log")
    if status >= httpx.codes.MULTIPLE_CHOICES or status < httpx.codes.OK:
        raise DeploymentFault(
            f"{url} answers {status} to {path}, so it is not the progress service: correct PROGRESS_API_URL"
        )
