"""Ask for a topic's settings, and set how large a message it takes."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS

MAX_MESSAGE_BYTES_DEFAULT = 1_048_588
"""The broker's own default of `max.message.bytes`."""
FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


def topic_config(admin: AdminClient, topic: str) -> dict[str, str]:
    """Ask for a topic's settings; {} if we may not ask. Raises `KafkaException`."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        described = admin.describe_configs([resource])[resource].result(REQUEST_SECONDS)
    except KafkaException as error:
        if error.args[0].code() not in FORBIDDEN:
            raise
        return {}
    return {name: entry.value for name, entry in described.items() if entry.value is not None}


def max_message_bytes(admin: AdminClient, topic: str) -> int:
    """Ask for the largest message that a topic takes; the broker's default if we may not ask.

    Raises `KafkaException`.
    """
    return int(topic_config(admin, topic).get("max.message.bytes", MAX_MESSAGE_BYTES_DEFAULT))


def set_max_message_bytes(admin: AdminClient, topic: str, size: int) -> None:
    """Let a topic take messages of `size` bytes; does nothing if we may not. Raises `KafkaException`."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    try:
        admin.incremental_alter_configs([resource])[resource].result(REQUEST_SECONDS)
    except KafkaException as error:
        if error.args[0].code() not in FORBIDDEN:
            raise
