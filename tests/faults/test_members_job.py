"""The members job under faults, on real servers: rows, counts, letters and completion are exact every time."""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from dataflows import discord_sample
from tests.faults.conftest import FAILED, REASONS, SKIPPED, Job
from tests.faults.harness import WAY, Group, ends, eventually, query, read_all

TOTAL = 3000


@pytest.fixture(autouse=True)
def goes_its_way(job: Job) -> Iterator[None]:
    """Hold every fault here to have met the way that is meant: columns, unless the environment forbids them."""
    yield
    assert job.fleet.ways() == {WAY}


def test_a_job_is_exact(job: Job) -> None:
    job.open(TOTAL)
    job.fleet.start()
    job.submit(TOTAL)

    eventually(job.done)

    job.check(TOTAL, FAILED, SKIPPED)


@pytest.mark.slow
def test_a_worker_killed_in_mid_job_and_started_again(job: Job) -> None:
    job.open(TOTAL)
    job.submit(TOTAL)
    for _ in range(3):
        before = job.processed()
        worker = job.fleet.start()
        eventually(lambda: job.processed() > before or job.done())  # noqa: B023
        worker.kill()
    job.fleet.start()

    eventually(job.done)

    job.check(TOTAL, FAILED, SKIPPED)


def test_two_workers_one_killed(job: Job) -> None:
    job.open(TOTAL)
    first = job.fleet.start()
    second = job.fleet.start()
    eventually(lambda: first.events("assigned") and second.events("assigned"))
    job.submit(TOTAL)
    eventually(lambda: job.processed() > 0)
    first.kill()

    eventually(job.done)

    job.check(TOTAL, FAILED, SKIPPED)


def test_progress_before_the_job_is_opened_is_kept(job: Job) -> None:
    job.fleet.start()
    job.submit(500)
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))

    job.open(500)

    eventually(job.done)
    job.check(500, FAILED, SKIPPED)


@pytest.mark.slow
def test_a_submission_that_died_half_way_completes_with_its_second_attempt(job: Job) -> None:
    job.open(TOTAL)
    job.submit(TOTAL, items=TOTAL // 2)
    job.fleet.start()
    eventually(lambda: job.processed() > 0)

    attempt = job.open(TOTAL, restart=True)["attempt"]
    assert attempt == 2
    job.submit(TOTAL, attempt=attempt)

    eventually(job.done)
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))
    state = job.state
    assert (state["attempt"], state["failed"], state["skipped"]) == (2, FAILED, SKIPPED)
    assert state["succeeded"] == TOTAL - FAILED - SKIPPED == job.rows()


def test_the_progress_service_is_away_for_a_while(job: Job) -> None:
    job.open(TOTAL)
    job.fleet.start()
    job.service.stop()
    job.submit(TOTAL)
    eventually(lambda: job.rows() == TOTAL - FAILED - SKIPPED)  # reading goes on
    assert Group(job.brokers, job.topic).committed(job.topic) == [0, 0, 0]

    job.service.start()

    eventually(job.done)
    job.check(TOTAL, FAILED, SKIPPED)


@pytest.mark.slow
def test_postgres_is_gone_for_two_minutes(job: Job, postgres_server) -> None:
    job.open(TOTAL)
    first = job.fleet.start()
    eventually(lambda: first.events("assigned"))
    job.submit(TOTAL // 2, items=200)  # the bad items are among them; under way when it goes
    postgres_server.stop()
    try:
        job.submit(TOTAL)
        time.sleep(20)
        second = job.fleet.start()  # a worker joins meanwhile
        time.sleep(100)
    finally:
        postgres_server.start()

    eventually(lambda: second.events("assigned"))
    eventually(job.done)
    assert first.events("lost") == []
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))
    letters = Counter(reason for _, reason in job.dead_letters())
    assert letters == {reason: 2 * count for reason, count in REASONS.items()}  # sent twice; no row harmed the database
    assert job.rows() == TOTAL - FAILED - SKIPPED


