"""Send requests to the progress service, and decide whose fault an answer is; only here (law 5).

no answer, 5xx    the destination's: the service is away, try again
401, 403          the deployment's: the service rejects PROGRESS_API_TOKEN
any other         left to the caller

The environment's proxies are not used: the service is near. Its certificate may be of an authority of one's own, which
`SSL_CERT_FILE` names.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import msgspec

from lovelace_streams import http_client
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.http_client import Address, HttpClient, check_header
from lovelace_streams.settings import ProgressSettings

UNAUTHORIZED, FORBIDDEN, TOO_LARGE, UNPROCESSABLE, SERVER_ERROR = 401, 403, 413, 422, 500
DETAIL_MAX = 500
"""How many characters of the service's own explanation an error shows."""

T = TypeVar("T")
"""The type that an answer has to be of."""


class Response(http_client.Response):
    """An answer of the service."""

    @property
    def detail(self) -> str:
        """The service's own explanation of a refusal; "" if something else answered in its place (a proxy)."""
        try:
            return str(self.json().get("detail", ""))[:DETAIL_MAX]
        except (ValueError, AttributeError):
            return ""


class OpenedJob(msgspec.Struct):
    """What is needed of the service's answer to an opened job."""

    job_id: str
    attempt: int


class ProgressClient(HttpClient):
    """A client of the progress service that keeps its connections open; threads may share it.

    Raises `DeploymentFault` for an address or a token that can't be sent.
    """

    def __init__(
        self, settings: ProgressSettings, *, timeout: float | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        address = Address.of(settings.url or "", "PROGRESS_API_URL")
        if address.credentials is not None:
            raise DeploymentFault("PROGRESS_API_URL may not hold a user: the service takes PROGRESS_API_TOKEN alone")
        self.url = address.url
        super().__init__(
            address,
            service=f"progress service {self.url} (PROGRESS_API_URL)",
            setting="PROGRESS_API_URL",
            timeout=timeout or settings.timeout,
            headers={"authorization": f"Bearer {check_header(settings.token, 'PROGRESS_API_TOKEN')}"},
            transport=transport,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request and judge its answer. Raises `DestinationFault` or `DeploymentFault`, as the module says."""
        return self.judge(self.send(method, path, body=body, query=query, headers=headers))

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request; `body` is JSON. Gives any answer; raises `DestinationFault` if there is none."""
        sent = {"content-type": "application/json"} if body is not None else {}
        try:
            answer = super().request(method, path, body=body, query=query, headers={**sent, **(headers or {})})
        except DestinationFault as fault:
            hint = "start it with `lovelace api`, or correct its address"
            raise DestinationFault("08006", f"{fault.detail}: {hint}") from None
        return Response(*answer)

    def judge(self, answer: Response) -> Response:
        """Give back an answer that is the caller's to judge. Raises as the module says."""
        if answer.status >= SERVER_ERROR:
            raise DestinationFault(str(answer.status), f"the progress service {self.url} is not ready: see its log")
        if answer.status in {UNAUTHORIZED, FORBIDDEN}:
            raise DeploymentFault(
                f"the progress service {self.url} refuses our token ({answer.status}): "
                f"set PROGRESS_API_TOKEN to the service's own"
            )
        return answer

    def get(self, path: str, query: Mapping[str, Any] | None = None, kind: type[T] | Any = Any) -> T | Any:
        """Get a path's JSON, of this type.

        Raises `DestinationFault`, and `DeploymentFault` for any other answer.
        """
        return self._believed(self.request("GET", path, query=query), path, kind)

    def open_job(self, job: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Open a job (`POST /jobs`); returns its state with the attempt. Requests with one `key` count once.

        Raises `DestinationFault`, and `DeploymentFault` if the service refuses the job.
        """
        headers = {"idempotency-key": key} if key else {}
        answer = self.request("POST", "/jobs", body=msgspec.json.encode(job), headers=headers)
        self._believed(answer, "/jobs", OpenedJob)
        return dict(answer.json())

    def _believed(self, answer: Response, path: str, kind: type[T]) -> T:
        """Return what a success says, if it is of this type. Raises `DeploymentFault` for any other answer."""
        if answer.is_success:
            with suppress(ValueError):
                return answer.decode(kind)
        why = answer.detail or "it is not the progress service, correct PROGRESS_API_URL"
        raise DeploymentFault(f"the progress service {self.url} answers {answer.status} to {path}: {why}")


def open_job(settings: ProgressSettings, job: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """Open a job as `ProgressClient.open_job` does. Raises `DeploymentFault` for invalid settings too."""
    settings.check()
    with ProgressClient(settings) as client:
        return client.open_job(job, key)


def ask_service(
    settings: ProgressSettings, path: str, query: Mapping[str, Any] | None = None, kind: type[T] | Any = Any
) -> T | Any:
    """GET a path's JSON; see `ProgressClient.get`. Raises `DeploymentFault` for invalid settings, too."""
    settings.check()
    with ProgressClient(settings) as client:
        return client.get(path, query, kind)
