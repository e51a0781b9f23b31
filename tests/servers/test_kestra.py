"""The commands of the Kestra flow, as its runner gives them to a shell: inputs and secrets are variables."""

import json
from pathlib import Path

import msgspec

from dataflows import discord_sample
from tests.faults.conftest import Job
from tests.faults.harness import eventually
from tests.servers.kestra import TASK, run_task


def test_a_file_is_submitted_as_a_job_and_reported(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "kestra"
    payloads = [msgspec.json.decode(message.value) for message in discord_sample.members(40, job.guild, bad=False)]
    given = {
        "KAFKA_BROKERS": job.brokers,
        "PROGRESS_API_URL": job.service.url,
        "PROGRESS_API_TOKEN": job.service.token,
        "FLOW": "tests.faults.members",
        "JOB": job.job_id,
        "WORKFLOW": "w $(touch run-by-a-shell)",
        "GUILD": "",
    }
    assert given.keys() == TASK["env"].keys()

    done = run_task(
        folder, msgspec.json.encode(payloads), {**given, "TOPIC": job.topic, "CONSUMER_GROUP_ID": job.topic}
    )

    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("::")
    assert last.endswith("::")
    assert json.loads(last[2:-2])["outputs"] == {"job_id": job.job_id, "attempt": 1, "total_items": 40}
    assert job.state["workflow_id"] == given["WORKFLOW"]
    assert not (folder / "run-by-a-shell").exists()
    job.fleet.start()
    eventually(job.done)
    assert job.rows() == 40


def test_what_can_not_be_submitted_fails_the_flow(job: Job, tmp_path: Path) -> None:
    given = {"TOPIC": job.topic, "FLOW": "tests.faults.members", "JOB": job.job_id, "WORKFLOW": "w", "GUILD": ""}

    done = run_task(tmp_path / "kestra", b"[", given)

    assert done.returncode == 78
    assert "::" not in done.stdout
