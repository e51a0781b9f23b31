"""The newest messages of a topic, for a new flow: in which format they are, and which schemas wrote them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from lovelace_streams.admin.scaffold.nearest import nearest
from lovelace_streams.errors import DeploymentFault, RecordFault
from lovelace_streams.formats.avro.framing import Bare, Confluent, Framing, SingleObject
from lovelace_streams.formats.avro.registry import NoSchema
from lovelace_streams.formats.avro.schema import Schema
from lovelace_streams.kafka.topic_reader import NoSuchTopic, messages, topic_names
from lovelace_streams.rows.values import parse
from lovelace_streams.settings import KafkaSettings, Settings

SAMPLE = 100
"""Messages that are read from each partition."""


class Sample(msgspec.Struct):
    """What was found in a topic."""

    messages: int = 0
    objects: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """The messages that are JSON objects."""
    schemas: list[Schema] = msgspec.field(default_factory=list)
    """The schemas that wrote the Avro messages, each once, the newest message's first."""
    avro: int = 0
    """How many messages are in Avro."""
    framing: str = ""
    """How an Avro message says its schema: `registry`, `single`, `bare`; "" for a topic without Avro."""


def newest_values(settings: KafkaSettings, topic: str, *, is_new: bool) -> list[bytes]:
    """Read the newest messages, without tombstones; [] for a topic that `is_new` and does not exist yet.

    Raises `DeploymentFault` for a topic that does not exist, `DestinationFault` if the broker does not answer.
    """
    try:
        return [value for message in messages(settings, topic, newest=SAMPLE) if (value := message.value())]
    except NoSuchTopic:
        if is_new:
            return []
        likely = nearest(topic, topic_names(settings))
        raise DeploymentFault(
            f"the broker {settings.brokers} (KAFKA_BROKERS) has no topic {topic!r}{likely}: create it, correct "
            "--topic, or add --new if it is to be made later"
        ) from None


def sample_of(settings: Settings, topic: str, values: Sequence[bytes], schemas: Sequence[str]) -> Sample:
    """Sort messages by their format, and find the schemas of those in Avro.

    `schemas` are the files of the schemas that wrote them, where the messages name no registry. Raises
    `DeploymentFault` if the schemas of Avro messages can't be found, `DestinationFault` if the registry does not
    answer.
    """
    sample = Sample(messages=len(values))
    framed: dict[str, list[bytes]] = {"registry": [], "single": [], "bare": []}
    for value in values:
        if isinstance(parsed := _parsed(value), dict):
            sample.objects.append(parsed)
        elif format_of := _framing_of(value):
            framed[format_of].append(value)
        elif schemas:
            framed["bare"].append(value)
    sample.framing = max(framed, key=lambda name: len(framed[name]))
    sample.avro = len(framed[sample.framing])
    if sample.avro:
        sample.schemas = _schemas(_framing(settings, topic, sample.framing, schemas), framed[sample.framing], topic)
    else:
        sample.framing = ""
    return sample


def _parsed(value: bytes) -> Any:
    try:
        return parse(value)
    except RecordFault:
        return None


def _framing_of(value: bytes) -> str:
    """Tell the two framings by their first bytes, with which no JSON begins."""
    if value.startswith(b"\xc3\x01") and len(value) >= SingleObject.size:
        return "single"
    return "registry" if value.startswith(b"\0") and len(value) >= Confluent.size else ""


def _framing(settings: Settings, topic: str, name: str, schemas: Sequence[str]) -> Framing:
    if name == "registry":
        if settings.schema_registry_url is None or not settings.schema_registry_url.get_secret_value():
            raise DeploymentFault(
                f"the messages of topic {topic!r} are in Avro and name their schemas in a registry: set "
                "SCHEMA_REGISTRY_URL to it"
            )
        return Confluent(settings.registry)
    if not schemas:
        raise DeploymentFault(
            f"the messages of topic {topic!r} are single objects of Avro, which do not hold their schema: add "
            "--schema FILE.avsc, once for each version of it"
        )
    return SingleObject(*schemas) if name == "single" else Bare(schemas[-1])


def _schemas(framing: Framing, values: Sequence[bytes], topic: str) -> list[Schema]:
    """Find the schemas of messages, the newest message's first, but for unknown ones."""
    found: dict[Any, Schema | None] = {}
    why = ""
    for value in reversed(values):
        key, _ = framing.named(value)
        if key not in found:
            try:
                found[key] = framing.schema(key)
            except NoSchema as error:
                found[key], why = None, str(error)
    schemas = [schema for schema in found.values() if schema is not None]
    if not schemas:
        raise DeploymentFault(
            f"the messages of topic {topic!r} look like Avro, and none of their schemas is usable: {why}"
        )
    return schemas