@pytest.mark.slow
def test_the_broker_is_restarted(job: Job, kafka_server) -> None:
    job.open(TOTAL)
    job.fleet.start()
    sent = job.submit(TOTAL, items=TOTAL // 2)
    kafka_server.restart()
    sent += job.submit(TOTAL)  # once more from the beginning: a second picture of the same members

    eventually(job.done)
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))

    assert job.processed() == sum(message.items for message in sent)
    assert job.rows() == TOTAL - FAILED - SKIPPED


def test_a_topic_made_again_under_a_running_worker_counts_again(job: Job) -> None:
    _made_again(job, running=True)


@pytest.mark.slow
def test_a_topic_made_again_while_the_worker_is_stopped_counts_again(job: Job) -> None:
    _made_again(job, running=False)


def _made_again(job: Job, *, running: bool) -> None:
    job.open(300)
    worker = job.fleet.start()
    job.submit(300)
    eventually(job.done)
    if not running:
        worker.terminate()
    admin = AdminClient({"bootstrap.servers": job.brokers})
    admin.delete_topics([job.topic])[job.topic].result(30)
    eventually(lambda: job.topic not in admin.list_topics(timeout=10).topics)
    eventually(lambda: _create(admin, job.topic))

    job.job_id += "-again"
    job.open(300)
    job.submit(300)
    if not running:
        job.fleet.start()

    eventually(job.done)
    state = job.state
    assert (state["failed"], state["skipped"]) == (FAILED, SKIPPED)


def _create(admin: AdminClient, topic: str) -> bool:
    config = {"max.message.bytes": str(64 * 1024 * 1024)}
    try:
        admin.create_topics([NewTopic(topic, 3, config=config)])[topic].result(30)
    except Exception:  # noqa: BLE001 - still being deleted
        return False
    return True


@pytest.mark.slow
def test_a_bad_database_rule_stops_the_worker_and_dead_letters_nothing(job: Job) -> None:
    query(job.database, "alter table discord_members add constraint nobody check (user_id < 0)")
    job.open(2000)
    job.submit(2000, bad=False)  # before the start: letters may go wherever the topic falls silent
    worker = job.fleet.start()

    last = worker.stopped()
    assert "ACCEPT_REFUSALS=check" in last
    assert "nobody" in last
    assert read_all(job.brokers, f"{job.topic}.dlq") == []

    job.fleet.start(ACCEPT_REFUSALS="check")
    eventually(lambda: job.state["status"] == "completed")
    assert job.state["failed"] == 2000


def test_a_missing_table_stops_with_one_line(job: Job) -> None:
    query(job.database, "drop table discord_members")
    worker = job.fleet.start()

    line = worker.stopped()
    assert "discord_members" in line
    assert "lovelace ddl" in line


def test_a_wrong_token_stops_with_one_line(job: Job) -> None:
    worker = job.fleet.start(PROGRESS_API_TOKEN="wrong")
    job.submit(1, bad=False)

    assert "PROGRESS_API_TOKEN" in worker.stopped()


def test_expired_offsets_stop_with_the_way_out(job: Job) -> None:
    from confluent_kafka import TopicPartition

    worker = job.fleet.start()
    job.submit(300, bad=False)
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))
    worker.terminate()
    job.submit(300, bad=False)
    admin = AdminClient({"bootstrap.servers": job.brokers})
    gone = [TopicPartition(job.topic, p, end) for p, end in enumerate(ends(job.brokers, job.topic))]
    for future in admin.delete_records(gone).values():
        future.result(30)

    worker = job.fleet.start()

    assert "--reset-offsets" in worker.stopped()


def test_messages_without_a_job_are_processed_and_counted_under_none(job: Job) -> None:
    from lovelace_streams.admin.submit import produce
    from lovelace_streams.settings import KafkaSettings

    job.open(1)
    job.fleet.start()
    messages = list(discord_sample.members(200, job.guild, bad=False))
    produce(KafkaSettings(job.brokers), job.topic, messages)
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))

    assert job.rows() == 200
    assert job.processed() == 0
