"""Messages into ClickHouse while workers are killed and the server goes away: rows, counts and letters are exact."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dataflows import discord_messages_sample
from dataflows.discord_messages import SOURCE
from lovelace_streams.admin.submit import produce
from lovelace_streams.dead_letters.reader import read_letters
from lovelace_streams.settings import KafkaSettings, ProgressSettings, Settings
from lovelace_streams.submit import open_job
from lovelace_streams.writers.clickhouse.ddl import create_table
from tests.faults.conftest import FAILED as MEMBERS_FAILED
from tests.faults.conftest import SKIPPED as MEMBERS_SKIPPED
from tests.faults.conftest import Job, Service
from tests.faults.harness import Fleet, eventually
from tests.servers.clickhouse_server import Server

TOTAL = 1000
FAILED, SKIPPED = 13, 1
ASK = """
import json, sys, clickhouse_connect
with clickhouse_connect.get_client(dsn=sys.argv[1], autogenerate_session_id=False) as client:
    print(json.dumps([client.query(query).result_rows for query in json.loads(sys.argv[2])]))
"""


def ask(dsn: str, *queries: str) -> list[list[list]]:
    """What ClickHouse answers, asked by a process of its own: a process opens one folder of the engine."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, dsn, json.dumps(queries)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


class Messages:
    """A job of messages: a topic, a table in a folder of the engine or on a server, workers."""

    def __init__(self, brokers: str, service: Service, topic: str, folder: Path, dsn: str) -> None:
        self.brokers, self.service, self.topic, self.dsn = brokers, service, topic, dsn
        self.job_id, self.guild = f"job-{uuid4().hex[:8]}", uuid4().int % 10**17
        self.fleet = Fleet(
            "tests.faults.messages",
            {
                "KAFKA_BROKERS": brokers,
                "CLICKHOUSE_DSN": dsn,
                "CLICKHOUSE_WRITE_SECONDS": "5",
                "TOPIC": topic,
                "CONSUMER_GROUP_ID": topic,
                "PROGRESS_API_URL": service.url,
                "PROGRESS_API_TOKEN": service.token,
                "KAFKA_SESSION_TIMEOUT_MS": "6000",
                "POLL_SIZE": "25",
            },
            folder,
        )

    def make_table(self) -> None:
        ask(self.dsn, *discord_messages_sample.setup(create_table(*SOURCE.rows), self.guild))

    def open(self, **more: object) -> None:
        job = {"job_id": self.job_id, "source": "discord", "total_items": TOTAL, "pipelines": [self.topic]}
        open_job(ProgressSettings(self.service.url, self.service.token), job | more)

    def submit(self) -> None:
        messages = discord_messages_sample.items(TOTAL, self.guild)
        produce(KafkaSettings(self.brokers), self.topic, messages, job=self.job_id)

    @property
    def state(self) -> dict:
        return self.service.job(self.job_id) or {"status": "unknown", "succeeded": 0, "failed": 0, "skipped": 0}

    def processed(self) -> int:
        state = self.state
        return state["succeeded"] + state["failed"] + state["skipped"]

    def done(self) -> bool:
        for worker in self.fleet.workers:
            assert worker.process.poll() in {None, 0, -9, -15}, worker.log.read_text()[-3000:]
        return self.state["status"] == "completed"

    def letters(self) -> int:
        settings = Settings(kafka_brokers=self.brokers, _env_file=None)
        read = [each for each in read_letters(settings, f"{self.topic}.dlq") if each.job == self.job_id]
        return sum(len(letter.items) for letter in read)

    def check(self, *, members: int = 0, failed: int = 0, skipped: int = 0) -> None:
        """Counts (with those of members in the same job), rows and letters; asks when the engine's worker is gone."""
        state = self.state
        assert (state["failed"], state["skipped"]) == (FAILED + failed, SKIPPED + skipped), state
        assert state["succeeded"] == TOTAL - FAILED - SKIPPED + members
        assert self.letters() == FAILED
        count = discord_messages_sample.count_rows(self.guild)
        [[[rows]], [[messages]]] = ask(self.dsn, count, "SELECT count() FROM discord_messages_now")
        assert rows == state["succeeded"] - members
        assert 0 < messages < rows  # the rest are deletions


@pytest.fixture
def engine(brokers: str, service: Service, make_topic, tmp_path: Path) -> Iterator[Messages]:
    """A job that is not submitted yet, its table in a folder of ClickHouse's engine."""
    made = Messages(brokers, service, make_topic(), tmp_path, f"chdb://{tmp_path / 'clickhouse'}")
    made.make_table()
    with made.fleet:
        yield made


@pytest.fixture
def server(brokers: str, service: Service, make_topic, tmp_path: Path) -> Iterator[tuple[Messages, Server]]:
    """The same over HTTP."""
    clickhouse = Server(tmp_path).start()
    made = Messages(brokers, service, make_topic(), tmp_path, clickhouse.dsn())
    with made.fleet:
        yield made, clickhouse
    clickhouse.stop()


def test_a_server_that_is_away_at_the_start_and_killed_in_mid_job_is_waited_for(
    server: tuple[Messages, Server],
) -> None:
    job, clickhouse = server
    job.make_table()
    clickhouse.stop()
    job.open()
    worker = job.fleet.start(LOG_LEVEL="DEBUG")  # shows every try
    job.submit()
    eventually(lambda: len(worker.events("waiting for the destination")) > 2)
    assert job.processed() == 0
    clickhouse.start()
    eventually(lambda: job.processed() > 0)
    clickhouse.kill()
    clickhouse.start()

    eventually(job.done)
    job.check()


@pytest.mark.slow
def test_a_job_of_two_pipelines_completes_when_both_are_through_though_a_worker_is_killed(
    engine: Messages, job: Job
) -> None:
    """Members go to Postgres, messages to a folder of the engine: an outage of one stops the other in nothing."""
    engine.job_id = job.job_id
    engine.open(total_items=500 + TOTAL, pipelines=[job.topic, engine.topic])
    job.submit(500)
    engine.submit()
    job.fleet.start()
    eventually(lambda: engine.processed() == 500)
    assert engine.state["status"] == "open"

    first = engine.fleet.start()
    eventually(lambda: engine.processed() > 500)
    first.kill()
    last = engine.fleet.start()
    eventually(engine.done)

    assert last.terminate(30)[0] == 0
    engine.check(members=job.rows(), failed=MEMBERS_FAILED, skipped=MEMBERS_SKIPPED)
    assert job.rows() == 500 - MEMBERS_FAILED - MEMBERS_SKIPPED
