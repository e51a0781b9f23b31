"""Dead letters replayed on real servers: rows are there, counts have moved, whatever happened on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataflows import discord_sample
from tests.faults.conftest import FAILED, SKIPPED, Job
from tests.faults.harness import ROOT, Fleet, Group, ends, eventually, query, read_all, send
from tests.servers.command import lovelace

FLOW = "tests.faults.members"
MENDED = 5
"""Of the sample's bad items those that the database refuses: they pass once its rules are gone."""


def place(job: Job) -> dict[str, str]:
    """What the commands are told."""
    return {**job.fleet.environment, "PROGRESS_API_URL": job.service.url, "PROGRESS_API_TOKEN": job.service.token}


def replay(job: Job, *arguments: str) -> tuple[dict, list[list[str]]]:
    """The last line of the command, and its table."""
    done = lovelace(ROOT, place(job), "dlq", "replay", FLOW, *arguments)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    return json.loads(last), [line.split("\t") for line in table]


def replays(job: Job) -> list:
    return read_all(job.brokers, f"{job.topic}.replay")


def signals(job: Job) -> int:
    [(count,)] = query(job.database, "select count(*) from lovelace.outbox where job_id = %s", job.job_id)
    return count


def finished(job: Job, total: int) -> None:
    """A job of `total` items has run to its end."""
    job.open(total, workflow_id="waits")
    job.fleet.start()
    job.submit(total)
    eventually(job.done)


def mend(job: Job) -> None:
    """The rules that refused are gone."""
    for statement in (
        "alter table discord_members drop constraint name_length, drop constraint one_picture_each",
        "alter table discord_members alter username drop not null",
        "drop trigger impostors on discord_members",
        "insert into discord_guilds values (1)",
    ):
        query(job.database, statement)


@pytest.mark.slow
def test_what_was_mended_is_written_and_counted_and_what_was_not_comes_back(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord_sample, "BIG", 2 * 1024 * 1024)  # more than a topic takes by default
    finished(job, 300)
    before = job.state
    stranger = {"lovelace-origin": f"another-id/{job.topic}/0/1".encode(), "lovelace-failed-items": b"0-0:check"}
    send(job.brokers, f"{job.topic}.dlq", [(b"k", b"{}")], headers=list(stranger.items()))
    mend(job)

    told, table = replay(job, "--dry-run")
    assert (told["items"], told["sent"], told["left_out"]) == (FAILED, 0, {"void": 1})
    assert ["void", "check", "1", "1"] in table
    assert {row[1]: row[3] for row in table if row[0] == "replay"}["check"] == "1"
    assert replays(job) == []
    assert job.state == before

    told, _ = replay(job)
    assert told["sent"] == told["letters"]
    eventually(lambda: job.state["failed"] == FAILED - MENDED)
    sent = {dict(message.headers())["lovelace-replays"] for message in replays(job)}
    assert sent == {b"1"}
    eventually(lambda: Group(job.brokers, job.topic).committed(f"{job.topic}.replay", 1) == [told["sent"]])
    state = job.state
    assert state["succeeded"] == 300 - FAILED - SKIPPED + MENDED
    assert (state["status"], state["completed_at"], signals(job)) == ("completed", before["completed_at"], 1)
    assert job.rows() + 1 == state["succeeded"], "one of the mended is of another guild"
    assert len(job.dead_letters()) == FAILED, "a letter and its replay's letter are one, by origin"

    told, table = replay(job, "--max-replays", "1")
    assert (told["letters"], told["left_out"]["resolved"], told["left_out"]["void"]) == (0, MENDED, 1)
    assert sum(int(items) for fate, _, _, items in table if fate == "max_replays") == FAILED - MENDED

    told, _ = replay(job, "--reason", "not_utf8")
    assert (told["letters"], told["sent"]) == (1, 1)
    assert [dict(m.headers())["lovelace-replays"] for m in replays(job)[-1:]] == [b"2"]
    none = lovelace(ROOT, place(job), "dlq", "replay", FLOW, "--job", "another")
    assert none.returncode == 1
    assert "none of the" in none.stderr


@pytest.mark.slow
def test_a_replay_that_was_killed_is_repeated(job: Job) -> None:
    query(job.database, "alter table discord_members add constraint fifth check (user_id % 5 <> 0)")
    job.open(200, workflow_id="waits")
    job.fleet.start()
    job.submit(200, bad=False)
    eventually(job.done)
    failed = job.state["failed"]
    assert failed == 40
    query(job.database, "alter table discord_members drop constraint fifth")

    command = [sys.executable, "-m", "lovelace_streams", "dlq", "replay", FLOW, "--rate", "5"]
    running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **place(job)})
    eventually(lambda: _end(job) >= 3)
    running.kill()
    running.wait()
    told, _ = replay(job, "--rate", "1000")

    assert told["sent"] > 0
    assert told["left_out"].get("replayed", 0) + told["left_out"].get("resolved", 0) >= 3
    eventually(lambda: job.state["failed"] == 0)
    assert (job.state["succeeded"], job.rows(), signals(job)) == (200, 200, 1)
    origins = [dict(message.headers())["lovelace-origin"] for message in replays(job)]
    assert len(set(origins)) <= failed
    told, _ = replay(job, "--again")
    eventually(lambda: Group(job.brokers, job.topic).committed(f"{job.topic}.replay", 1) == [_end(job)])
    assert (job.state["succeeded"], job.state["failed"], job.rows(), signals(job)) == (200, 0, 200, 1)


