"""A workflow has Kestra submit its job: on Temporal's test server, with an API that answers as Kestra's does."""

import asyncio
import gzip
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

from dataflows import discord_sample
from dataflows.onboarding import SIGNAL, Onboarding, next_step
from dataflows.onboarding.kestra import KestraSettings
from dataflows.onboarding.submission import SubmitByKestra
from tests.faults.conftest import Job, Service
from tests.faults.harness import ROOT
from tests.servers.kestra import PASSWORD, TOKEN, USER, KestraServer, kestra, rendered, run_task
from tests.servers.service import until

PAYLOADS = b'{"id": 1}\n'
Use = Callable[[WorkflowHandle], Awaitable[Any]]


@pytest.fixture
def server() -> Iterator[KestraServer]:
    with kestra() as started:
        yield started


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "payloads"
    path.write_bytes(PAYLOADS)
    return path


def settings(server: KestraServer, **more: Any) -> KestraSettings:
    given = {"username": USER, "password": PASSWORD, "poll_seconds": 0.05, "settle_seconds": 3.0, **more}
    return KestraSettings(url=server.url, _env_file=None, **given)


async def start(address: str, job: str, file: Path) -> WorkflowHandle:
    client = await Client.connect(address)
    return await client.start_workflow(Onboarding.run, args=[job, str(file)], id=f"w:{job}", task_queue=job)


async def again(handle: WorkflowHandle, address: str) -> WorkflowHandle:
    """The workflow, by a client of this event loop."""
    client = await Client.connect(address)
    return client.get_workflow_handle(handle.id, run_id=handle.result_run_id)


def run(address: str, asked: KestraSettings, file: Path, use: Use) -> Any:
    """Start a workflow and a worker for it; give what `use` makes of the workflow."""

    async def with_worker() -> Any:
        job = uuid.uuid4().hex
        handle = await start(address, job, file)
        with ThreadPoolExecutor(1) as threads:
            async with Worker(
                handle._client,
                task_queue=job,
                workflows=[Onboarding],
                activities=[SubmitByKestra(asked).submit, next_step],
                activity_executor=threads,
            ):
                return await asyncio.wait_for(use(handle), 60)

    return asyncio.run(with_worker())


async def signalled(handle: WorkflowHandle) -> dict[str, Any]:
    """Send the signal of the job, and give the workflow's result."""
    await handle.signal(SIGNAL, {"signal_id": "s#1", "succeeded": 1})
    return await handle.result()


async def failure(handle: WorkflowHandle) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    cause = failed.value.cause.cause
    assert isinstance(cause, ApplicationError)
    assert PASSWORD not in str(cause)
    return cause


def ending(server: KestraServer, state: str, use: Use) -> Use:
    """End the execution once it runs; then do the rest."""

    async def end(handle: WorkflowHandle) -> Any:
        await asyncio.to_thread(until, lambda: len(server.executions) == 1)
        await asyncio.to_thread(server.end, state)
        return await use(handle)

    return end


def only(server: KestraServer) -> dict[str, Any]:
    [execution] = server.executions.values()
    return execution


@pytest.mark.parametrize("state", ["SUCCESS", "WARNING"])
def test_the_activity_ends_when_the_execution_has_succeeded(server, temporal_server, file, state) -> None:
    outcome = run(temporal_server.address, settings(server), file, ending(server, state, signalled))

    assert outcome["next_step"] == "welcome 1 members"
    execution = only(server)
    job = execution["inputs"]["job_id"]
    assert execution["inputs"] == {"flow": "discord", "job_id": job, "workflow_id": f"w:{job}"}
    assert server.files[execution["id"]] == ("payloads", PAYLOADS)
    assert [label["key"] for label in execution["labels"]] == ["system.correlationId"]


@pytest.mark.parametrize("state", ["FAILED", "KILLED", "CANCELLED", "SKIPPED"])
def test_the_activity_fails_once_when_the_execution_fails(server, temporal_server, file, state) -> None:
    error = run(temporal_server.address, settings(server), file, ending(server, state, failure))

    execution = only(server)
    assert (error.type, error.non_retryable) == ("KestraExecutionFailed", True)
    assert f"execution {execution['id']} ended as {state}" in str(error)


def test_an_execution_that_is_deleted_fails_the_activity(server, temporal_server, file) -> None:
    async def delete(handle: WorkflowHandle) -> ApplicationError:
        await asyncio.to_thread(until, lambda: server.executions and server.asked_for(only(server)["id"]))
        server.executions.clear()
        return await failure(handle)

    assert "ended as deleted" in str(run(temporal_server.address, settings(server, settle_seconds=0.3), file, delete))


