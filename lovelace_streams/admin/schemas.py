"""The schemas of a folder with all their versions: whether each can read what older ones wrote, whom a change touches.

    schemas/avro/<source>/<record>.avsc         the newest, which flows read by
    schemas/avro/<source>/<record>.v<n>.avsc    every version, the newest too: they are never changed

A version that could not read an older one's data would turn records that lie in topics into dead letters.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.topology import Topology
from lovelace_streams.formats.avro import AvroDecoder, JsonOrAvro, Registry, Schema, load
from lovelace_streams.formats.avro.reading import reading
from lovelace_streams.formats.avro.schema import Field, Node
from lovelace_streams.rows.targets import Target

FOLDER = Path("schemas/avro")
COMPATIBILITY = "BACKWARD_TRANSITIVE"
"""What the registry holds subjects to: the newest reads all that came before."""
OK = 200
_KEPT = re.compile(r"(?P<record>.+)\.v(?P<number>\d+)\Z")


class History(msgspec.Struct, frozen=True):
    """One record's schema: the newest, and the versions that are kept."""

    name: str
    """`<source>/<record>`."""
    newest: Schema
    kept: dict[int, Schema]

    @property
    def versions(self) -> list[Schema]:
        """Those that are kept, oldest first."""
        return [self.kept[number] for number in sorted(self.kept)]


def histories(folder: Path = FOLDER) -> list[History]:
    """All schemas of a folder; raises `DeploymentFault` for one that can't be used or kept versions of none."""
    newest: dict[str, Schema] = {}
    kept: dict[str, dict[int, Schema]] = {}
    for path in sorted(folder.rglob("*.avsc")):
        found = _KEPT.fullmatch(path.stem)
        name = path.with_name(found["record"] if found else path.stem).relative_to(folder).as_posix()
        if found:
            kept.setdefault(name, {})[int(found["number"])] = load(path)
        else:
            newest[name] = load(path)
    if alone := sorted(set(kept) - set(newest)):
        raise DeploymentFault(f"{folder / alone[0]}.avsc is missing: there are versions of it")
    if not newest:
        raise DeploymentFault(f"no schemas in {folder}: one is {folder}/<source>/<record>.avsc")
    return [History(name, schema, kept.get(name, {})) for name, schema in newest.items()]


# ---- compatible ---------------------------------------------------------------------------------------------------


def problems(history: History) -> Iterator[str]:
    """What is wrong with a schema's versions, one line each; nothing where all is well."""
    last = max(history.kept, default=0)
    if sorted(history.kept) != list(range(1, last + 1)):
        yield f"{history.name}: versions {sorted(history.kept)} have a gap; all are kept"
    readers = dict(sorted(history.kept.items()))
    if not readers or readers[last].text != history.newest.text:
        yield f"{history.name}.avsc is not kept: copy it to {history.name}.v{last + 1}.avsc"
        readers[last + 1] = history.newest
    for newer, reader in readers.items():
        for older, writer in readers.items():
            if older < newer:
                for path, why in misfits(writer, reader):
                    yield f"{history.name}: version {newer} can't read what version {older} wrote: {why} at {path}"


def misfits(writer: Schema, reader: Schema) -> list[tuple[str, str]]:
    """Where a reader has no place for what a writer may write: path, and what was expected and got."""
    if writer.name != reader.name and writer.name not in reader.root.aliases:
        return [("$", f"expected {reader.root.shown}, got {writer.root.shown}")]
    found = [detail.rpartition(" at ") for _, detail in reading(writer.root, reader.root)[1]]
    return [(path, why) for why, _, path in found]


# ---- what a change touches ----------------------------------------------------------------------------------------


def changes(old: Node, new: Node) -> dict[tuple[str, ...], str]:
    """Field → what happened to it from one version to the next; fields that a reader finds by an alias are renamed."""
    return dict(_changes(old, new, (), frozenset()))


