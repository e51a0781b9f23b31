"""A server that answers as Kestra's documentation says of its API for executions (versions 1.3 and 2.0).

No package carries Kestra's own server: of its parts Maven has the core, but neither web server nor command line.
Kestra's own Python clients of both versions (kestrapy 1.0.10 and 2.0.3) read, find and kill executions of this server,
and that of 2.0 starts them.
"""

import asyncio
import base64
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from lovelace_streams.local.processes import free_port
from tests.faults.harness import ROOT
from tests.servers.service import until

TASK = yaml.safe_load((ROOT / "deploy" / "kestra" / "submit.yaml").read_text())["tasks"][0]
USER, PASSWORD, TOKEN = "admin@kestra.io", "a password of the tests", "a token of the tests"
ENDS = {"SUCCESS", "WARNING", "FAILED", "KILLED", "CANCELLED", "SKIPPED"}


class KestraServer:
    """Flows without tasks: a test says when an execution ends, and how the server misbehaves."""

    def __init__(self, *, version: int = 2) -> None:
        self.version = version
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.flows = {"lovelace.lovelace_submit": {"flow", "file", "job_id", "workflow_id", "guild"}}
        self.disabled: set[str] = set()
        self.executions: dict[str, dict[str, Any]] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.lists_after = 0.0
        """Seconds until an execution that was accepted is listed."""
        self.answers: list[int] = []
        """What the next requests are answered with, after they have had their effect."""
        self.holds = threading.Event()
        """Set: a request to start an execution gets no answer until it is cleared, but has its effect."""
        self.on_start: Callable[[dict[str, Any], bytes], str] | None = None
        """Runs an execution, in a thread of its own, and gives its last state."""
        self._turning = threading.Lock()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(self._app(), port=self.port, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        if self._server is None:
            return
        self.holds.clear()
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(30)
        self._server = None

    def end(self, state: str = "SUCCESS") -> None:
        """End all executions that are under way."""
        for execution in self.executions.values():
            self._turn(execution, state)

    def asked_for(self, execution: str) -> int:
        return sum(path.endswith(f"/{execution}") for _, path in self.requests)

    def _turn(self, execution: dict[str, Any], state: str) -> None:
        """Change the state, unless the execution has ended: a test, a request and the execution itself do it."""
        with self._turning:
            if execution["state"]["current"] not in ENDS:
                execution["state"]["current"] = state
                execution["state"]["histories"].append({"state": state, "date": "2026-01-01T00:00:00Z"})

    def _app(self) -> FastAPI:
        app = FastAPI()
        base = "/api/v1/main/executions"

        @app.middleware("http")
        async def guard(request: Request, call_next: Any) -> Response:
            self.requests.append((request.method, request.url.path))
            basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if request.headers.get("authorization") not in {f"Basic {basic}", f"Bearer {TOKEN}"}:
                return Response(status_code=401)
            answer = await call_next(request)
            return JSONResponse({"message": "Internal"}, self.answers.pop(0)) if self.answers else answer

        @app.get(f"{base}/search")
        def search(request: Request) -> dict[str, Any]:
            query = dict(request.query_params)
            label = "filters[labels][EQUALS]["
            labels = {(name[len(label) : -1], value) for name, value in query.items() if name.startswith(label)}
            found = [
                each
                for each in self.executions.values()
                if self._is_listed(each)
                and query.get("filters[namespace][EQUALS]", each["namespace"]) == each["namespace"]
                and query.get("filters[flowId][EQUALS]", each["flowId"]) == each["flowId"]
                and labels <= {(one["key"], one["value"]) for one in each["labels"]}
            ]
            return {"results": found[: int(query.get("size", "10"))], "total": len(found)}

        @app.post(f"{base}/{{namespace}}/{{flow}}")
        async def create(namespace: str, flow: str, request: Request) -> Response:
            async with request.form() as form:
                name = f"{namespace}.{flow}"
                if name not in self.flows:
                    return JSONResponse({"message": f"Not Found: Flow '{name}' not found"}, 404)
                if name in self.disabled:
                    return JSONResponse({"message": "Illegal state: Cannot execute a disabled flow"}, 409)
                needed = self.flows[name] - {"guild"}
                if not needed <= set(form) <= self.flows[name]:
                    return JSONResponse({"message": "Invalid entity: missing inputs"}, 422)
                file = form["file"]
                content = await file.read()
                inputs = {key: value for key, value in form.items() if isinstance(value, str)}
                execution = self._new(namespace, flow, request.query_params.getlist("labels"), inputs)
                self.files[execution["id"]] = (file.filename, content)
            threading.Thread(target=self._run, args=(execution, content), daemon=True).start()
            while self.holds.is_set():  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.02)
            return JSONResponse({**execution, "url": f"{self.url}/ui/main/executions/{execution['id']}"})

        @app.get(f"{base}/{{execution}}")
        def read(execution: str) -> Response:
            found = self.executions.get(execution)
            return JSONResponse(found) if found and self._is_listed(found) else JSONResponse(None, 404)

        @app.delete(f"{base}/{{execution}}/{'actions/kill' if self.version == 2 else 'kill'}")
        def kill(execution: str) -> Response:
            if execution not in self.executions:
                return JSONResponse(None, 404)
            self._turn(self.executions[execution], "KILLED")
            return JSONResponse(None, 202)

        return app

    def _new(self, namespace: str, flow: str, labels: list[str], inputs: dict[str, str]) -> dict[str, Any]:
        pairs = [label.split(":") for label in labels]
        assert all(len(pair) == 2 for pair in pairs), "Kestra takes no label with another colon"
        assert not any(key.startswith("system.") and key != "system.correlationId" for key, _ in pairs)
        execution = {
            "id": uuid4().hex[:22],
            "namespace": namespace,
            "flowId": flow,
            "flowRevision": 1,
            "labels": [{"key": key, "value": value} for key, value in pairs],
            "inputs": inputs,
            "state": {"current": "CREATED", "histories": [{"state": "CREATED", "date": "2026-01-01T00:00:00Z"}]},
            "originalId": "",
            "deleted": False,
            "metadata": {"attemptNumber": 1, "originalCreatedDate": "2026-01-01T00:00:00Z"},
            "_at": time.monotonic(),
        }
        self.executions[execution["id"]] = execution
        return execution

    def _run(self, execution: dict[str, Any], content: bytes) -> None:
        self._turn(execution, "RUNNING")
        if self.on_start is not None:
            self._turn(execution, self.on_start(execution["inputs"], content))

    def _is_listed(self, execution: dict[str, Any]) -> bool:
        return time.monotonic() - execution["_at"] >= self.lists_after


def run_task(folder: Path, content: bytes, variables: dict[str, str]) -> subprocess.CompletedProcess:
    """Run the commands of the flow as Kestra's runner does: in a folder with the input file, inputs as variables."""
    folder.mkdir(exist_ok=True)
    (folder / "payloads").write_bytes(content)
    (folder / "lovelace").write_text(f'#!/bin/sh\nexec {sys.executable} -m lovelace_streams "$@"\n')
    (folder / "lovelace").chmod(0o700)
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/sh", "-c", "\n".join(TASK["commands"])],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **variables, "PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def rendered(inputs: dict[str, str]) -> dict[str, str]:
    """The variables of the task that come from inputs."""
    asked = {name: re.search(r"inputs\.(\w+)", text) for name, text in TASK["env"].items()}
    return {name: inputs.get(found[1], "") for name, found in asked.items() if found}


@contextmanager
def kestra(**options: Any) -> Iterator[KestraServer]:
    """A server of its own, on a free port."""
    server = KestraServer(**options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
