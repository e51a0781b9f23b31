"""The broker's part of a check: topics, the group's offsets, where dead letters and replays go."""

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient

from lovelace_streams.admin.check.report import Finding
from lovelace_streams.admin.coordinator import retry_while_coordinator_moves
from lovelace_streams.dead_letters.sender import HEADER_BYTES_MAX, DeadLetterSender
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.kafka.admin import topic_config
from lovelace_streams.kafka.client import common_config
from lovelace_streams.kafka.faults import ErrorKind, kind_of, name_of, refusal
from lovelace_streams.kafka.own_topics import OwnTopic, dead_letter_topic, progress_topic, replay_topic
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS, TopicIds
from lovelace_streams.reporting.publisher import Publisher
from lovelace_streams.sources.kafka import KafkaSource

COORDINATOR_SECONDS = 120.0
"""How long a broker that has just started may take until it answers about groups."""


class BrokerCheck:
    """What the broker has for a source."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.settings = source.settings
        self.admin = AdminClient(common_config(source.settings))

    def findings(self) -> Iterator[Finding]:
        """Check it, one finding after another. Raises `DeploymentFault` or `DestinationFault`."""
        try:
            listed = self.admin.list_topics(timeout=REQUEST_SECONDS).topics
            for topic in self.source.topics:
                if topic not in listed:
                    raise self._no_topic(topic)
                yield from self._topic(topic, sorted(listed[topic].partitions))
            yield from self._own_topics(set(listed))
        except KafkaException as error:
            raise self._fault(error) from None

    def _no_topic(self, topic: str) -> DeploymentFault:
        return DeploymentFault(
            f"the broker {self.settings.brokers} (KAFKA_BROKERS) has no topic {topic!r}: create it, "
            "or correct the topic in the flow"
        )

    def _fault(self, error: KafkaException) -> DeploymentFault | DestinationFault:
        if kind_of(error) in {ErrorKind.DEPLOYMENT, ErrorKind.LOGIN}:
            return refusal(self.settings.brokers, error)
        return DestinationFault(
            name_of(error),
            f"the broker {self.settings.brokers} (KAFKA_BROKERS) does not answer: start it, or correct its address",
        )

    def _topic(self, topic: str, partitions: list[int]) -> Iterator[Finding]:
        yield Finding("ok", f"{self.settings.brokers}: topic {topic} with {len(partitions)} partitions")
        yield from self._access(topic, AclOperation.READ)
        yield from self._group_offsets(topic, partitions)

    def _access(self, topic: str, operation: AclOperation) -> Iterator[Finding]:
        """Find a missing right. A broker without access control allows all operations; an old one does not tell."""
        asked = self.admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=True, request_timeout=REQUEST_SECONDS
        )
        operations = asked[topic].result(REQUEST_SECONDS).authorized_operations
        if operations and not {operation, AclOperation.ALL} & set(operations):
            yield Finding(
                "deployment",
                f"the broker {self.settings.brokers} does not allow this user to {operation.name} topic {topic}: "
                f"grant {operation.name} on it",
            )

    def _group_offsets(self, topic: str, partitions: list[int]) -> Iterator[Finding]:
        """Compare the group's offsets with those that the topic holds."""
        topic_id = TopicIds(self.admin).now([topic]).get(topic, "")
        consumer = Consumer(
            common_config(self.settings) | {"group.id": self.source.pipeline, "enable.auto.commit": False}
        )
        started, lag = 0, 0
        try:
            wanted = [TopicPartition(topic, partition) for partition in partitions]
            for at in retry_while_coordinator_moves(
                lambda: consumer.committed(wanted, REQUEST_SECONDS), COORDINATOR_SECONDS
            ):
                low, high = consumer.get_watermark_offsets(at, REQUEST_SECONDS)
                known = at.offset >= 0 and at.metadata in (None, "", topic_id)
                started += known
                lag += high - (at.offset if known else low)
                yield from self._lost_offset(at, low, high, known=known)
        finally:
            consumer.close()
        group = f"group {self.source.pipeline} has offsets in {started} of {len(partitions)} partitions"
        yield Finding("ok", f"{group}; {lag} offsets to read of {topic}")

    def _lost_offset(self, at: TopicPartition, low: int, high: int, *, known: bool) -> Iterator[Finding]:
        """Find an offset of a topic that was deleted and made again, or one that retention has deleted."""
        if at.offset >= 0 and not known:
            yield Finding(
                "note", f"{at.topic}-{at.partition} was deleted and made again: a worker reads it from its beginning"
            )
        if known and not low <= at.offset <= high:
            yield Finding(
                "deployment",
                f"offset {at.offset} of {at.topic}-{at.partition}, the position of group {self.source.pipeline}, is "
                f"gone: the topic holds {low}…{high - 1}; `lovelace rewind FLOW --to earliest` moves the group there",
            )

    def _own_topics(self, listed: set[str]) -> Iterator[Finding]:
        """Compare the topics that a worker sends to, or ask whether it could make them."""
        source = self.source
        largest = max(int(topic_config(self.admin, topic).get("max.message.bytes", 0)) for topic in source.topics)
        letters = self.settings.dead_letter_topic or f"{source.pipeline}.dlq"
        sender = next((each for each in source.services if isinstance(each, DeadLetterSender)), None)
        erasable = sender.erasable if sender is not None else None
        topic = dead_letter_topic(letters, largest + HEADER_BYTES_MAX, HEADER_BYTES_MAX, erasable)
        if letters in listed:
            yield from self._access(letters, AclOperation.WRITE)
            yield from self._existing(topic)
            yield from self._limits(topic)
        else:
            yield self._can_make(topic, "deployment", "dead letters have no topic")
        replays = replay_topic(f"{source.pipeline}.replay", largest)
        if replays.name in listed:
            yield from self._existing(replays)
        else:
            yield self._can_make(replays, "note", "replays are off")
        for publisher in (each for each in source.services if isinstance(each, Publisher)):
            states = progress_topic(publisher.topic)
            if states.name in listed:
                yield from self._existing(states)
            else:
                yield self._can_make(states, "note", "progress is not published")

    def _existing(self, topic: OwnTopic) -> Iterator[Finding]:
        """Find a setting with which messages do not arrive or do not stay."""
        if (fault := topic.judge(self.admin)) is not None:
            yield Finding("deployment", str(fault))
        else:
            yield Finding("ok", f"{topic.title} {topic.name}")

    def _limits(self, topic: OwnTopic) -> Iterator[Finding]:
        """Find limits of the dead-letter topic that are the operator's choice."""
        found = topic_config(self.admin, topic.name)
        wanted = int(topic.config["max.message.bytes"])
        if int(found.get("max.message.bytes", wanted)) < wanted:
            yield Finding(
                "note",
                f"dead-letter topic {topic.name}: max.message.bytes is {found['max.message.bytes']}, below {wanted} "
                f"(the source's largest message and {HEADER_BYTES_MAX} for headers): larger letters go without their "
                "value",
            )
        for setting in ("retention.ms", "retention.bytes"):
            if found.get(setting, "-1") not in {"-1", topic.config[setting]}:
                yield Finding(
                    "note",
                    f"dead-letter topic {topic.name}: {setting} is {found[setting]}, after which the broker deletes "
                    f"letters: set it to {topic.config[setting]} to keep them",
                )
        if found.get("unclean.leader.election.enable") == "true":
            yield Finding(
                "note",
                f"dead-letter topic {topic.name}: unclean.leader.election.enable is true: a broker that fails may lose "
                "letters that were acknowledged",
            )

    def _can_make(self, topic: OwnTopic, state: str, otherwise: str) -> Finding:
        """Ask the broker whether a worker could make a topic, without making it."""
        try:
            topic.make(self.admin, only_ask=True)
        except KafkaException as error:
            if kind_of(error) is not ErrorKind.DEPLOYMENT:
                raise
            why = name_of(error)
            return Finding(state, f"a worker can't make topic {topic.name} ({why}): create it, or {otherwise}")
        return Finding("ok", f"a worker makes topic {topic.name} at its start")
