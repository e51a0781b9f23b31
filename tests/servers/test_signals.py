"""One signal wakes a workflow once, however often it is delivered, on Temporal's test server."""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import psycopg
import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from dataflows.onboarding import Onboarding, activities
from lovelace_streams.api import ApiSettings
from lovelace_streams.api.app import ProgressService
from lovelace_streams.local.processes import free_port
from tests.servers.service import part, ready, report, running, until


@pytest.fixture
def service(database, temporal_server):
    with running(database, temporal_address=temporal_server.address, signal_grace=0.6) as client:
        yield ready(client)


@pytest.fixture
def job():
    return uuid.uuid4().hex


@asynccontextmanager
async def sleeping(address, job, steps):
    """A workflow that has submitted and sleeps, a worker that runs it; `steps` gets each next step taken."""
    client = await Client.connect(address)
    submitted = asyncio.Event()
    loop = asyncio.get_running_loop()

    def submit(_job, _workflow):
        loop.call_soon_threadsafe(submitted.set)
        return 0

    submitting, taking = activities(submit)

    async with Worker(
        client,
        task_queue=job,
        workflows=[Onboarding],
        activities=[submitting, _noting(taking, steps)],
        activity_executor=ThreadPoolExecutor(2),
    ):
        handle = await client.start_workflow(Onboarding.run, job, id=job, task_queue=job)
        await asyncio.wait_for(submitted.wait(), 30)
        yield handle


def _noting(taking, steps):
    from temporalio import activity

    @activity.defn(name="next_step")
    def next_step(signal):
        steps.append(signal["signal_id"])
        return taking(signal)

    return next_step


def wake(address, job, work):
    """Have `work` done while a workflow sleeps; what the workflow answers, and the steps that it took."""
    steps = []

    async def run():
        async with sleeping(address, job, steps) as handle:
            assert await handle.query(Onboarding.signals) == 0
            await asyncio.to_thread(work)
            return await asyncio.wait_for(handle.result(), 30)

    return asyncio.run(run()), steps


def test_a_completed_job_wakes_its_workflow_once(service, temporal_server, job):
    def work():
        service.post("/jobs", json={"job_id": job, "source": "discord", "workflow_id": job, "total_items": 3})
        service.post("/progress", json=report(part(0, 1, job), part(2, 2, job, succeeded=0, skipped=1)))

    outcome, steps = wake(temporal_server.address, job, work)

    payload = {"signal_id": f"{job}#1", "job_id": job, "source": "discord", "succeeded": 2, "failed": 0, "skipped": 1}
    assert (outcome["signal"], outcome["signals"], steps) == (payload, 1, [f"{job}#1"])
    state = until(lambda: (found := service.get(f"/jobs/{job}").json())["signalled_at"] and found)
    assert (state["signal"], state["status"]) == ("sent", "completed")
    assert service.post(f"/jobs/{job}/signal").status_code == 409, "it is sent: nothing to send again"


def test_a_form_wakes_it_with_the_same_signal(service, temporal_server, job):
    def work():
        service.post("/jobs", json={"job_id": job, "source": "form", "workflow_id": job})
        service.post(f"/jobs/{job}/input-received", json={})

    outcome, steps = wake(temporal_server.address, job, work)
    assert (outcome["signal"]["signal_id"], outcome["signals"], steps) == (f"{job}#1", 1, [f"{job}#1"])


def test_closing_wakes_it(service, temporal_server, job):
    def work():
        service.post("/jobs", json={"job_id": job, "source": "discord", "workflow_id": job, "total_items": 3})
        service.post(f"/jobs/{job}/close", json={"reason": "gone"})

    assert wake(temporal_server.address, job, work)[0]["signal"]["succeeded"] == 0


