"""Write a first flow for a topic and a table, as a file to read, run and change (`lovelace init`).

The row comes from the real table if there is one, by the same reading of the catalogue that the writer checks by. Else
it comes from the topic's newest messages: from the schema of Avro messages, or from the types of JSON values. Else it
is left to fill in. The decoder is that of the messages. No value is written down but the names of kinds of messages.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from keyword import iskeyword
from pathlib import Path

from lovelace_streams.admin.scaffold.from_avro import shape_of_schemas
from lovelace_streams.admin.scaffold.from_messages import shape_of_objects
from lovelace_streams.admin.scaffold.from_table import shape_of_table, tables_of
from lovelace_streams.admin.scaffold.kinds import Kinds, kinds_of
from lovelace_streams.admin.scaffold.module import render
from lovelace_streams.admin.scaffold.nearest import nearest
from lovelace_streams.admin.scaffold.sample import Sample, newest_values, sample_of
from lovelace_streams.admin.scaffold.shape import SKELETON, FlowReading, FlowShape
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import Settings

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
TABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")


def write_flow(
    settings: Settings,
    name: str,
    topic: str,
    table: str,
    folder: Path,
    *,
    schemas: Sequence[str] = (),
    is_new: bool = True,
    note: Callable[[str], object] = lambda _: None,
) -> Path:
    """Write `<folder>/<name>.py`; answers its path.

    `schemas` are the files of the Avro schemas that wrote the messages, where those name no registry. Without `is_new`
    the topic and the table have to exist. `note` takes lines about what was found, for the person who runs this.

    Raises `DeploymentFault` for invalid names, a file that exists, a topic or table that does not, a table without a
    key, and Avro messages whose schema can't be found; `DestinationFault` if the database, the broker or the schema
    registry does not answer.
    """
    _check_names(name, topic, table)
    path = folder / f"{name}.py"
    if path.exists():
        raise _exists(path)
    shape = shape_of_table(settings.postgres, table)
    if shape is None and not is_new:
        likely = nearest(table, tables_of(settings.postgres))
        raise DeploymentFault(
            f"the database {settings.postgres.name} (POSTGRES_DSN) has no table {table!r}{likely}: create it, correct "
            "--table, or add --new to take the row from the topic's messages"
        )
    sample = sample_of(settings, topic, _values(settings, topic, shape, is_new=is_new, note=note), schemas)
    kinds = kinds_of(sample.objects)
    shape = shape or _shape_of(sample, kinds) or SKELETON
    reading = _reading(sample, kinds, shape, schemas)
    for line in _notes(sample, kinds, reading):
        note(line)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "__init__.py").exists():  # without it, Python would find an installed `dataflows` instead
        (folder / "__init__.py").write_text("")
    try:
        with path.open("x") as file:
            file.write(render(name, topic, table, shape, reading))
    except FileExistsError:
        raise _exists(path) from None
    return path


def _values(
    settings: Settings, topic: str, shape: FlowShape | None, *, is_new: bool, note: Callable[[str], object]
) -> list[bytes]:
    """Read the topic. With a table's row a flow can be written while the broker is away."""
    try:
        return newest_values(settings.kafka, topic, is_new=is_new)
    except DestinationFault as fault:
        if shape is None:
            raise
        note(f"{fault}. The topic was not looked at: the flow decodes JSON")
        return []


def _shape_of(sample: Sample, kinds: Kinds | None) -> FlowShape | None:
    """Take the row from the messages: from a schema if there is one, from where the items of all kinds are."""
    if sample.schemas:
        return shape_of_schemas(sample.schemas)
    if kinds is not None and kinds.container:
        return shape_of_objects([each[kinds.container] for each in sample.objects])
    return shape_of_objects(sample.objects)


def _reading(sample: Sample, kinds: Kinds | None, shape: FlowShape, schemas: Sequence[str]) -> FlowReading:
    paths = kinds.paths(shape.key) if kinds is not None and not sample.framing else {}
    return FlowReading(
        framing=sample.framing,
        mixed=bool(sample.framing and sample.objects),
        schemas=tuple(schemas) if sample.framing in {"single", "bare"} else (),
        kinds_by=kinds.field if kinds is not None and paths else "",
        kinds=tuple(paths.items()),
    )


def _notes(sample: Sample, kinds: Kinds | None, reading: FlowReading) -> Iterator[str]:
    if kinds is not None:
        read = ", ".join(kind for kind, _ in reading.kinds)
        does = f"the flow reads {read} (EVENTS) and skips all others" if read else "the flow reads all of them as one"
        yield (
            f"the topic holds {len(kinds.counts)} kinds of messages, told apart by {kinds.field!r}: {kinds}; {does}. "
            "Give each kind its own Items(path, RowClass) in Events(…): docs/events.md"
        )
    if len(names := sorted({schema.name for schema in sample.schemas})) > 1:
        yield (
            f"the topic holds records of {len(names)} Avro schemas: {', '.join(names)}; the row is that of the newest "
            "message. A message of another record fails where it lacks a required field"
        )
    if sample.framing and sample.objects:
        yield f"some messages are JSON ({len(sample.objects)}) and some Avro ({sample.avro}): the flow reads both"
    if unread := sample.messages - len(sample.objects) - sample.avro:
        yield (
            f"{unread} of {sample.messages} messages are neither JSON objects nor Avro that says its schema, and would "
            "fail; for Avro without a frame, add --schema FILE.avsc"
        )


def _exists(path: Path) -> DeploymentFault:
    return DeploymentFault(f"{path} is there already: choose another name, or remove it first")


def _check_names(name: str, topic: str, table: str) -> None:
    if not name.isidentifier() or not name.isascii() or iskeyword(name) or name.startswith("__"):
        raise DeploymentFault(
            f"the flow's name {name!r} is invalid: it becomes a Python module, so use letters, digits and _"
        )
    if not TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise DeploymentFault(
            f"--topic {topic!r} is invalid: use letters, digits, '.', '_' and '-', at most 249 of them"
        )
    if not TABLE.fullmatch(table):
        raise DeploymentFault(f"--table {table!r} is invalid: use [schema.]table in letters, digits and _")
