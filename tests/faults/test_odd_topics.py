"""Topics with holes, topics that grow, topics that two pipelines read: nothing is missing and nothing counts twice."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from lovelace_streams.admin.submit import produce
from lovelace_streams.settings import KafkaSettings, ProgressSettings
from lovelace_streams.submit import Outgoing, open_job
from tests.faults.conftest import Service
from tests.faults.harness import Fleet, Group, ends, eventually, query, read_all, send

TABLE = "create table key_value (key bigint primary key, value bigint not null)"


def pair(key: int, value: int) -> tuple[bytes, bytes]:
    """A record of the thinnest flow."""
    return str(key).encode(), json.dumps({"key": key, "value": value}).encode()


class Flow:
    """The thinnest flow with a progress service: workers, their table, and what the ledger covers."""

    def __init__(self, brokers: str, database: str, service: Service, topic: str, folder: Path) -> None:
        query(database, TABLE)
        self.brokers, self.database, self.service, self.topic = brokers, database, service, topic
        environment = {
            "KAFKA_BROKERS": brokers,
            "POSTGRES_DSN": database,
            "TOPIC": topic,
            "FLOW": topic,
            "PROGRESS_API_URL": service.url,
            "PROGRESS_API_TOKEN": service.token,
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
        }
        self.fleet = Fleet("tests.faults.keyvalue", environment, folder)

    def open(self, job: str, total: int, **more: object) -> None:
        """Open a job."""
        settings = ProgressSettings(self.service.url, self.service.token)
        open_job(settings, {"job_id": job, "source": "odd", "total_items": total, **more})

    def submit(self, job: str, count: int) -> None:
        """Produce so many records of a job."""
        messages = [Outgoing(*pair(n, n), 1) for n in range(count)]
        produce(KafkaSettings(self.brokers), self.topic, messages, job=job, attempt=1)

    def rows(self) -> dict[int, int]:
        """The table."""
        return dict(query(self.database, "select key, value from key_value"))

    def committed(self, pipeline: str | None = None, partitions: int = 1) -> list[int]:
        """The group's offsets."""
        return Group(self.brokers, pipeline or self.topic).committed(self.topic, partitions)

    def ends(self, partitions: int = 1) -> list[int]:
        """The ends of the topic."""
        return ends(self.brokers, self.topic, partitions)

    def cover(self) -> list[tuple[int, str]]:
        """What the ledger covers of each partition that has something covered."""
        return query(
            self.database,
            "select partition, offsets::text from lovelace.settled_offsets where offsets <> '{}' order by partition",
        )


@pytest.fixture
def flow(brokers: str, database: str, service: Service, make_topic, tmp_path: Path):
    """Flows on a topic of one partition, unless it is made otherwise."""
    made: list[Fleet] = []

    def make(partitions: int = 1, **config: object) -> Flow:
        topic = make_topic(partitions=partitions, **config)
        new = Flow(brokers, database, service, topic, tmp_path)
        made.append(new.fleet)
        return new

    yield make
    for fleet in made:
        fleet.__exit__()


def test_transactions_leave_no_gap_and_no_lag(flow) -> None:
    odd = flow()
    worker = odd.fleet.start()
    producer = Producer({"bootstrap.servers": odd.brokers, "transactional.id": odd.topic})
    producer.init_transactions(30)
    for n in range(6):
        producer.begin_transaction()
        for key in range(3):
            producer.produce(odd.topic, pair(key, 10 * n + key)[1], str(key))
        producer.flush(30)  # aborting drops what was not sent yet
        (producer.abort_transaction if n % 2 else producer.commit_transaction)(30)

    # the last three records are aborted ones, and after them lies a marker: no record will ever come for them
    eventually(lambda: odd.committed() == odd.ends() == [24])

    assert odd.rows() == {key: 40 + key for key in range(3)}
    assert odd.cover() == [(0, "{[0,24)}")]
    assert worker.process.poll() is None


def test_compaction_leaves_no_gap(flow) -> None:
    odd = flow(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0, delete_retention_ms=0)
    sent = 0

    def has_holes() -> bool:
        """Each batch may begin a segment, and only those before it are compacted."""
        nonlocal sent
        sent += send(odd.brokers, odd.topic, [pair(key, sent + key) for key in range(5)])
        offsets = [message.offset() for message in read_all(odd.brokers, odd.topic)]
        return offsets != list(range(offsets[-1] + 1))

    sent += send(odd.brokers, odd.topic, [pair(100, 100)])  # stays: the holes are behind it
    eventually(has_holes)
    odd.fleet.start()

    eventually(lambda: odd.committed() == odd.ends() == [sent])

    assert odd.rows() == {100: 100} | {key: sent - 5 + key for key in range(5)}
    assert odd.cover() == [(0, f"{{[0,{sent})}}")]


def test_partitions_added_while_running_are_read_from_their_beginning(flow) -> None:
    odd = flow(partitions=1)
    worker = odd.fleet.start(KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS="500")
    send(odd.brokers, odd.topic, [pair(0, 0)])
    eventually(lambda: odd.committed() == [1])

    admin = AdminClient({"bootstrap.servers": odd.brokers})
    admin.create_partitions([NewPartitions(odd.topic, 3)])[odd.topic].result(20)
    eventually(lambda: len(admin.list_topics(odd.topic, timeout=10).topics[odd.topic].partitions) == 3)

    def all_have_some() -> bool:
        """Before the worker has found the new ones, most likely."""
        send(odd.brokers, odd.topic, [pair(key, key) for key in range(20)])
        return min(odd.ends(3)) > 0

    eventually(all_have_some)
    eventually(lambda: odd.committed(partitions=3) == odd.ends(3))

    assert odd.rows() == {key: key for key in range(20)}
    starts = {entry["partition"]: entry["start"] for entry in worker.events("assigned") if entry["topic"] == odd.topic}
    assert starts == {0: 0, 1: 0, 2: 0}


def test_two_pipelines_on_one_topic_count_a_job_once(flow) -> None:
    """For whom it counts is the job's to say; one that names both waits for both, and its total is both's."""
    odd = flow(partitions=3)
    shadow = f"{odd.topic}-shadow"
    odd.open("names-one", 100, pipelines=[odd.topic])
    odd.open("names-none", 100)
    odd.open("names-both", 200, pipelines=[odd.topic, shadow])
    for job in ("names-one", "names-none", "names-both"):
        odd.submit(job, 100)

    def counted() -> dict[str, tuple[str, int]]:
        jobs = {job: odd.service.job(job) or {} for job in ("names-one", "names-none", "names-both")}
        return {job: (state.get("status", ""), state.get("succeeded", 0)) for job, state in jobs.items()}

    odd.fleet.start()
    once = {"names-one": ("completed", 100), "names-none": ("completed", 100)}
    eventually(lambda: odd.committed(partitions=3) == odd.ends(3))
    eventually(lambda: counted() == once | {"names-both": ("open", 100)})

    odd.fleet.start(FLOW=shadow)
    eventually(lambda: odd.committed(shadow, 3) == odd.ends(3))
    eventually(lambda: counted() == once | {"names-both": ("completed", 200)})
