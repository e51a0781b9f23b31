"""The commands of the Kestra flow, as its runner gives them to a shell: inputs and secrets are variables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import yaml

from dataflows import discord_sample
from tests.faults.conftest import Job
from tests.faults.harness import ROOT, eventually

TASK = yaml.safe_load((ROOT / "deploy" / "kestra" / "submit.yaml").read_text())["tasks"][0]


def test_a_file_is_submitted_as_a_job_and_reported(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "kestra"
    folder.mkdir()
    payloads = [msgspec.json.decode(message.value) for message in discord_sample.members(40, job.guild, bad=False)]
    (folder / "payloads").write_bytes(msgspec.json.encode(payloads))
    (folder / "lovelace").write_text(f'#!/bin/sh\nexec {sys.executable} -m lovelace_streams "$@"\n')
    (folder / "lovelace").chmod(0o700)
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
    environment = {
        **os.environ, **given, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TOPIC": job.topic,
        "CONSUMER_GROUP_ID": job.topic,
    }  # fmt: skip

    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join(TASK["commands"])],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

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
    (tmp_path / "payloads").write_text("[")
    (tmp_path / "lovelace").write_text(f'#!/bin/sh\nexec {sys.executable} -m lovelace_streams "$@"\n')
    (tmp_path / "lovelace").chmod(0o700)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TOPIC": job.topic,
        "FLOW": "tests.faults.members", "JOB": job.job_id, "WORKFLOW": "w", "GUILD": "",
    }  # fmt: skip

    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join(TASK["commands"])],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 78
    assert "::" not in done.stdout
