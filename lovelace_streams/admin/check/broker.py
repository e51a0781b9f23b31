"""The broker's part of a check: topics, the group's offsets, where dead letters and replays go."""

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType

from lovelace_streams.admin.check.report import Finding
from lovelace_streams.admin.coordinator import retry_while_coordinator_moves
from lovelace_streams.dead_letters.sender import HEADER_BYTES_MAX, NOT_MAKEABLE
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.kafka.client import common_config
from lovelace_streams.kafka.faults import ErrorKind, kind_of, name_of, refusal
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS, TopicIds
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
            letters = self.settings.dead_letter_topic or f"{self.source.pipeline}.dlq"
            yield from self._dead_letter_topic(letters, exists=letters in listed)
            replay = f"{self.source.pipeline}.replay"
            if replay not in listed:
                yield self._can_make(replay, "note", "replays are off")
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

    def _dead_letter_topic(self, topic: str, *, exists: bool) -> Iterator[Finding]:
        if not exists:
            yield self._can_make(topic, "deployment", "dead letters have no topic")
            return
        yield from self._access(topic, AclOperation.WRITE)
        wanted = max(self._limits(each).get("max.message.bytes", 0) for each in self.source.topics) + HEADER_BYTES_MAX
        limits = self._limits(topic)
        if limits.get("max.message.bytes", wanted) < wanted:
            yield Finding(
                "note",
                f"dead-letter topic {topic}: max.message.bytes is {limits['max.message.bytes']}, below {wanted} (the "
                f"source's largest message and {HEADER_BYTES_MAX} for headers): larger letters go without their value",
            )
        if limits.get("retention.ms", -1) != -1:
            yield Finding(
                "note",
                f"dead-letter topic {topic}: retention.ms is {limits['retention.ms']}, after which the broker deletes "
                "letters: set it to -1 to keep them",
            )
        yield Finding("ok", f"dead letters go to {topic}")

    def _limits(self, topic: str) -> dict[str, int]:
        """Ask for a topic's limits; {} if this user may not ask."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            described = self.admin.describe_configs([resource])[resource].result(REQUEST_SECONDS)
        except KafkaException as error:
            if kind_of(error) in {ErrorKind.DEPLOYMENT, ErrorKind.LOGIN}:
                return {}
            raise
        return {name: int(described[name].value) for name in ("max.message.bytes", "retention.ms")}

    def _can_make(self, topic: str, state: str, otherwise: str) -> Finding:
        """Ask the broker whether a worker could make a topic, without making it."""
        asked = self.admin.create_topics([NewTopic(topic, num_partitions=1)], validate_only=True)
        try:
            asked[topic].result(REQUEST_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in NOT_MAKEABLE:
                raise
            return Finding(
                state, f"a worker can't make topic {topic} ({error.args[0].name()}): create it, or {otherwise}"
            )
        return Finding("ok", f"a worker makes topic {topic} at its start")
