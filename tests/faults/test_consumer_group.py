"""The consumer-group source alone: a table without versions, no mapping, no jobs; rebalances, outages, drains.

Each run ends with a bad last record and silence: whatever waits for "the next list" would never happen. Messages pass
as columns, and where a test says so also as items, through a step of the flow's own.
"""

import json
import signal
import time
from pathlib import Path

import psycopg
import pytest

from tests.faults.harness import WAY, Fleet, Group, ends, eventually, query, read_all, send

BY_COLUMNS, BY_ITEMS = "tests.faults.keyvalue_columns", "tests.faults.keyvalue"
KEYS = 200
TABLE = "create table key_value (key bigint primary key, value bigint not null check (value <> 13))"


both_ways = pytest.mark.parametrize("run", [BY_COLUMNS, BY_ITEMS], indirect=True)


@pytest.fixture
def run(request: pytest.FixtureRequest, brokers: str, database: str, make_topic, tmp_path: Path):
    """A topic, a table, and workers to start on them; they tell which way their messages went."""
    module = getattr(request, "param", BY_COLUMNS)
    topic = make_topic(partitions=3)
    query(database, TABLE)
    environment = {
        "KAFKA_BROKERS": brokers,
        "POSTGRES_DSN": database,
        "TOPIC": topic,
        "FLOW": topic,
        "PROGRESS_API_URL": "",
        "KAFKA_SESSION_TIMEOUT_MS": "6000",
        "KAFKA_MAX_POLL_INTERVAL_MS": "10000",
        "POSTGRES_WRITE_SECONDS": "5",
    }
    with Fleet(module, environment, tmp_path) as fleet:
        yield Run(brokers, database, topic, fleet)
        assert fleet.ways() == {"items" if module == BY_ITEMS else WAY}


class Run:
    def __init__(self, brokers: str, database: str, topic: str, fleet: Fleet) -> None:
        self.brokers = brokers
        self.database = database
        self.topic = topic
        self.fleet = fleet
        self.group = Group(brokers, topic)
        self.sent = 0
        self.committed = [0, 0, 0]

    def send(self, count: int) -> None:
        """The next values, each key's growing with the offset of its partition."""
        numbers = range(self.sent + 100, self.sent + 100 + count)
        pairs = ((str(n % KEYS).encode(), json.dumps({"key": n % KEYS, "value": n}).encode()) for n in numbers)
        send(self.brokers, self.topic, pairs)
        self.sent += count

    def send_bad_last_records(self) -> None:
        """One that decode refuses, one that the database refuses."""
        send(self.brokers, self.topic, [(b"bad", b"{not json"), (b"bad2", b'{"key": 100000, "value": 13}')])

    def look(self) -> None:
        """The group offset never goes back."""
        now = self.group.committed(self.topic)
        assert all(new >= old for new, old in zip(now, self.committed, strict=True)), (self.committed, now)
        self.committed = now

    def done(self) -> bool:
        self.look()
        return self.committed == ends(self.brokers, self.topic)

    def check(self) -> None:
        """The table equals the topic's last values; two letters, each once by origin."""
        last = {n % KEYS: n for n in range(100, 100 + self.sent)}
        assert dict(query(self.database, "select key, value from key_value")) == last
        read = [dict(message.headers()) for message in read_all(self.brokers, f"{self.topic}.dlq")]
        letters = {headers["lovelace-origin"]: headers for headers in read}
        assert sorted(h["lovelace-reason"].decode() for h in letters.values()) == ["check", "not_json"]


@both_ways
def test_silence_after_a_bad_last_record(run: Run) -> None:
    worker = run.fleet.start()
    run.send(1000)
    run.send_bad_last_records()

    eventually(run.done)

    run.check()
    assert worker.terminate()[0] == 0


@pytest.mark.slow
def test_workers_that_join_and_leave_every_three_seconds(run: Run) -> None:
    workers = [run.fleet.start()]
    began = time.monotonic()
    next_change = began + 3
    while time.monotonic() < began + 24:
        run.send(500)
        run.look()
        if time.monotonic() >= next_change:
            next_change += 3
            if len(workers) == 1:
                workers.append(run.fleet.start())
            else:
                eventually(lambda: bool(workers[0].events("assigned")))  # before that, SIGTERM ends it without a drain
                assert workers.pop(0).terminate()[0] == 0
    run.send_bad_last_records()

    eventually(run.done)

    run.check()