def _end(job: Job) -> int:
    return ends(job.brokers, f"{job.topic}.replay", 1)[0]


@pytest.fixture
def values(brokers: str, database: str, make_topic, tmp_path: Path):
    """A flow of rows without version and without jobs: `put(key, value)…`, and what is stored."""
    topic = make_topic(partitions=1)
    environment = {
        "KAFKA_BROKERS": brokers,
        "POSTGRES_DSN": database,
        "TOPIC": topic,
        "CONSUMER_GROUP_ID": topic,
        "PROGRESS_API_URL": "",
    }
    query(database, "create table key_value (key bigint primary key, value bigint not null)")
    query(database, "alter table key_value add constraint small check (value < 100)")
    with Fleet("tests.faults.keyvalue", environment, tmp_path) as fleet:
        yield Values(brokers, database, topic, fleet)


class Values:
    def __init__(self, brokers: str, database: str, topic: str, fleet: Fleet) -> None:
        self.brokers, self.database, self.topic, self.fleet = brokers, database, topic, fleet

    def put(self, *pairs: tuple[int, int]) -> None:
        payloads = [(str(key).encode(), json.dumps({"key": key, "value": value}).encode()) for key, value in pairs]
        send(self.brokers, self.topic, payloads)
        if self.fleet.workers:
            self.settled(self.topic)

    def settled(self, topic: str) -> None:
        group = Group(self.brokers, self.topic)
        eventually(lambda: group.committed(topic, 1) == ends(self.brokers, topic, 1))

    @property
    def stored(self) -> dict[int, int]:
        return dict(query(self.database, "select key, value from key_value"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return lovelace(ROOT, self.fleet.environment, *arguments)


@pytest.mark.slow
def test_a_replay_never_overwrites_newer_with_older(values: Values) -> None:
    values.fleet.start()
    values.put((1, 500), (1, 7), (2, 500), (3, 600), (3, 700))
    assert values.stored == {1: 7}
    query(values.database, "alter table key_value drop constraint small")
    values.put((2, 8))

    done = values.run("dlq", "replay", "tests.faults.keyvalue")

    assert done.returncode == 0, done.stderr
    assert "nobody can tell" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["sent"] == 4
    values.settled(f"{values.topic}.replay")
    assert values.stored == {1: 7, 2: 8, 3: 700}, "of two letters of one key the newer one"
    again = values.run("dlq", "replay", "tests.faults.keyvalue")
    assert json.loads(again.stdout.splitlines()[-1])["left_out"] == {"replayed": 4}


@pytest.mark.slow
def test_a_replay_that_fails_throughout_stops_nobody(values: Values) -> None:
    """Its records were refused before: that says nothing of the deployment."""
    values.put(*((key, 7 if key % 2 else 500) for key in range(2400)))
    worker = values.fleet.start()
    values.settled(values.topic)

    done = values.run("dlq", "replay", "tests.faults.keyvalue")

    assert json.loads(done.stdout.splitlines()[-1])["sent"] == 1200
    values.settled(f"{values.topic}.replay")
    assert worker.process.poll() is None
    replayed = values.run("dlq", "replay", "tests.faults.keyvalue", "--max-replays", "1")
    assert json.loads(replayed.stdout.splitlines()[-1])["left_out"] == {"max_replays": 1200}


def test_only_what_is_asked_for_goes(values: Values) -> None:
    values.fleet.start()
    values.put((1, 101), (2, 7), (3, 103), (4, 104), (5, 105))

    def chosen(*arguments: str) -> tuple[int, dict[str, int]]:
        done = values.run("dlq", "replay", "tests.faults.keyvalue", "--dry-run", *arguments)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        return told["letters"], told["left_out"]

    where = ("--origin-topic", values.topic, "--partition", "0", "--offsets", "2-3")
    assert chosen("--reason", "check", "--step", "upsert", *where) == (2, {"filtered": 2})
    assert chosen("--since", "-1h", "--until", "2100-01-01T00:00:00Z", "--limit", "3") == (3, {"over_limit": 1})
    refused = values.run("dlq", "replay", "tests.faults.keyvalue", "--since", "yesterday")
    assert refused.returncode == 78
    [line] = refused.stderr.splitlines()
    assert "--since 'yesterday' is no time" in line


def test_before_the_first_letter_and_without_a_broker(values: Values) -> None:
    listed = values.run("dlq", "list", "tests.faults.keyvalue")
    assert (listed.returncode, listed.stdout, "no dead letters" in listed.stderr) == (0, "", True)
    replayed = values.run("dlq", "replay", "tests.faults.keyvalue")
    assert (replayed.returncode, json.loads(replayed.stdout)["letters"]) == (0, 0)
    missing = values.run("dlq", "show", "tests.faults.keyvalue", "--topic", "nowhere")
    assert missing.returncode == 78
    assert "has no topic 'nowhere'" in missing.stderr
    nobody = values.fleet.environment | {"KAFKA_BROKERS": "127.0.0.1:1"}
    for command in ("list", "replay"):
        away = lovelace(ROOT, nobody, "dlq", command, "tests.faults.keyvalue")
        assert away.returncode == 75
        [line] = away.stderr.splitlines()
        assert "the broker 127.0.0.1:1" in line
