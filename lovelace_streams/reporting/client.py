"""Requests to the progress service, and what its answers mean."""

from typing import Any

import httpx

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import ProgressSettings


def open_job(settings: ProgressSettings, job: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """`POST /jobs`; answers the job's state with its attempt. Raises `DestinationFault` or `DeploymentFault`."""
    settings.check()
    assert settings.url is not None
    headers = {"authorization": f"Bearer {settings.token}"} | ({"idempotency-key": key} if key else {})
    try:
        answer = httpx.post(
            f"{settings.url.rstrip('/')}/jobs", json=job, headers=headers, timeout=settings.timeout, trust_env=False
        )
    except httpx.HTTPError as error:
        raise DestinationFault(
            "08006", f"the progress service {settings.url} does not answer: {type(error).__name__}"
        ) from None
    if answer.is_success:
        return dict(answer.json())
    if answer.status_code >= 500:  # noqa: PLR2004 - HTTP's server errors
        raise DestinationFault(str(answer.status_code), f"the progress service {settings.url}")
    raise DeploymentFault(f"the progress service {settings.url} answers {answer.status_code}: {_detail(answer)}")


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail", ""))[:500]
    except ValueError:
        return ""