def test_kestra_may_be_away_while_the_execution_runs(server, temporal_server, file) -> None:
    async def outage(handle: WorkflowHandle) -> Any:
        await asyncio.to_thread(until, lambda: server.executions and server.asked_for(only(server)["id"]))
        await asyncio.to_thread(server.stop)
        server.end()
        await asyncio.sleep(1)
        await asyncio.to_thread(server.start)
        server.answers += [503, 429]
        return await signalled(handle)

    assert run(temporal_server.address, settings(server), file, outage)["signals"] == 1
    assert [method for method, _ in server.requests].count("POST") == 1


def test_kestra_may_be_away_when_the_execution_is_started(server, temporal_server, file) -> None:
    server.stop()

    async def late(handle: WorkflowHandle) -> Any:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        return await ending(server, "SUCCESS", signalled)(handle)

    assert run(temporal_server.address, settings(server, settle_seconds=0.5), file, late)["signals"] == 1
    assert only(server)


@pytest.mark.parametrize("answer", [500, 502, 504])
def test_an_execution_whose_answer_was_lost_is_found_and_not_started_again(
    server, temporal_server, file, answer
) -> None:
    server.lists_after = 1.5
    server.answers.append(answer)

    assert run(temporal_server.address, settings(server), file, ending(server, "SUCCESS", signalled))["signals"] == 1
    assert [method for method, _ in server.requests].count("POST") == 1
    assert only(server)


def test_executions_of_other_workflows_are_not_taken_for_ones_own(server, temporal_server, file) -> None:
    for _ in range(2):
        run(temporal_server.address, settings(server), file, _once_more(server))
    labels = {execution["labels"][0]["value"] for execution in server.executions.values()}

    assert len(labels) == len(server.executions) == 2


def _once_more(server: KestraServer) -> Use:
    async def use(handle: WorkflowHandle) -> Any:
        known = len(server.executions)
        server.answers.append(503)  # the execution is made; the next try has to find its own
        await asyncio.to_thread(until, lambda: len(server.executions) > known or not server.answers)
        await asyncio.to_thread(until, lambda: len(server.executions) > known)
        await asyncio.to_thread(server.end)
        return await signalled(handle)

    return use


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"password": "wrong"}, "refuses the credentials (401): correct KESTRA_USERNAME"),
        ({"api_token": "wrong"}, "refuses the credentials (401)"),
        ({"namespace": "elsewhere"}, "no flow elsewhere.lovelace_submit in the tenant main: deploy deploy/kestra"),
        ({"tenant": "other"}, "no flow lovelace.lovelace_submit in the tenant other"),
    ],
)
def test_what_kestra_refuses_fails_at_once(server, temporal_server, file, given, says) -> None:
    error = run(temporal_server.address, settings(server, **given), file, failure)

    assert says in str(error)
    assert "wrong" not in str(error)
    assert (error.type, error.non_retryable, len(server.requests)) == ("KestraRefusal", True, 1)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda server: server.disabled.add("lovelace.lovelace_submit"), "does not run the flow lovelace_submit (409)"),
        (lambda server: server.flows["lovelace.lovelace_submit"].add("more"), "refuses the request (422): compare"),
        (lambda server: server.answers.append(302), "refuses the request (302)"),
        (lambda server: server.answers.append(200), "does not answer as Kestra's API does"),
    ],
    ids=["disabled", "inputs", "redirect", "not-kestra"],
)
def test_a_wrong_deployment_fails_at_once(server, temporal_server, file, spoil, says) -> None:
    spoil(server)

    error = run(temporal_server.address, settings(server), file, failure)

    assert says in str(error)
    assert (error.type, len(server.requests)) == ("KestraRefusal", 1)


def test_a_file_that_is_not_there_fails_at_once(server, temporal_server, tmp_path) -> None:
    error = run(temporal_server.address, settings(server), tmp_path / "none", failure)

    assert "can't be read here: No such file" in str(error)
    assert server.requests == []


def test_a_token_is_enough(server, temporal_server, file) -> None:
    asked = settings(server, username="", password="", api_token=TOKEN)

    assert run(temporal_server.address, asked, file, ending(server, "SUCCESS", signalled))["signals"] == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_cancelled_workflow_kills_the_execution(temporal_server, file, version) -> None:
    async def cancel(handle: WorkflowHandle) -> None:
        await asyncio.to_thread(until, lambda: server.executions and server.asked_for(only(server)["id"]))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()

    with kestra(version=version) as server:
        run(temporal_server.address, settings(server), file, cancel)
        assert only(server)["state"]["current"] == "KILLED"


@pytest.mark.slow
def test_an_execution_of_which_no_answer_came_is_killed_too(server, temporal_server, file) -> None:
    server.holds.set()

    async def cancel(handle: WorkflowHandle) -> None:
        await asyncio.to_thread(until, lambda: server.executions)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()

    run(temporal_server.address, settings(server), file, cancel)
    assert only(server)["state"]["current"] == "KILLED"


WORK = "import asyncio; from dataflows.onboarding.__main__ import work; asyncio.run(work({!r}, max_cached_workflows=0))"
"""`python -m dataflows.onboarding`, but for the cache: a workflow that a dead worker had in its cache is given to no
other one by Temporal's test server. A real server does so after ten seconds."""


