"""Send the raw payloads of a job, with the headers by which every item of it is accounted for (law 6).

The order matters: count the items, open the job (the service answers the attempt), produce, wait for every delivery.
If a submission dies half-way, its repetition opens a new attempt, which counts from zero.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter, signature
from typing import IO, Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from lovelace_streams.admin.payloads import Payload, PayloadsError, read_payloads
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.flows.spec import FlowSpec, Outgoing
from lovelace_streams.settings import KafkaSettings

MESSAGE_BYTES_MAX = 67_108_864
PRODUCER_CONFIG = {
    "enable.idempotence": True,
    "acks": "all",
    "message.max.bytes": MESSAGE_BYTES_MAX,
    "compression.type": "lz4",
}
FLUSH_SECONDS = 1.0
QUEUE_FULL_SECONDS = 0.1
LIST_SECONDS = 10


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


class Told:
    """What a person is told of the payloads of a file that are sent although they are not JSON."""

    def __init__(self) -> None:
        self.payloads = 0
        self.broken = 0
        self.first = ""

    def note(self, payload: Payload) -> None:
        """Count a payload."""
        self.payloads += 1
        if payload.fault:
            self.broken += 1
            self.first = self.first or f"{payload.place} is {payload.fault}"

    def __str__(self) -> str:
        if not self.payloads:
            return "it holds no payloads, so the job has no items and is complete at once"
        if not self.broken:
            return ""
        which = f"{self.broken} of {self.payloads} payloads are not JSON, the first: {self.first}"
        return f"{which}; they are sent as they are, and a flow that reads JSON dead-letters them"


def read_file(
    file: IO[bytes], source: FlowSpec, options: Mapping[str, Any], told: Told | None = None
) -> Iterator[Outgoing]:
    """Read the messages of a file of payloads, from its beginning. A line that is not JSON is sent as one item.

    Raises `PayloadsError`, also for a payload that `SOURCE.messages` refuses, and for a message too large to send.
    """
    for payload in read_payloads(file):
        if told:
            told.note(payload)
        try:
            for message in _messages(payload, source, options):
                _check_size(message)
                yield message
        except ValueError as error:
            raise PayloadsError(f"{payload.place}: {error}") from None


def _messages(payload: Payload, source: FlowSpec, options: Mapping[str, Any]) -> Iterator[Outgoing]:
    if payload.fault:  # a broken payload still belongs to its job
        yield Outgoing(b"", payload.raw)
        return
    plain = msgspec.json.encode(payload.value)
    for message in source.messages(payload.value, **options):
        # A payload that `messages` left as it was is sent as it arrived: with all digits of its numbers.
        yield Outgoing(message.key, payload.raw, message.items) if message.value == plain else message


def _check_size(message: Outgoing) -> None:
    """Refuse a message that the producer would not take. Raises `ValueError`."""
    size = len(message.key) + len(message.value)
    if size > MESSAGE_BYTES_MAX:
        raise ValueError(
            f"its message has {size} bytes, and no more than {MESSAGE_BYTES_MAX} can be sent: "
            "have SOURCE.messages cut it, or leave it out"
        )


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
    attempt. Raises `DeploymentFault` if the topic does not take them: repeating does not help.
    """
    from lovelace_streams.kafka.client import common_config

    producer = Producer(common_config(settings) | PRODUCER_CONFIG)
    headers = [("lovelace-job-id", job.encode()), ("lovelace-job-attempt", str(attempt).encode())] if job else []
    failed: list[KafkaError] = []
    total = 0
    for message in messages:
        total += message.items
        _send(producer, topic, message, headers, _on_delivery(message.items, on_delivered, failed))
    while producer.flush(FLUSH_SECONDS) and not failed:
        pass
    if failed:
        raise _not_delivered(topic, failed[0], f"{len(failed)} messages to {topic} were not delivered")
    return total


def _on_delivery(
    items: int, on_delivered: Callable[[int], None], failed: list[KafkaError]
) -> Callable[[KafkaError | None, Message], None]:
    """Make the callback of one message: it tells `on_delivered`, or notes the failure."""

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is None:
            on_delivered(items)
        else:
            failed.append(error)

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
            text = f"the broker does not accept a message for {topic}"
            raise _not_delivered(topic, error.args[0], text) from None
    producer.poll(0)


def _not_delivered(topic: str, error: KafkaError, text: str) -> DeploymentFault | DestinationFault:
    """Make the fault of a message that was not delivered: another try may help, or the topic has to be mended."""
    from lovelace_streams.kafka.faults import ErrorKind, kind_of, name_of, refused_write

    if kind_of(error) in {ErrorKind.DEPLOYMENT, ErrorKind.SIZE}:
        return DeploymentFault(f"{text}: {refused_write('topic', topic, error)}; submit the file again", name_of(error))
    return DestinationFault(name_of(error), f"{text}; submit the file again")
