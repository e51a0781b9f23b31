"""Send requests to the progress service, and decide whose fault an answer is; only here (law 5).

no answer, 5xx    the destination's: the service is away, try again
401, 403          the deployment's: the service rejects PROGRESS_API_TOKEN
any other         left to the caller
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import ProgressSettings

UNAUTHORIZED, FORBIDDEN, TOO_LARGE, UNPROCESSABLE, SERVER_ERROR = 401, 403, 413, 422, 500
DETAIL_MAX = 500
"""How many characters of the service's own explanation an error shows."""


class Response(NamedTuple):
    """An answer of the service."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the service accepted the request."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's successes

    def json(self) -> Any:
        """Parse the body. Raises `ValueError`."""
        return msgspec.json.decode(self.body)

    @property
    def detail(self) -> str:
        """The service's own explanation of a refusal; "" if something else answered in its place (a proxy)."""
        try:
            return str(self.json().get("detail", ""))[:DETAIL_MAX]
        except (ValueError, AttributeError):
            return ""


class ProgressClient:
    """A client of the progress service that keeps its connections open; threads may share it."""

    def __init__(
        self, settings: ProgressSettings, *, timeout: float | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = str(settings.url).rstrip("/")
        self._client = httpx.Client(
            headers={"authorization": f"Bearer {settings.token}"},
            timeout=timeout or settings.timeout,
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A request after that raises `DestinationFault`."""
        self._client.close()

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
            answer = self._client.request(
                method, f"{self.url}{path}", content=body, params=query, headers={**sent, **(headers or {})}
            )
        except httpx.InvalidURL:
            raise DeploymentFault("PROGRESS_API_URL is invalid: it must begin with http:// or https://") from None
        except (httpx.HTTPError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not self._client.is_closed:  # else it was closed by another thread
                raise
            text = (
                f"the progress service {self.url} (PROGRESS_API_URL) does not answer, {type(error).__name__}: "
                "start it with `lovelace api`, or correct its address"
            )
            raise DestinationFault("08006", text) from None
        return Response(answer.status_code, answer.content)

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

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Get a path's JSON. Raises `DestinationFault`, and `DeploymentFault` for any answer but a success."""
        answer = self.request("GET", path, query=query)
        try:
            if answer.is_success:
                return answer.json()
        except ValueError:
            pass
        why = answer.detail or "it is not the progress service, correct PROGRESS_API_URL"
        raise DeploymentFault(f"{self.url} answers {answer.status} to {path}: {why}")

    def open_job(self, job: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Open a job (`POST /jobs`); returns its state with the attempt. Requests with one `key` count once.

        Raises `DestinationFault`, and `DeploymentFault` if the service refuses the job.
        """
        headers = {"idempotency-key": key} if key else {}
        answer = self.request("POST", "/jobs", body=msgspec.json.encode(job), headers=headers)
        if not answer.is_success:
            raise DeploymentFault(f"the progress service {self.url} answers {answer.status}: {answer.detail}")
        return dict(answer.json())


def open_job(settings: ProgressSettings, job: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """Open a job as `ProgressClient.open_job` does. Raises `DeploymentFault` for invalid settings too."""
    settings.check()
    with ProgressClient(settings) as client:
        return client.open_job(job, key)


def ask_service(settings: ProgressSettings, path: str, query: Mapping[str, Any] | None = None) -> Any:
    """GET a path's JSON; see `ProgressClient.get`. Raises `DeploymentFault` for invalid settings, too."""
    settings.check()
    with ProgressClient(settings) as client:
        return client.get(path, query)
