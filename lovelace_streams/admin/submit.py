"""Open a job and send its raw payloads, with the headers that keep every one of them accounted for (law 6).

The order matters: count, open the job (the service answers the attempt), then produce, then wait for every delivery.
A submission that dies half-way and is repeated opens a new attempt, which counts from zero.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.rows.declaration import Row
from lovelace_streams.settings import KafkaSettings, ProgressSettings


class Outgoing(msgspec.Struct, gc=False):
    """One raw message to send: its key, its bytes, and how many items it holds (the header `lovelace-items`)."""

    key: bytes
    value: bytes
    items: int = 1


class Source(msgspec.Struct, frozen=True):
    """What the command line must know of a dataflow: its topic, its rows, and how payloads become messages."""

    name: str
    topic: str
    rows: tuple[type[Row], ...]
    messages: Callable[..., Iterator[Outgoing]]
    """`(payload, guild)` → messages; raises `ValueError` for what can't be sent."""
    row: str = "item"


def keyed_by(*fields: str) -> Callable[[Any], Iterator[Outgoing]]:
    """`Source.messages` where a payload is one item: sent as it is, one row's payloads in one partition.

    >>> [message] = keyed_by("id")({"id": 7, "name": "seven"})
    >>> message.key, message.value
    (b'7', b'{"id":7,"name":"seven"}')
    """

    def messages(payload: Any) -> Iterator[Outgoing]:
        named = payload if isinstance(payload, dict) else {}
        key = ":".join(str(named.get(field, "")) for field in fields)
        yield Outgoing(key.encode("utf-8", "replace"), msgspec.json.encode(payload))

    return messages


def read_file(path: Path, source: Source, **options: Any) -> Iterator[Outgoing]:
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


def _line(raw: bytes, source: Source, options: dict[str, Any]) -> Iterator[Outgoing]:
    try:
        payload = msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # a poisoned payload still belongs to its job
        yield Outgoing(b"", raw)
        return
    plain = msgspec.json.encode(payload)
    for message in source.messages(payload, **options):
        # What arrived is what is sent, byte for byte, wherever nothing had to be wrapped.
        yield Outgoing(message.key, raw, message.items) if message.value == plain else message


def open_job(settings: ProgressSettings, job: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """`POST /jobs`; answers the job's state with its attempt. Raises `DestinationFault` or `DeploymentFault`."""
    settings.check()
    assert settings.url is not None
    headers = {"authorization": f"Bearer {settings.token}"} | ({"idempotency-key": key} if key else {})
    try:
        answer = httpx.post(
            f"{settings.url.rstrip('/')}/jobs", json=job, headers=headers, timeout=settings.timeout, trust_env=False
        )
    except httpx.HTTPError as error:
        raise DestinationFault(
            "08006", f"the progress service {settings.url} does not answer: {type(error).__name__}"
        ) from None
    if answer.is_success:
        return dict(answer.json())
    if answer.status_code >= 500:  # noqa: PLR2004 - HTTP's server errors
        raise DestinationFault(str(answer.status_code), f"the progress service {settings.url}")
    raise DeploymentFault(f"the progress service {settings.url} answers {answer.status_code}: {_detail(answer)}")


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail", ""))[:500]
    except ValueError:
        return ""


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