def _changes(old: Node, new: Node, path: tuple[str, ...], above: frozenset[Any]) -> Iterator[tuple[Any, str]]:
    """`above` are the pairs of records that this one lies within: what holds itself is compared once."""
    records = {node.name: node for node in _records(old)}
    for record in _records(new):
        before = next((records[name] for name in (record.name, *record.aliases) if name in records), None)
        pair = (id(before), id(record))
        if pair in above:
            continue
        fields = {field.name: field for field in before.fields} if before is not None else {}
        for field in record.fields:
            at = (*path, field.name)
            was = next((fields.pop(name) for name in (field.name, *field.aliases) if name in fields), None)
            if was is None:
                yield at, "new"
                continue
            if what := _change(was, field):
                yield at, what
            yield from _changes(was.type, field.type, at, above | {pair})
        for name in fields:
            yield (*path, name), "gone"


def _change(was: Field, field: Field) -> str:
    """What happened to a field itself, whatever happened within it; "" for nothing."""
    if was.name != field.name:
        return f"{was.name} before"
    if _leaves(was.type) != _leaves(field.type):
        return f"{was.type.shown} before"
    return "" if repr(was.default) == repr(field.default) else "another default"


def _records(node: Node) -> list[Node]:
    """The records that a type holds, through unions, arrays and maps."""
    return [node] if node.kind == "record" else [record for inner in node.inner for record in _records(inner)]


def _leaves(node: Node) -> Any:
    """A type without what is within its records: what makes it another one."""
    named = (node.name, node.symbols, node.size, node.default) if node.name else ()
    return (node.kind, *named, node.logical, *map(_leaves, node.inner))


def touched(history: History, changed: Iterable[tuple[str, ...]], journey: Topology) -> Iterator[str]:
    """Rows and columns of a flow that read what has changed: `Row.column`, or a function, which sees everything."""
    changed = list(changed)
    for target in _targets(history, journey):
        if target.row is None:
            yield target.name
            continue
        for field in target.fields:
            paths = [place.parts if place.root else (*target.path, *place.parts) for place in field.places]
            if any(_meet(path, at) for path in paths for at in changed):
                yield f"{target.name}.{field.column.name}"


def _targets(history: History, journey: Topology) -> Iterator[Target]:
    """What a flow makes of data that this schema describes."""
    for lane in journey.lanes:
        decoder = lane.decoder.avro if isinstance(lane.decoder, JsonOrAvro) else lane.decoder
        if isinstance(decoder, AvroDecoder) and any(_same(schema, history) for schema in decoder.schemas):
            yield from {id(target): target for target in decoder.targets.values()}.values()


def topics(history: History, journey: Topology) -> list[str]:
    """The topics that a flow reads by this schema."""
    return [topic for lane in journey.lanes for topic in lane.source.topics] if any(_targets(history, journey)) else []


def _same(schema: Schema, history: History) -> bool:
    paths = [history.newest.path, *(version.path for version in history.versions)]
    return schema.path in paths if schema.path is not None else schema.name == history.newest.name


def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one path lies within the other."""
    return all(a == b for a, b in zip(one, other, strict=False))


# ---- the registry -------------------------------------------------------------------------------------------------


def register(registry: Registry, history: History, topic: str) -> Iterator[tuple[str, int, int, str]]:
    """Put all versions under `<topic>-value`, in order: (subject, version here, id, what was done).

    Repeated, it changes nothing. Raises `DeploymentFault` where the registry refuses a version, `DestinationFault`
    where it is away.
    """
    subject = f"{topic}-value"
    path = f"/subjects/{quote(subject, safe='')}"
    for number, schema in sorted(history.kept.items()):
        body = {"schema": json.dumps(schema.text), "schemaType": "AVRO"}
        status, answer = registry.ask("POST", path, body)
        done = "is there"
        if status != OK:
            status, answer = registry.ask("POST", f"{path}/versions", body)
            done = "registered"
        if status != OK:
            raise DeploymentFault(
                f"{registry.name} refuses version {number} of {history.name} for {subject} ({status})"
            )
        yield subject, number, int(answer["id"]), done
    status, _ = registry.ask("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": COMPATIBILITY})
    if status != OK:
        raise DeploymentFault(f"{registry.name} does not take {COMPATIBILITY} for {subject} ({status})")
