"""Kestra's API, as far as one execution of the flow `lovelace_submit` needs it (deploy/kestra/submit.yaml).

It is that of Kestra 1.x and 2.x, open source or not (`/api/v1/{tenant}/executions`, kestra.io/docs/api-reference).
Whose fault an answer is, its status says:

no answer, 408, 425, 429, 5xx    Kestra is away: try again
any other but a success          refused: a person has to correct something, and the text says what
"""

from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import httpx
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

CORRELATION = "system.correlationId"
"""The label that Kestra means for keys of a caller's. It can be set when an execution is made, and not changed."""
WAIT_AND_TRY_AGAIN = frozenset({408, 425, 429})


class KestraSettings(BaseSettings):
    """Where Kestra is, and as whom it is asked; from the environment (`KESTRA_URL`, …). Text never shows a secret."""

    model_config = SettingsConfigDict(env_prefix="KESTRA_", env_file=".env", extra="ignore", hide_input_in_errors=True)

    url: str = Field(default="http://127.0.0.1:8080", pattern="^https?://[^@]+$")
    tenant: str = "main"
    namespace: str = "lovelace"
    flow: str = "lovelace_submit"
    username: str = ""
    password: SecretStr = SecretStr("")
    api_token: SecretStr = SecretStr("")
    """Of the Enterprise edition; instead of a username and a password."""
    poll_seconds: float = 5.0
    settle_seconds: float = 30.0
    timeout: float = 30.0


class KestraAway(Exception):  # noqa: N818 - it says what is the case
    """Kestra does not answer, or says that it can't now: trying again helps."""


class KestraRefusal(Exception):  # noqa: N818 - as above
    """Kestra refuses the request, and will again: a person has to correct something."""


class Kestra:
    """Kestra's API, as far as one execution needs it. Every call raises `KestraAway` or `KestraRefusal`."""

    def __init__(self, settings: KestraSettings) -> None:
        self._settings = settings
        self._executions = f"{settings.url.rstrip('/')}/api/v1/{quote(settings.tenant, safe='')}/executions"
        token = settings.api_token.get_secret_value()
        try:
            self._client = httpx.AsyncClient(
                auth=None if token else httpx.BasicAuth(settings.username, settings.password.get_secret_value()),
                headers={"authorization": f"Bearer {token}"} if token else {},
                timeout=settings.timeout,
            )
        except (OSError, ValueError, httpx.InvalidURL) as error:  # of SSL_CERT_FILE, NO_PROXY, ALL_PROXY
            raise KestraRefusal(
                f"the environment's proxies or certificates are invalid: {type(error).__name__}"
            ) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def start(self, inputs: dict[str, str], file: IO[bytes], key: str) -> str:
        """Start an execution with a label for its key, and give its id."""
        flow = f"{self._settings.namespace}/{self._settings.flow}"
        answer = await self._ask(
            "POST",
            f"/{flow}",
            params={"labels": f"{CORRELATION}:{key}"},
            files=[("file", (Path(file.name).name, file)), *((name, (None, text)) for name, text in inputs.items())],
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise KestraRefusal(
                f"Kestra has no flow {flow.replace('/', '.')} in the tenant {self._settings.tenant}: deploy "
                "deploy/kestra/submit.yaml, or correct KESTRA_TENANT, KESTRA_NAMESPACE or KESTRA_FLOW"
            )
        return str(self._read(answer, "id"))

    async def find(self, key: str) -> str | None:
        """Find the execution with this key; of several the one that was started first."""
        query = {
            "filters[namespace][EQUALS]": self._settings.namespace,
            "filters[flowId][EQUALS]": self._settings.flow,
            f"filters[labels][EQUALS][{CORRELATION}]": key,
            "sort": "state.startDate:asc",
            "size": "10",
        }
        found = self._read(await self._ask("GET", "/search", params=query), "results")
        # Subflows inherit the label, so it is looked at which flow an execution is of.
        return next((str(each["id"]) for each in found if each.get("flowId") == self._settings.flow), None)

    async def state(self, execution: str) -> str | None:
        """Ask for the state of an execution; None if there is no such execution."""
        answer = await self._ask("GET", f"/{quote(execution, safe='')}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        state = self._read(answer, "state")
        return str(state.get("current"))

    async def kill(self, execution: str) -> None:
        """Have an execution stopped; one that has ended stays as it is."""
        for path in ("actions/kill", "kill"):  # of 2.x, of 1.x
            answer = await self._ask("DELETE", f"/{quote(execution, safe='')}/{path}")
            if answer.status_code not in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
                return

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; give an answer that is the caller's to judge: a success, or 404, 405, 409."""
        url = self._settings.url
        try:
            answer = await self._client.request(method, f"{self._executions}{path}", **options)
        except httpx.TransportError as error:
            raise KestraAway(f"Kestra at {url} (KESTRA_URL) does not answer: {type(error).__name__}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise KestraRefusal(f"KESTRA_URL {url} is invalid: {type(error).__name__}") from None
        status = answer.status_code
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in WAIT_AND_TRY_AGAIN:
            raise KestraAway(f"Kestra at {url} answers {status}")
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise KestraRefusal(
                f"Kestra at {url} refuses the credentials ({status}): correct KESTRA_USERNAME and KESTRA_PASSWORD, "
                "or KESTRA_API_TOKEN, and see that they may run the flow"
            )
        if answer.is_success or status in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.CONFLICT}:
            return answer
        raise KestraRefusal(
            f"Kestra at {url} refuses the request ({status}): compare the inputs of the flow {self._settings.flow} "
            "with deploy/kestra/submit.yaml"
        )

    def _read(self, answer: httpx.Response, name: str) -> Any:
        """Take a field of a success."""
        if answer.status_code == httpx.codes.CONFLICT:
            raise KestraRefusal(f"Kestra does not run the flow {self._settings.flow} (409): enable it")
        try:
            return answer.raise_for_status().json()[name]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            raise KestraRefusal(
                f"{self._settings.url} (KESTRA_URL) does not answer as Kestra's API does: correct it"
            ) from None
