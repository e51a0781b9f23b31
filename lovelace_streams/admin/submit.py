"""Open a job and send its raw payloads, with the headers that keep every one of them accounted for (law 6).

The order matters: count, open the job (the service answers the attempt), then produce, then wait for every delivery.
A submission that dies half-way and is repeated opens a new attempt, which counts from zero.
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
    """Messages of a file: a JSON array, or one payload a line; a line that is not JSON is sent as it is, as one item.

    Raises `ValueError` for an array that is not JSON: nothing can be counted in it.
    """
    with path.open("rb") as file:
        if _begins_with_array(file):
            try:
                payloads = msgspec.json.decode(file.read())
            except (ValueError, RecursionError):
                raise ValueError("it begins with [ but is no JSON array; give one, or one payload a line") from None
            for payload in payloads:
                yield from source.messages(payload, **options)
            return
        for line in file:
            if raw := line.rstrip(b"\r\n"):
                yield from _line(raw, source, options)


def _begins_with_array(file: IO[bytes]) -> bool:
    """Whether the first byte that is not white space is a [; the file then stands at its beginning."""
    first = b""
    while (byte := file.read(1)) and not first:
        first = byte.strip(b" \t\r\n")
    file.seek(0)
    return first == b"["


def _line(raw: bytes, source: FlowSpec, options: dict[str, Any]) -> Iterator[Outgoing]:
    try:
        payload = msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # a poisoned payload still belongs to its job
        yield Outgoing(b"", raw)
        return
    plain = msgspec.json.encode(payload)
    for message in source.messages(payload, **options):
        # What arrived is what is sent, byte for byte, wherever nothing had to be wrapped.
        yield Outgoing(message.key, raw, message.items) if message.value == plain else message


def check_topic(settings: KafkaSettings, topic: str) -> int:
    """How many partitions a topic has.

    Raises `DeploymentFault` where there is no such topic, `DestinationFault` where the broker is away.
    """
    from confluent_kafka.admin import AdminClient

    from lovelace_streams.kafka.client import common_config

    try:
        topics = AdminClient(common_config(settings)).list_topics(timeout=10).topics
    except KafkaException as error:
        raise DestinationFault(error.args[0].name(), f"the broker {settings.brokers}") from None
    if topic not in topics:
        raise DeploymentFault(f"the broker {settings.brokers} has no topic {topic!r}: create it first")
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
    """Send messages with an idempotent producer and wait until each is acknowledged; answers the number of items.

    Raises `DestinationFault` when one was not delivered: nothing is lost, the submission is repeated as a new attempt.
    """
    from lovelace_streams.kafka.client import common_config

    failed: list[str] = []
    producer = Producer(
        common_config(settings)
        | {"enable.idempotence": True, "acks": "all", "message.max.bytes": 67_108_864, "compression.type": "lz4"}
    )
    headers = [("lovelace-job-id", job.encode()), ("lovelace-job-attempt", str(attempt).encode())] if job else []
    total = 0
    for message in messages:
        total += message.items

        def delivered(error: KafkaError | None, _message: Message, items: int = message.items) -> None:
            if error is None:
                on_delivered(items)
            else:
                failed.append(error.name())

        send: dict[str, Any] = {
            "key": message.key or None,
            "headers": [*headers, ("lovelace-items", str(message.items).encode())],
            "on_delivery": delivered,
        }
        while True:
            try:
                producer.produce(topic, message.value, **send)
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as error:
                raise DestinationFault(error.args[0].name(), f"{topic} does not take message {total}") from None
        producer.poll(0)
    while producer.flush(1.0) and not failed:
        pass
    if failed:
        raise DestinationFault(failed[0], f"{len(failed)} messages to {topic} were not delivered; submit again")
    return total