class Process:
    """A worker as its own process."""

    def __init__(self, address: str, server: KestraServer, job: str, log: Path) -> None:
        environment = {
            "TEMPORAL_ADDRESS": address, "KESTRA_URL": server.url, "KESTRA_USERNAME": USER, "KESTRA_PASSWORD": PASSWORD,
            "KESTRA_POLL_SECONDS": "0.1", "KESTRA_SETTLE_SECONDS": "5",
        }  # fmt: skip
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORK.format(job)],
                cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output,
            )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the answer", "while it waits"])
def test_a_worker_that_is_killed_starts_no_second_execution(server, temporal_server, file, tmp_path, when) -> None:
    job, log = uuid.uuid4().hex, tmp_path / "worker.log"
    if when == "before the answer":
        server.holds.set()
    handle = asyncio.run(start(temporal_server.address, job, file))
    first = Process(temporal_server.address, server, job, log)
    until(lambda: server.executions and (server.holds.is_set() or server.asked_for(only(server)["id"])))
    first.kill()
    server.holds.clear()

    second = Process(temporal_server.address, server, job, log)
    try:
        asked = len(server.requests)
        until(lambda: any(path.endswith(only(server)["id"]) for _, path in server.requests[asked:]), 90)
        server.end()

        async def result() -> dict[str, Any]:
            return await asyncio.wait_for(signalled(await again(handle, temporal_server.address)), 60)

        assert asyncio.run(result())["signals"] == 1
        assert only(server)["state"]["current"] == "SUCCESS"
        assert [method for method, _ in server.requests].count("POST") == 1
    finally:
        second.process.terminate()
        second.process.wait(60)
    assert PASSWORD not in log.read_text()


def test_a_worker_that_is_stopped_leaves_the_execution_to_the_next_one(server, temporal_server, file, tmp_path) -> None:
    job, log = uuid.uuid4().hex, tmp_path / "worker.log"
    handle = asyncio.run(start(temporal_server.address, job, file))
    first = Process(temporal_server.address, server, job, log)
    until(lambda: server.executions and server.asked_for(only(server)["id"]))
    first.process.terminate()
    first.process.wait(60)  # its code says nothing: Temporal's SDK may abort while the interpreter ends
    assert only(server)["state"]["current"] == "RUNNING"

    async def take_over() -> dict[str, Any]:
        found = await again(handle, temporal_server.address)
        with ThreadPoolExecutor(1) as threads:
            async with Worker(
                found._client,
                task_queue=job,
                workflows=[Onboarding],
                activities=[SubmitByKestra(settings(server)).submit, next_step],
                activity_executor=threads,
            ):
                server.end()
                return await asyncio.wait_for(signalled(found), 60)

    assert asyncio.run(take_over())["signals"] == 1
    assert only(server)["state"]["current"] == "SUCCESS"


@pytest.fixture
def service(database: str, tmp_path: Path, temporal_server) -> Iterator[Service]:
    """A progress service that signals workflows."""
    started = Service(database, tmp_path / "api.log", TEMPORAL_ADDRESS=temporal_server.address).start()
    yield started
    started.stop()


@pytest.mark.slow
def test_temporal_to_kestra_to_kafka_and_back(job: Job, server: KestraServer, temporal_server, tmp_path) -> None:
    """The whole way of an onboarding: the flow's own commands run, and only the service's signal wakes the workflow."""
    payloads = [msgspec.json.decode(message.value) for message in discord_sample.members(40, job.guild, bad=False)]
    file = tmp_path / "members.json.gz"
    file.write_bytes(gzip.compress(msgspec.json.encode(payloads)))
    given = {
        "KAFKA_BROKERS": job.brokers, "PROGRESS_API_URL": job.service.url, "PROGRESS_API_TOKEN": job.service.token,
        "TOPIC": job.topic, "CONSUMER_GROUP_ID": job.topic,
    }  # fmt: skip

    def run_flow(inputs: dict[str, str], content: bytes) -> str:
        done = run_task(tmp_path / "task", content, {**given, **rendered(inputs), "FLOW": "tests.faults.members"})
        return "FAILED" if done.returncode else "SUCCESS"

    server.on_start = run_flow
    job.fleet.start()

    outcome = run(temporal_server.address, settings(server), file, lambda handle: handle.result())

    assert (outcome["signals"], outcome["next_step"]) == (1, "welcome 40 members")
    assert outcome["signal"]["job_id"] == only(server)["inputs"]["job_id"]
    assert job.rows() == 40


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KESTRA_PASSWORD", PASSWORD)
    assert PASSWORD not in repr(KestraSettings(_env_file=None))
    monkeypatch.setenv("KESTRA_URL", f"http://me:{PASSWORD}@127.0.0.1:8080")
    with pytest.raises(ValueError) as refused:
        KestraSettings(_env_file=None)
    assert PASSWORD not in str(refused.value)