@pytest.mark.slow
def test_a_frozen_database_costs_neither_membership_nor_order(run: Run, postgres_server) -> None:
    first = run.fleet.start()
    run.send(2000)
    eventually(lambda: query(run.database, "select count(*) from key_value") == [(KEYS,)])
    postgres_server.freeze()
    try:
        run.send(2000)
        time.sleep(10)
        second = run.fleet.start()  # a worker joins meanwhile: the rebalance must not wait for the database
        time.sleep(20)  # three times max.poll.interval.ms
    finally:
        postgres_server.thaw()
    run.send(1000)
    eventually(run.done)
    second.terminate()  # what the first gave up while it was paused comes back, and is read
    run.send(1000)
    run.send_bad_last_records()

    eventually(run.done)

    run.check()
    assert first.events("lost") == []
    assert first.process.poll() is None


@both_ways
def test_a_killed_worker_is_taken_over(run: Run) -> None:
    first = run.fleet.start()
    run.send(3000)
    eventually(lambda: query(run.database, "select count(*) > 0 from key_value") == [(True,)])
    first.kill()
    run.fleet.start()
    run.send(1000)
    run.send_bad_last_records()

    eventually(run.done)

    run.check()


WAITING = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["another joins", "it is killed", "it is frozen"])
def test_an_assignment_ends_in_the_middle_of_a_chunk(run: Run, how: str) -> None:
    """A part of the chunk is settled, its next block is being written, the rest waits behind it."""
    first = run.fleet.start()
    run.send(3000)
    eventually(lambda: any(run.group.committed(run.topic)))
    with psycopg.connect(run.database) as locking:
        locking.execute("lock table key_value in exclusive mode")
        run.send(20_000)
        eventually(lambda: query(run.database, WAITING) == [(True,)])
        if how == "it is killed":
            first.kill()
        elif how == "it is frozen":
            first.process.send_signal(signal.SIGSTOP)
        second = run.fleet.start()
        eventually(lambda: bool(second.events("assigned")))
        locking.rollback()
    run.send(1000)
    if how == "it is frozen":
        eventually(lambda: run.look() or sum(run.committed) > 3000)  # noqa: PLR2004 - by the second one
        first.process.send_signal(signal.SIGCONT)
    run.send_bad_last_records()

    eventually(run.done)

    run.check()
    assert second.process.poll() is None


def test_sigterm_drains_while_the_database_is_frozen(run: Run, postgres_server) -> None:
    worker = run.fleet.start()
    run.send(100)
    eventually(run.done)
    postgres_server.freeze()
    try:
        run.send(1000)
        eventually(lambda: worker.process.poll() is None)
        time.sleep(2)
        code, _ = worker.terminate()  # the database answers nothing for as long as this takes
    finally:
        postgres_server.thaw()
    assert code == 0


HARMING = """
create function harm() returns trigger language plpgsql as
  $$begin if new.value = 66 then perform pg_sleep(60); end if; return new; end$$;
create trigger harm before insert or update on key_value for each row execute function harm();
"""


@pytest.mark.slow
def test_a_first_record_that_harms_the_database_stops_nobody(run: Run) -> None:
    query(run.database, HARMING)
    worker = run.fleet.start(POSTGRES_WRITE_SECONDS="1", LOG_LEVEL="DEBUG")  # which shows every try
    send(run.brokers, run.topic, [(b"harm", b'{"key": 100001, "value": 66}')])
    eventually(lambda: len(worker.events("waiting for the destination")) >= 6)  # alone, it could as well be an outage
    assert read_all(run.brokers, f"{run.topic}.dlq") == []

    send(run.brokers, run.topic, [(b"harm", b'{"key": 100002, "value": 1}')])

    eventually(run.done)
    assert query(run.database, "select key from key_value") == [(100002,)]
    [letter] = read_all(run.brokers, f"{run.topic}.dlq")
    assert dict(letter.headers())["lovelace-reason"] == b"harms_destination"
