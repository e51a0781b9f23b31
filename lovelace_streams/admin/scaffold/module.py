"""The text of a new flow's module, formatted as ruff would format it."""

import json
import re
from collections.abc import Sequence
from itertools import starmap
from keyword import iskeyword

from lovelace_streams.admin.scaffold.shape import WIDTH, FlowReading, FlowShape

IMPORTED = {
    "Annotated", "Any", "AvroDecoder", "Bare", "Dataflow", "Decimal", "Events", "From", "Items", "JsonDecoder",
    "JsonOrAvro", "KafkaSource", "Name", "PostgresWriter", "Row", "Scale", "Settings", "SingleObject", "Skip", "Source",
}  # fmt: skip
STANDARD_TYPES = (
    ("datetime", ("date", "datetime")),
    ("decimal", ("Decimal",)),
    ("typing", ("Annotated", "Any")),
    ("uuid", ("UUID",)),
)
"""The types of fields that need an import, by module."""


def render(name: str, topic: str, table: str, shape: FlowShape, reading: FlowReading) -> str:
    """Write the module's text."""
    row = _class_name(table)
    source = SOURCE.format(name=name, row=row, key=", ".join(map(json.dumps, _message_key(shape))))
    has_source = reading.is_json and {path for _, path in reading.kinds} <= {"$"}
    return MODULE.format(
        name=name,
        topic=json.dumps(topic),
        table=table,
        imports=_imports(shape),
        row=row,
        header=_header(row, table, shape.key),
        about=_about(shape),
        fields="\n    ".join(field.line() for field in shape.fields),
        ours=_ours(shape, reading, has_source=has_source),
        schemas=_schemas(reading),
        events=_events(reading, row),
        source=source if has_source else "",
        decode=_decode(reading, row),
    )


def _ours(shape: FlowShape, reading: FlowReading, *, has_source: bool) -> str:
    """Import what the module uses of ours."""
    events = ["Events", "Items", "Skip"] if reading.kinds else []
    json_too = ["JsonDecoder"] if reading.is_json else []
    names = sorted(
        [*events, *_marks(shape), *json_too, "KafkaSource", "Row", "Settings", *(["Source"] if has_source else [])]
    )
    avro = ["AvroDecoder"] if reading.framing else []
    avro += (["JsonOrAvro"] if reading.mixed else []) + (["SingleObject"] if reading.framing == "single" else [])
    lines = [_import("lovelace_streams", names)]
    lines += [_import("lovelace_streams.avro", avro)] if avro else []
    lines += ["from lovelace_streams.submit import keyed_by"] if has_source else []
    return "\n".join(lines)


def _import(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= WIDTH else f"from {module} import (\n{''.join(f'    {n},{chr(10)}' for n in names)})"


def _schemas(reading: FlowReading) -> str:
    if not reading.schemas:
        return ""
    if len(reading.schemas) == 1:
        return f"SCHEMA = {json.dumps(reading.schemas[0])}\n"
    return "SCHEMAS = (\n" + "".join(f"    {json.dumps(path)},\n" for path in reading.schemas) + ")\n"


def _events(reading: FlowReading, row: str) -> str:
    if not reading.kinds:
        return ""
    lines = "".join(f"        {json.dumps(kind)}: Items({json.dumps(path)}, {row}),\n" for kind, path in reading.kinds)
    return (
        f"EVENTS = Events(\n    {json.dumps(reading.kinds_by)},\n    {{\n{lines}    }},\n"
        '    otherwise=Skip("unknown_event"),\n)\n\n\n'
    )


def _decode(reading: FlowReading, row: str) -> str:
    """Write the step that decodes, with its decoder on a line of its own where that is longer."""
    what = "EVENTS" if reading.kinds else row
    if not reading.framing:
        return f'    decoded = ls.decode("decode", raw, JsonDecoder({what}))'
    schemas = "SCHEMA" if len(reading.schemas) == 1 else "*SCHEMAS"
    writer = {"registry": "settings.registry", "single": f"SingleObject({schemas})", "bare": schemas}[reading.framing]
    lines = [f"    decoder = AvroDecoder({writer}, {what})"]
    if reading.mixed:
        lines = [f"    avro = AvroDecoder({writer}, {what})", f"    decoder = JsonOrAvro(JsonDecoder({what}), avro)"]
    return "\n".join([*lines, '    decoded = ls.decode("decode", raw, decoder, source)'])


def _about(shape: FlowShape) -> str:
    if shape.origin:
        return f"From {shape.origin}; a field is read from the path of its own name."
    return "There was neither a table nor a message to look at: say what a row is."


def _class_name(table: str) -> str:
    name = "".join(part[:1].upper() + part[1:] for part in table.rpartition(".")[2].split("_"))
    if not name.isidentifier():  # the table's begins with underscores and a digit
        return f"Row{name}"
    return f"{name}Row" if name in IMPORTED or iskeyword(name) else name


def _header(row: str, table: str, key: Sequence[str]) -> str:
    keys = json.dumps(key[0]) if len(key) == 1 else f"({', '.join(map(json.dumps, key))})"
    line = f"class {row}(Row, table={json.dumps(table)}, primary_key={keys}):"
    if len(line) <= WIDTH:
        return line
    return f"class {row}(\n    Row,\n    table={json.dumps(table)},\n    primary_key={keys},\n):"


def _marks(shape: FlowShape) -> set[str]:
    """Name the marks that fields have beside their types."""
    return {mark.partition("(")[0] for field in shape.fields if not field.problem for mark in field.marks}


def _message_key(shape: FlowShape) -> list[str]:
    """Name what the messages call the key."""
    named = {field.name: field.key for field in shape.fields}
    return [named[name] for name in shape.key]


def _imports(shape: FlowShape) -> str:
    used = set(re.findall(r"\w+", " ".join(field.type for field in shape.fields)))
    used |= {"Annotated"} if _marks(shape) else set()
    needed = ((module, [name for name in names if name in used]) for module, names in STANDARD_TYPES)
    lines = "".join(starmap("from {} import {}\n".format, ((m, ", ".join(n)) for m, n in needed if n)))
    return f"{lines}\n" if lines else ""


MODULE = '''"""Topic → table {table}, without jobs; written by `lovelace init`, yours to change.

Run it: python -m bytewax.run dataflows.{name}
"""

{imports}from bytewax.dataflow import Dataflow

import lovelace_streams as ls
{ours}
from lovelace_streams.writers.postgres import PostgresWriter

TOPIC = {topic}
{schemas}

{header}
    """{about}

    Annotated[int, From("user.id")] reads another path. `T | None`: absent keeps what is
    stored, null empties it. version="column": the newer row wins, whatever the order.
    """

    {fields}


{events}{source}def flow(settings: Settings | None = None) -> Dataflow:
    """Messages of one row have one key, so that the last of them wins."""
    settings = settings or Settings()
    source = KafkaSource(settings.kafka, topics=[TOPIC])
    writer = PostgresWriter(settings.postgres, {row})

    flow = Dataflow("{name}")
    raw = ls.kafka_source("kafka", flow, source)
{decode}
    rows = ls.normalize("normalize", decoded.oks, {row})
    batches = ls.batch("batch", rows.oks, settings.batch)
    written = ls.upsert("upsert", batches, writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, rows.errs, written.errs)
    settled = (written.settled, dead.settled, decoded.skipped, rows.skipped)
    ls.commit("commit", source, *settled)
    return flow
'''

SOURCE = """SOURCE = Source(
    "{name}",
    topic=TOPIC,
    rows=({row},),
    messages=keyed_by({key}),
)


"""
