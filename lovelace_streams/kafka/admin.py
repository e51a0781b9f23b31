"""Make the library's own topics, and set how large a message they take."""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS

MAX_MESSAGE_BYTES_DEFAULT = 1_048_588
"""The broker's own default of `max.message.bytes`."""
FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


def ensure_topic(admin: AdminClient, name: str, config: Mapping[str, str] | None = None) -> None:
    """Make a topic of one partition, unless it exists. Raises `KafkaException` if the broker refuses or is away."""
    new = NewTopic(name, num_partitions=1, config=dict(config or {}))
    try:
        admin.create_topics([new])[name].result(REQUEST_SECONDS)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def max_message_bytes(admin: AdminClient, topic: str) -> int:
    """Ask for the largest message that a topic takes; the broker's default if we may not ask.

    Raises `KafkaException`.
    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        described = admin.describe_configs([resource])[resource].result(REQUEST_SECONDS)
    except KafkaException as error:
        if error.args[0].code() not in FORBIDDEN:
            raise
        return MAX_MESSAGE_BYTES_DEFAULT
    return int(described["max.message.bytes"].value)


def set_max_message_bytes(admin: AdminClient, topic: str, size: int) -> None:
    """Let a topic take messages of `size` bytes; does nothing if we may not. Raises `KafkaException`."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    try:
        admin.incremental_alter_configs([resource])[resource].result(REQUEST_SECONDS)
    except KafkaException as error:
        if error.args[0].code() not in FORBIDDEN:
            raise
