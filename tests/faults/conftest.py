"""A progress service as its own process, and a job to run against it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from dataflows import discord_sample
from lovelace_streams.admin.submit import produce
from lovelace_streams.dead_letters.reader import read_letters
from lovelace_streams.local.processes import free_port
from lovelace_streams.settings import KafkaSettings, ProgressSettings, Settings
from lovelace_streams.submit import open_job
from lovelace_streams.writers.postgres.ddl import create_table
from tests.faults.harness import DEADLINE, ROOT, Fleet, eventually, query


class Service:
    """`python -m lovelace_streams.api`, to be stopped and started."""

    def __init__(self, database: str, log: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = uuid4().hex
        self.log = log
        self.environment = {
            "POSTGRES_DSN": database,
            "PROGRESS_API_TOKEN": self.token,
            "API_PORT": str(self.port),
            "TEMPORAL_ADDRESS": "",
            **settings,
        }
        self.process: subprocess.Popen | None = None

    def start(self) -> "Service":
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lovelace_streams.api"],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=file,
                stderr=file,
            )
        eventually(self.ready)
        return self

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=2).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE)
            self.process = None

    def job(self, job_id: str) -> dict | None:
        headers = {"authorization": f"Bearer {self.token}"}
        try:
            answer = httpx.get(f"{self.url}/jobs/{job_id}", headers=headers, trust_env=False, timeout=5)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Service]:
    """A progress service on the test's own database."""
    started = Service(database, tmp_path / "api.log").start()
    yield started
    started.stop()
    print("--- api.log", started.log.read_text(errors="replace")[-3000:], sep="\n")


class Job:
    """Members on their way: a topic, a table, workers, a progress service, and what must be true in the end."""

    def __init__(self, brokers: str, database: str, service: Service, topic: str, fleet: Fleet) -> None:
        self.brokers = brokers
        self.database = database
        self.service = service
        self.topic = topic
        self.fleet = fleet
        self.job_id = f"job-{uuid4().hex[:8]}"
        self.guild = uuid4().int % 10**17
        self.progress = ProgressSettings(service.url, service.token)
        query(database, "create schema if not exists public")
        with_rules = discord_sample.setup(create_table(*discord_sample.ROWS), self.guild)
        for statement in [with_rules]:
            query(database, statement)

    def open(self, total: int, **more) -> dict:
        return open_job(
            self.progress,
            {"job_id": self.job_id, "source": "discord", "total_items": total, "pipelines": [self.topic], **more},
        )

    def submit(self, total: int, *, attempt: int = 1, bad: bool = True, items: int | None = None) -> list:
        """Produce the first `items` (all, by default) of `total` items."""
        messages = []
        left = total if items is None else items
        for message in discord_sample.members(total, self.guild, bad=bad):
            if left <= 0:
                break
            left -= message.items
            messages.append(message)
        produce(KafkaSettings(self.brokers), self.topic, messages, job=self.job_id, attempt=attempt)
        return messages

    @property
    def state(self) -> dict:
        return self.service.job(self.job_id) or {"status": "unknown", "succeeded": 0, "failed": 0, "skipped": 0}

    def done(self) -> bool:
        for worker in self.fleet.workers:
            assert worker.process.poll() in {None, 0, -9, -15}, worker.log.read_text()[-3000:]
        return self.state["status"] == "completed"

    def processed(self) -> int:
        state = self.state
        return state["succeeded"] + state["failed"] + state["skipped"]

    def rows(self) -> int:
        [(count,)] = query(self.database, discord_sample.count_rows(self.guild))
        return count

    def dead_letters(self) -> list[tuple[int, str]]:
        """Failed items of this job, by distinct origin."""
        settings = Settings(kafka_brokers=self.brokers, _env_file=None)
        letters = [each for each in read_letters(settings, f"{self.topic}.dlq") if each.job == self.job_id]
        return [item for letter in letters for item in letter.items]

    def check(self, total: int, failed: int, skipped: int) -> None:
        """Rows, counts and letters are exact, and stay so."""
        state = self.state
        assert (state["failed"], state["skipped"]) == (failed, skipped), state
        assert state["succeeded"] == total - failed - skipped
        assert self.rows() == state["succeeded"]
        if failed:
            assert len(self.dead_letters()) == failed


REASONS = {
    "not_utf8": 1,
    "not_json": 12,  # ten of them in one broken chunk
    "too_deep": 1,
    "out_of_range": 1,
    "bad_value": 3,
    "missing": 2,
    "null": 1,
    "wrong_type": 1,
    "check": 1,
    "not_null": 1,
    "foreign_key": 1,
    "refused": 1,  # by the trigger
    "unique": 1,
}
"""Why the sample's bad items fail (`discord_sample.bad_messages` and what surrounds them), and how many of each."""
FAILED, SKIPPED = sum(REASONS.values()), 1


@pytest.fixture
def job(brokers: str, database: str, service: Service, make_topic, tmp_path: Path) -> Iterator[Job]:
    """A members job that is not submitted yet."""
    topic = make_topic(partitions=3, **{"max.message.bytes": str(64 * 1024 * 1024)})
    environment = {
        "KAFKA_BROKERS": brokers,
        "POSTGRES_DSN": database,
        "TOPIC": topic,
        "CONSUMER_GROUP_ID": topic,
        "PROGRESS_API_URL": service.url,
        "PROGRESS_API_TOKEN": service.token,
        "KAFKA_SESSION_TIMEOUT_MS": "6000",
        "KAFKA_MAX_POLL_INTERVAL_MS": "10000",
        "POSTGRES_WRITE_SECONDS": "5",
        "POLL_SIZE": "50",
    }
    with Fleet("tests.faults.members", environment, tmp_path) as fleet:
        yield Job(brokers, database, service, topic, fleet)
