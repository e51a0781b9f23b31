"""The schemas of a folder with all their versions: whether each reads older data, which flows a change hits.

    schemas/avro/<source>/<record>.avsc         the newest, by which flows read
    schemas/avro/<source>/<record>.v<n>.avsc    every version, the newest too; none ever changes

A version that could not read an older one's data would turn records that lie in topics into dead letters.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.flows.discovery import find_flow, flow_names, topology
from lovelace_streams.flows.topology import Topology
from lovelace_streams.formats.avro import AvroDecoder, JsonOrAvro, Registry, Schema, load
from lovelace_streams.formats.avro.paths import ImpossiblePath
from lovelace_streams.formats.avro.reading import reading
from lovelace_streams.formats.avro.schema import Field, Node
from lovelace_streams.rows.targets import Target
from lovelace_streams.settings import Settings

FOLDER = Path("schemas/avro")
COMPATIBILITY = "BACKWARD_TRANSITIVE"
"""The registry's rule for subjects: the newest version reads the data of all older ones."""
OK = 200
_KEPT = re.compile(r"(?P<record>.+)\.v(?P<number>\d+)\Z")


class History(msgspec.Struct, frozen=True):
    """The schema of one record: the newest, and the kept versions."""

    name: str
    """`<source>/<record>`."""
    newest: Schema
    kept: dict[int, Schema]

    @property
    def previous(self) -> Schema | None:
        """The last kept version that differs from the newest."""
        older = [version for version in self.versions if version.text != self.newest.text]
        return older[-1] if older else None

    @property
    def versions(self) -> list[Schema]:
        """The kept versions, oldest first."""
        return [self.kept[number] for number in sorted(self.kept)]


def histories(folder: Path = FOLDER) -> list[History]:
    """Load all schemas of a folder. Raises `DeploymentFault` for an invalid one, and for versions without it."""
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
        raise DeploymentFault(
            f"{folder / alone[0]}.avsc is missing, but versions of it are there: copy the newest to it"
        )
    if not newest:
        raise DeploymentFault(f"no schemas in {folder}: put them there as <source>/<record>.avsc, or set --folder")
    return [History(name, schema, kept.get(name, {})) for name, schema in newest.items()]


# ---- compatible ---------------------------------------------------------------------------------------------------


def problems(history: History) -> Iterator[str]:
    """Find what is wrong with a schema's versions, one line each."""
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
    """Find the data of a writer that a reader can't read: path, and the expected and the actual type."""
    if writer.name != reader.name and writer.name not in reader.root.aliases:
        return [("$", f"expected {reader.root.shown}, got {writer.root.shown}")]
    found = [detail.rpartition(" at ") for _, detail in reading(writer.root, reader.root)[1]]
    return [(path, why) for why, _, path in found]


# ---- which columns a change hits ------------------------------------------------------------------------------------


def changes(old: Node, new: Node) -> dict[tuple[str, ...], str]:
    """Compare two versions: field → its change. A field that a reader finds by an alias counts as renamed."""
    return dict(_changes(old, new, (), frozenset()))


def _changes(old: Node, new: Node, path: tuple[str, ...], above: frozenset[Any]) -> Iterator[tuple[Any, str]]:
    """`above` holds the pairs of records around this one, so that a recursive record is compared once."""
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
    """Describe the change of a field itself, without the changes within it; "" for none."""
    if was.name != field.name:
        return f"{was.name} before"
    if _leaves(was.type) != _leaves(field.type):
        return f"{was.type.shown} before"
    return "" if repr(was.default) == repr(field.default) else "another default"


def _records(node: Node) -> list[Node]:
    """List the records that a type holds, through unions, arrays and maps."""
    return [node] if node.kind == "record" else [record for inner in node.inner for record in _records(inner)]


def _leaves(node: Node) -> Any:
    """Give what tells a type from another one, without the fields of its records."""
    named = (node.name, node.symbols, node.size, node.default) if node.name else ()
    return (node.kind, *named, node.logical, *map(_leaves, node.inner))


class Flows(msgspec.Struct, frozen=True):
    """The flows of `dataflows`, by name, as they could be built."""

    built: dict[str, Topology]
    misfits: dict[str, ImpossiblePath]
    """Flows that read a path which their own schemas do not have."""
    left_out: dict[str, DeploymentFault]
    """Flows that can't be built for another reason: a setting is missing, say."""


def built_flows() -> Flows:
    """Build the flows, which connects to no server."""
    flows = Flows({}, {}, {})
    for name in flow_names():
        if not hasattr(find_flow(name), "flow"):
            continue
        try:
            flows.built[name] = topology(name)
        except ImpossiblePath as misfit:
            flows.misfits[name] = misfit
        except DeploymentFault as fault:
            flows.left_out[name] = fault
    return flows


def touched(history: History, changed: Iterable[tuple[str, ...]], topology: Topology) -> Iterator[str]:
    """Find the columns of a flow that read a changed field: `Row.column`, or a function, which sees the whole item."""
    changed = list(changed)
    for target in _targets(history, topology):
        if target.row is None:
            yield target.name
            continue
        for field in target.fields:
            paths = [place.parts if place.root else (*target.path, *place.parts) for place in field.places]
            if any(_within(path, at) for path in paths for at in changed):
                yield f"{target.name}.{field.column.name}"


def _targets(history: History, topology: Topology) -> Iterator[Target]:
    """Find the rows and functions that a flow reads by this schema."""
    for route in topology.routes:
        decoder = route.decoder.avro if isinstance(route.decoder, JsonOrAvro) else route.decoder
        if isinstance(decoder, AvroDecoder) and any(_same(schema, history) for schema in decoder.schemas):
            yield from {id(target): target for target in decoder.targets.values()}.values()


def topics(history: History, topology: Topology) -> list[str]:
    """Find the topics that a flow reads by this schema."""
    return list(topology.topics) if any(_targets(history, topology)) else []


def _same(schema: Schema, history: History) -> bool:
    paths = [history.newest.path, *(version.path for version in history.versions)]
    return schema.path in paths if schema.path is not None else schema.name == history.newest.name


def _within(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one path lies within the other."""
    return all(a == b for a, b in zip(one, other, strict=False))


# ---- the registry -------------------------------------------------------------------------------------------------


class Registered(msgspec.Struct):
    """What is needed of the registry's answer to a registration."""

    id: int


def register(settings: Settings, history: History, topic: str) -> Iterator[tuple[str, int, int, str]]:
    """Register all versions under `<topic>-value`, in order; give (subject, version here, id, `registered` or not).

    A second call changes nothing. Raises `DeploymentFault` if the registry refuses a version, `DestinationFault` if it
    does not answer.
    """
    registry = Registry(settings.registry)
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
        try:
            yield subject, number, msgspec.convert(answer, Registered, strict=False).id, done
        except msgspec.ValidationError:
            raise DestinationFault(str(status), f"{registry.name} answers something else") from None
    status, _ = registry.ask("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": COMPATIBILITY})
    if status != OK:
        raise DeploymentFault(f"{registry.name} does not take {COMPATIBILITY} for {subject} ({status})")
