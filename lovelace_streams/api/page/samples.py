"""Samples of what failed: the values at the paths that a flow's rows ask for; personal ones masked, all else left out.

What any row of the flow marks as `Pii` is masked wherever it is asked for, and so is what lies below it. An object or a
list is named, not shown: whatever may be in it. An item that is mapped by a function shows nothing.
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

NEWEST = 200
"""Letters of a partition that are looked at, the newest."""
SAMPLES_MAX = 10
TEXT_MAX = 80
MASK = "•••"


class Field(msgspec.Struct, frozen=True):
    """A value as it may be shown; `state`: `value`, `masked`, `absent` or `kind` (of an object or a list)."""

    path: str
    text: str
    state: str


class Sample(msgspec.Struct, frozen=True):
    """One failed item; `note` says why it has no fields."""

    origin: str
    item: int
    reason: str
    detail: str
    fields: list[Field]
    note: str = ""


class Samples(msgspec.Struct, frozen=True):
    """What was found; `note` says why there is nothing."""

    found: list[Sample]
    note: str = ""


def samples_of(settings: KafkaSettings, pipeline: str, wanted: Filter) -> Samples:
    """Samples of the newest letters of a pipeline. Waits for the broker: for a thread of its own. Raises nothing."""
    try:
        flow = _flow(pipeline)
        topic = settings.dead_letter_topic or f"{pipeline}.dlq"
        return Samples(list(islice(_samples(settings, topic, flow, wanted), SAMPLES_MAX)))
    except DestinationFault:
        return Samples([], "The broker is away.")
    except DeploymentFault as fault:
        return Samples([], f"{fault}.")
    except Exception as error:  # noqa: BLE001 - the flow is the user's code, and the service is not to end by it
        log.warning("no samples", pipeline=pipeline, error=type(error).__name__)
        return Samples([], "The flow can't be built here.")


def _flow(pipeline: str) -> Topology:
    """Only what lies in `dataflows` is imported, whatever is asked for."""
    if pipeline not in flow_names():
        raise DeploymentFault("there is no dataflow of this pipeline's name where the service was started")
    return topology(pipeline)


def _samples(settings: KafkaSettings, topic: str, flow: Topology, wanted: Filter) -> Iterator[Sample]:
    letters = [letter_of(message, with_value=True) for message in messages(settings, topic, newest=NEWEST)]
    for letter in sorted(letters, key=lambda letter: letter.at, reverse=True):
        if wanted.takes(letter):
            yield from islice(_items(letter, flow, wanted.reason), 3)


def _items(letter: StoredDeadLetter, flow: Topology, reason: str | None) -> Iterator[Sample]:
    items = _decoded(letter, flow)
    for number, named in letter.items:
        if reason in {None, named}:
            raw = items.get(number)
            fields = [] if raw is None else list(fields_of(raw, flow.rows))
            note = "" if fields else _why_not(letter, raw)
            yield Sample(letter.origin.partition("/")[2], number, named, letter.detail, fields, note)


def _why_not(letter: StoredDeadLetter, raw: RawItem | None) -> str:
    if letter.truncated:
        return "The letter came without its value, for its size."
    return "It can't be taken apart." if raw is None else "Its fields are read by a function, which names none."


def _decoded(letter: StoredDeadLetter, flow: Topology) -> dict[int, RawItem]:
    """Item → its values, of a message that can be taken apart at all."""
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


def fields_of(raw: RawItem, rows: tuple[type[Row], ...]) -> Iterator[Field]:
    """The fields that the item's own row class asks for by path, each path once."""
    if raw.target.row is None:
        return
    masked = {path for row in (raw.target.row, *rows) for path, _, is_pii in paths_of(row, raw.base) if is_pii}
    item, root = raw.plain()
    shown = {path: place for path, place, _ in paths_of(raw.target.row, raw.base)}
    for path, place in shown.items():
        value = _value(root if place.root else item, place)
        if value is UNSET:
            yield Field(path, "absent", "absent")
        elif any(path == each or path.startswith(f"{each}.") for each in masked):
            yield Field(path, MASK, "masked")
        else:
            yield shown_as(path, value)


def paths_of(row: type[Row], base: str) -> Iterator[tuple[str, JsonPath, bool]]:
    """Absolute path, place, and whether it is marked; so a field that is reached by two ways is one."""
    for column in row.__table__.columns:
        if isinstance(column.source, From):
            for path in column.source.paths:
                place = JsonPath.of(path)
                yield place.below(base), place, column.pii is not None


def _value(within: Any, place: JsonPath) -> Any:
    try:
        return find(within, place.parts)
    except LovelaceError:
        return UNSET


def shown_as(path: str, value: Any) -> Field:
    """A value of a type that holds no others, as JSON would say it; of any other its kind."""
    if isinstance(value, dict):
        return Field(path, "an object", "kind")
    if isinstance(value, list | tuple):
        return Field(path, f"a list of {len(value)}", "kind")
    text = str(value) if isinstance(value, Decimal) else msgspec.json.encode(value, enc_hook=str).decode()
    return Field(path, text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…", "value")