def test_a_signal_delivered_twice_has_its_effect_once(service, database, temporal_server, job):
    """A sender that dies between Temporal's answer and its mark sends again: the row is as if it had not been sent."""

    async def run():
        client = await Client.connect(temporal_server.address)
        handle = await client.start_workflow(Onboarding.run, job, id=job, task_queue=job)  # nobody runs it yet
        await asyncio.to_thread(deliver_twice)
        steps = []
        submitting, taking = activities(lambda _job, _workflow: 0)
        async with Worker(
            client,
            task_queue=job,
            workflows=[Onboarding],
            activities=[submitting, _noting(taking, steps)],
            activity_executor=ThreadPoolExecutor(2),
        ):
            outcome = await asyncio.wait_for(handle.result(), 30)
            history = [event async for event in handle.fetch_history_events()]
            delivered = [event for event in history if event.HasField("workflow_execution_signaled_event_attributes")]
            return outcome, steps, len(delivered)

    def deliver_twice():
        service.post("/jobs", json={"job_id": job, "source": "discord", "workflow_id": job, "total_items": 0})
        for _ in range(2):
            until(lambda: service.get(f"/jobs/{job}").json()["signal"] == "sent")
            with psycopg.connect(database, autocommit=True) as conn:
                conn.execute("update lovelace.outbox set state = 'pending', due_at = now() where tries = 1")
        until(lambda: service.get(f"/jobs/{job}").json()["signal"] == "sent")

    outcome, steps, delivered = asyncio.run(run())
    assert (outcome["signals"], steps, delivered) == (1, [f"{job}#1"], 2)


def test_an_unknown_workflow_is_undeliverable_and_can_be_sent_again(service, temporal_server, job):
    service.post("/jobs", json={"job_id": job, "source": "discord", "workflow_id": job, "total_items": 0})
    assert service.get(f"/jobs/{job}").json()["signal"] == "pending"
    until(lambda: service.get(f"/jobs/{job}").json()["signal"] == "undeliverable")
    assert 'lovelace_signals{state="undeliverable"} 1.0' in service.get("/metrics").text
    state = service.get(f"/jobs/{job}").json()
    assert (state["status"], state["signalled_at"]) == ("completed", None)

    outcome, _ = wake(temporal_server.address, job, lambda: service.post(f"/jobs/{job}/signal"))
    assert outcome["signals"] == 1


def test_a_dead_workflow_holds_up_nobody(service, temporal_server, job):
    for n in range(30):
        opening = {"job_id": f"{job}.{n}", "source": "s", "workflow_id": f"{job}.none", "total_items": 0}
        service.post("/jobs", json=opening)

    def work():
        service.post("/jobs", json={"job_id": job, "source": "s", "workflow_id": job, "total_items": 0})

    assert wake(temporal_server.address, job, work)[0]["signals"] == 1


def test_the_service_serves_while_temporal_is_away(database, temporal_server, job):
    opening = {"job_id": job, "source": "s", "workflow_id": job, "total_items": 1}
    with running(database, temporal_address=f"127.0.0.1:{free_port()}", signal_grace=0.1) as client:
        assert ready(client).post("/jobs", json=opening).status_code == 201
        [state] = client.post("/progress", json=report(part(0, 0, job))).json()["jobs"]
        assert state["status"] == "completed"
        with psycopg.connect(database, autocommit=True) as conn:
            until(lambda: conn.execute("select tries > 1 from lovelace.outbox").fetchone()[0])
        assert client.get(f"/jobs/{job}").json()["signal"] == "pending", "away is not unknown"

    def back():
        with running(database, temporal_address=temporal_server.address) as client:
            until(lambda: ready(client).get(f"/jobs/{job}").json()["signal"] == "sent")

    assert wake(temporal_server.address, job, back)[0]["signals"] == 1


def test_a_job_that_nobody_waits_for_signals_nobody(service, job):
    service.post("/jobs", json={"job_id": job, "source": "s", "total_items": 0})
    state = service.get(f"/jobs/{job}").json()
    assert (state["status"], state["signal"], state["signalled_at"]) == ("completed", None, None)


def test_back_off_doubles_to_its_bound():
    settings = ApiSettings(dsn="", token="t", signal_backoff_max=60)
    seconds = ProgressService(settings, signaller=object()).outbox.backoff.seconds
    assert 0.25 <= seconds(1) <= 0.5
    assert 2 <= seconds(4) <= 4
    assert 30 <= seconds(10_000) <= 60
