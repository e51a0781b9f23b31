"""Send the raw payloads of a job, with the headers by which every item of it is accounted for (law 6).

The order matters: count the items, open the job (the service answers the attempt), produce, wait for every delivery.
If a submission dies half-way, its repetition opens a new attempt, which counts from zero.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import IO, Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.flows.spec import FlowSpec, Outgoing
from lovelace_streams.settings import KafkaSettings

PRODUCER_CONFIG = {
    "enable.idempotence": True,
    "acks": "all",
    "message.max.bytes": 67_108_864,
    "compression.type": "lz4",
}
FLUSH_SECONDS = 1.0
QUEUE_FULL_SECONDS = 0.1
LIST_SECONDS = 10
NOT_AN_ARRAY = "it begins with [ but is no JSON array: correct it, or give one payload per line"


def check_options(source: FlowSpec, options: Mapping[str, str]) -> None:
    """Refuse options that `SOURCE.messages` does not take, and missing ones that it needs. Raises `DeploymentFault`."""
    accepted = options_of(source)
    takes = f"takes {', '.join(map(repr, accepted))}" if accepted else "takes no options"
    rest = any(each.kind is Parameter.VAR_KEYWORD for each in signature(source.messages).parameters.values())
    if unknown := [name for name in options if name not in accepted and not rest]:
        raise DeploymentFault(
            f"the flow {source.name!r} takes no option {unknown[0]!r}: its messages() {takes}; "
            f"leave --option {unknown[0]}=… out, or correct its name"
        )
    if missing := [name for name, needed in accepted.items() if needed and name not in options]:
        raise DeploymentFault(f"the flow {source.name!r} needs the option {missing[0]!r}: add --option {missing[0]}=…")


def options_of(source: FlowSpec) -> dict[str, bool]:
    """Name the options of `SOURCE.messages`, each with whether it must be given: all parameters after the payload.

    >>> def messages(payload, shop, currency="EUR"): ...
    >>> options_of(FlowSpec("orders", "orders.raw", (), messages))
    {'shop': True, 'currency': False}
    """
    _, *others = signature(source.messages).parameters.values()
    named = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    return {each.name: each.default is Parameter.empty for each in others if each.kind in named}


def read_file(path: Path, source: FlowSpec, **options: Any) -> Iterator[Outgoing]:
    """Read the messages of a file: a JSON array, or one payload per line. A line that is not JSON is sent as one item.

    Raises `ValueError` for an array that is not JSON, because its items can't be counted.
    """
    with path.open("rb") as file:
        if _begins_with_array(file):
            try:
                payloads = msgspec.json.decode(file.read())
            except (ValueError, RecursionError):
                raise ValueError(
                    "it begins with [ but is no JSON array: correct it, or give one payload per line"
                ) from None
            for payload in payloads:
                yield from source.messages(payload, **options)
            return
        for line in file:
            if raw := line.rstrip(b"\r\n"):
                yield from _line(raw, source, options)


def _begins_with_array(file: IO[bytes]) -> bool:
    """Whether the first byte that is not white space is a [; the file is left at its beginning."""
    first = b""
    while (byte := file.read(1)) and not first:
        first = byte.strip(b" \t\r\n")
    file.seek(0)
    return first == b"["


def _line(raw: bytes, source: FlowSpec, options: dict[str, Any]) -> Iterator[Outgoing]:
    try:
        payload = msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # a broken payload still belongs to its job
        yield Outgoing(b"", raw)
        return
    plain = msgspec.json.encode(payload)
    for message in source.messages(payload, **options):
        # A payload that `messages` left as it was is sent byte for byte as it arrived.
        yield Outgoing(message.key, raw, message.items) if message.value == plain else message


def check_topic(settings: KafkaSettings, topic: str) -> int:
    """Count the partitions of a topic.

    Raises `DeploymentFault` if there is no such topic, `DestinationFault` if the broker does not answer.
    """
    from confluent_kafka.admin import AdminClient

    from lovelace_streams.kafka.client import common_config

    try:
        topics = AdminClient(common_config(settings)).list_topics(timeout=LIST_SECONDS).topics
    except KafkaException as error:
        raise DestinationFault(
            error.args[0].name(),
            f"the broker {settings.brokers} (KAFKA_BROKERS) does not answer: start it, or correct its address",
        ) from None
    if topic not in topics:
        raise DeploymentFault(f"the broker {settings.brokers} (KAFKA_BROKERS) has no topic {topic!r}: create it first")
    return len(topics[topic].partitions)


def produce(
    settings: KafkaSettings,
    topic: str,
    messages: Iterable[Outgoing],
    *,
    job: str | None = None,
    attempt: int = 1,
    on_delivered: Callable[[int], None] = lambda _items: None,
) -> int:
    """Send messages with an idempotent producer, and wait until each is acknowledged; give the number of items.

    Raises `DestinationFault` if one was not delivered. Nothing is lost: the caller repeats the submission as a new
    attempt.
    """
    from lovelace_streams.kafka.client import common_config

    producer = Producer(common_config(settings) | PRODUCER_CONFIG)
    headers = [("lovelace-job-id", job.encode()), ("lovelace-job-attempt", str(attempt).encode())] if job else []
    failed: list[str] = []
    total = 0
    for message in messages:
        total += message.items
        _send(producer, topic, message, headers, _on_delivery(message.items, on_delivered, failed))
    while producer.flush(FLUSH_SECONDS) and not failed:
        pass
    if failed:
        text = f"{len(failed)} messages to {topic} were not delivered; submit the file again"
        raise DestinationFault(failed[0], text)
    return total


def _on_delivery(
    items: int, on_delivered: Callable[[int], None], failed: list[str]
) -> Callable[[KafkaError | None, Message], None]:
    """Make the callback of one message: it tells `on_delivered`, or notes the failure."""

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is None:
            on_delivered(items)
        else:
            failed.append(error.name())

    return delivered


def _send(
    producer: Producer,
    topic: str,
    message: Outgoing,
    headers: list[tuple[str, bytes]],
    on_delivery: Callable[[KafkaError | None, Message], None],
) -> None:
    """Hand a message to the producer; wait while its queue is full."""
    options: dict[str, Any] = {
        "key": message.key or None,
        "headers": [*headers, ("lovelace-items", str(message.items).encode())],
        "on_delivery": on_delivery,
    }
    while True:
        try:
            producer.produce(topic, message.value, **options)
            break
        except BufferError:
            producer.poll(QUEUE_FULL_SECONDS)
        except KafkaException as error:
            text = f"the broker does not accept a message for {topic}; submit the file again"
            raise DestinationFault(error.args[0].name(), text) from None
    producer.poll(0)
