"""Samples of failed items: the values at the paths that a flow's rows ask for; personal ones masked, all else left out.

A path that any row of the flow marks as `Pii` is masked in all rows, with all paths below it. Of an object or a list
only the kind is shown, because it may hold anything. An item that is mapped by a function shows nothing.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec
import structlog
from msgspec import UNSET

from lovelace_streams.dead_letters.reader import Filter, StoredDeadLetter, letter_of
from lovelace_streams.errors import DeploymentFault, DestinationFault, LovelaceError
from lovelace_streams.flows.discovery import flow_names, topology
from lovelace_streams.flows.topology import Topology
from lovelace_streams.formats.decoder import Decoder, Ports
from lovelace_streams.kafka.topic_reader import messages
from lovelace_streams.records import Record
from lovelace_streams.rows.declaration import From
from lovelace_streams.rows.normalizer import RawItem
from lovelace_streams.rows.paths import JsonPath, find
from lovelace_streams.rows.row import Row
from lovelace_streams.settings import KafkaSettings

log = structlog.get_logger(__name__)

LETTERS_MAX = 200
"""The newest letters of a partition are read, this many."""
SAMPLES_MAX = 10
TEXT_MAX = 80
MASK = "•••"


class SampleField(msgspec.Struct, frozen=True):
    """A value as the page shows it; `state`: `value`, `masked`, `absent` or `kind` (of an object or a list)."""

    path: str
    text: str
    state: str


class Sample(msgspec.Struct, frozen=True):
    """One failed item; `note` says why it has no fields."""

    origin: str
    item: int
    reason: str
    detail: str
    fields: list[SampleField]
    note: str = ""


class Samples(msgspec.Struct, frozen=True):
    """The samples; `note` says why there are none."""

    found: list[Sample]
    note: str = ""


def samples_of(settings: KafkaSettings, pipeline: str, wanted: Filter) -> Samples:
    """Read samples of a pipeline's newest letters. Waits for the broker, so call it in a thread. Raises nothing."""
    try:
        flow = _topology_of(pipeline)
        topic = settings.dead_letter_topic or f"{pipeline}.dlq"
        return Samples(list(islice(_samples(settings, topic, flow, wanted), SAMPLES_MAX)))
    except DestinationFault:
        return Samples([], "The broker does not answer. Please try again in a moment.")
    except DeploymentFault as fault:
        return Samples([], f"{fault}.")
    except Exception as error:  # noqa: BLE001 - the flow is the user's code, and its errors must not end the service
        log.warning("no samples", pipeline=pipeline, error=type(error).__name__)
        return Samples([], f"Building the dataflow {pipeline} raised {type(error).__name__} in the service.")


def _topology_of(pipeline: str) -> Topology:
    """Import a dataflow only if it is in `dataflows`, because the name comes from the visitor."""
    if pipeline not in flow_names():
        raise DeploymentFault("there is no dataflow of this pipeline's name where the service was started")
    return topology(pipeline)


def _samples(settings: KafkaSettings, topic: str, flow: Topology, wanted: Filter) -> Iterator[Sample]:
    letters = [letter_of(message, with_value=True) for message in messages(settings, topic, newest=LETTERS_MAX)]
    for letter in sorted(letters, key=lambda letter: letter.at, reverse=True):
        if wanted.takes(letter):
            yield from islice(_items(letter, flow, wanted.reason), 3)


def _items(letter: StoredDeadLetter, flow: Topology, reason: str | None) -> Iterator[Sample]:
    items = _decoded(letter, flow)
    for number, named in letter.items:
        if reason in {None, named}:
            raw = items.get(number)
            fields = [] if raw is None else list(fields_of(raw, flow.rows))
            note = "" if fields else _why_without_fields(letter, raw)
            yield Sample(letter.origin.partition("/")[2], number, named, letter.detail, fields, note)


def _why_without_fields(letter: StoredDeadLetter, raw: RawItem | None) -> str:
    if letter.truncated:
        return "The letter was too large to carry the message's value."
    return (
        "The message cannot be decoded." if raw is None else "A function maps this item: its fields are not declared."
    )


def _decoded(letter: StoredDeadLetter, flow: Topology) -> dict[int, RawItem]:
    """Decode a letter's message: item → its values; empty if it cannot be decoded."""
    decoder = _decoder(letter, flow)
    if decoder is None or letter.value is None:
        return {}
    ports = Ports()
    record = Record("", 0, 0, 0, 0, letter.key, letter.value, [], letter.timestamp)
    try:
        decoder.decode(record, ports.oks, ports.errs, ports.skipped)
    except LovelaceError:
        return {}
    return {each.item: each.payload for each in ports.oks if isinstance(each.payload, RawItem)}


def _decoder(letter: StoredDeadLetter, flow: Topology) -> Decoder | None:
    topic = letter.source.topic if letter.source is not None else ""
    decoders = {topic: route.decoder for route in flow.routes for topic in route.source.topics}
    return decoders.get(topic, flow.routes[0].decoder)


def fields_of(raw: RawItem, rows: tuple[type[Row], ...]) -> Iterator[SampleField]:
    """Yield the fields that the item's own row class asks for by path, each path once."""
    if raw.target.row is None:
        return
    masked = {path for row in (raw.target.row, *rows) for path, _, is_pii in paths_of(row, raw.base) if is_pii}
    item, root = raw.plain()
    asked_for = {path: relative for path, relative, _ in paths_of(raw.target.row, raw.base)}
    for path, relative in asked_for.items():
        value = _value(root if relative.root else item, relative)
        if value is UNSET:
            yield SampleField(path, "absent", "absent")
        elif any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in masked):
            yield SampleField(path, MASK, "masked")
        else:
            yield field_of(path, value)


def paths_of(row: type[Row], base: str) -> Iterator[tuple[str, JsonPath, bool]]:
    """Yield absolute path, path and mark of each column; the absolute path makes two ways to one field equal."""
    for column in row.__table__.columns:
        if isinstance(column.source, From):
            for path in column.source.paths:
                relative = JsonPath.of(path)
                yield relative.below(base), relative, column.pii is not None


def _value(within: Any, path: JsonPath) -> Any:
    try:
        return find(within, path.parts)
    except LovelaceError:
        return UNSET


def field_of(path: str, value: Any) -> SampleField:
    """Format a scalar as JSON; of an object or a list only its kind."""
    if isinstance(value, dict):
        return SampleField(path, "an object", "kind")
    if isinstance(value, list | tuple):
        return SampleField(path, f"a list of {len(value)}", "kind")
    text = str(value) if isinstance(value, Decimal) else msgspec.json.encode(value, enc_hook=str).decode()
    return SampleField(path, text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…", "value")
