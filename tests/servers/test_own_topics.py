"""Topics of ours that would lose what is sent to them, and brokers that let us choose less."""

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from lovelace_streams.admin.submit import produce
from lovelace_streams.dead_letters.replay import make_topic as make_replay_topic
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.spec import Outgoing
from lovelace_streams.kafka.admin import topic_config
from lovelace_streams.kafka.own_topics import progress_topic, replay_topic
from lovelace_streams.settings import KafkaSettings
from tests.faults.harness import Fleet, eventually, query, read_all, send
from tests.servers.test_group_refusals import Member


@pytest.fixture
def admin(brokers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": brokers})


@pytest.fixture
def compacted(make_topic, admin: AdminClient) -> str:
    """A topic whose replay topic is compacted."""
    topic = make_topic("replayed", partitions=1)
    name = f"{topic}.replay"
    admin.create_topics([NewTopic(name, 1, config={"cleanup.policy": "compact"})])[name].result(20)
    return topic


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_worker_stops_before_it_reads_where_letters_would_be_lost(
    brokers: str, database: str, make_topic, tmp_path: Path, policy: str
) -> None:
    query(database, "create table key_value (key bigint primary key, value bigint not null)")
    topic, letters = make_topic("read", partitions=1), make_topic("letters", partitions=1, cleanup_policy=policy)
    send(brokers, topic, [(b"k", b"{not json")])
    environment = {"KAFKA_BROKERS": brokers, "TOPIC": topic, "FLOW": topic, "POSTGRES_DSN": database}
    environment |= {"DEAD_LETTER_TOPIC": letters, "PROGRESS_API_URL": ""}
    with Fleet("tests.faults.keyvalue", environment, tmp_path) as fleet:
        line = fleet.start().stopped()

    assert f"{letters!r} has cleanup.policy={policy}" in line
    assert "DEAD_LETTER_TOPIC" in line
    assert read_all(brokers, letters) == []


def test_a_worker_refuses_a_replay_topic_that_would_lose_replays(brokers: str, compacted: str) -> None:
    ours = Member(brokers, compacted)

    eventually(ours.stopped)

    assert f"'{compacted}.replay' has cleanup.policy=compact" in str(ours.context.fault)


def test_a_replay_is_not_sent_to_such_a_topic(brokers: str, compacted: str) -> None:
    with pytest.raises(DeploymentFault, match=r"cleanup\.policy=compact"):
        make_replay_topic(KafkaSettings(brokers), f"{compacted}.replay", compacted)


def test_a_submission_that_the_topic_refuses_is_the_deployments_fault(brokers: str, make_topic) -> None:
    topic = make_topic("compacted", partitions=1, cleanup_policy="compact")

    with pytest.raises(DeploymentFault, match=f"{topic}.*INVALID_RECORD"):
        produce(KafkaSettings(brokers), topic, [Outgoing(b"", b"{}")])


def test_a_worker_makes_its_replay_topic_with_all_that_it_relies_on(
    brokers: str, make_topic, admin: AdminClient
) -> None:
    topic = make_topic("made", partitions=1, max_message_bytes=2_000_000)
    ours = Member(brokers, topic)
    eventually(ours.reads)
    ours.reader.close()

    made = topic_config(admin, f"{topic}.replay")
    expected = replay_topic(f"{topic}.replay", 2_000_000).config
    assert {name: made[name] for name in expected} == expected


def test_a_broker_that_lets_us_choose_less_gets_what_is_essential(admin: AdminClient, make_topic) -> None:
    topic = progress_topic(f"{make_topic('less')}.progress")
    topic.config["a.setting.of.another.broker"] = "1"

    assert topic.make(admin) is False, "the broker chose some settings, so they are compared"

    eventually(lambda: topic.name in admin.list_topics(timeout=10).topics)
    assert topic_config(admin, topic.name)["cleanup.policy"] == "compact"
    assert topic.judge(admin) is None
