"""The text of a new flow's module, formatted as ruff would format it."""

import json
import re
from collections.abc import Sequence
from itertools import starmap
from keyword import iskeyword

from lovelace_streams.admin.scaffold.shape import FlowShape

WIDTH = 88
"""The usual formatters leave lines of this width as they are."""
IMPORTED = {"Any", "Dataflow", "Decimal", "JsonDecoder", "KafkaSource", "PostgresWriter", "Row", "Settings", "Source"}
STANDARD_TYPES = (
    ("datetime", ("date", "datetime")),
    ("decimal", ("Decimal",)),
    ("typing", ("Any",)),
    ("uuid", ("UUID",)),
)
"""The types of fields that need an import, by module."""


def render(name: str, topic: str, table: str, shape: FlowShape) -> str:
    """Write the module's text."""
    row = _class_name(table)
    return MODULE.format(
        name=name,
        topic=json.dumps(topic),
        table=table,
        imports=_imports(shape),
        row=row,
        header=_header(row, table, shape.key),
        about=_about(shape),
        fields="\n    ".join(field.line() for field in shape.fields),
        key=", ".join(map(json.dumps, shape.key)),
    )


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


def _imports(shape: FlowShape) -> str:
    used = set(re.findall(r"\w+", " ".join(field.type for field in shape.fields)))
    needed = ((module, [name for name in names if name in used]) for module, names in STANDARD_TYPES)
    lines = "".join(starmap("from {} import {}\n".format, ((m, ", ".join(n)) for m, n in needed if n)))
    return f"{lines}\n" if lines else ""


MODULE = '''"""Topic → table {table}, without jobs; written by `lovelace init`, yours to change.

Run it: python -m bytewax.run dataflows.{name}
"""

{imports}from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import JsonDecoder, KafkaSource, Row, Settings, Source
from lovelace_streams.submit import keyed_by
from lovelace_streams.writers.postgres import PostgresWriter

TOPIC = {topic}


{header}
    """{about}

    Annotated[int, From("user.id")] reads another path. `T | None`: absent keeps what is
    stored, null empties it. version="column": the newer row wins, whatever the order.
    """

    {fields}


SOURCE = Source(
    "{name}",
    topic=TOPIC,
    rows=({row},),
    messages=keyed_by({key}),
)


def flow(settings: Settings | None = None) -> Dataflow:
    """Messages of one row have one key, so that the last of them wins."""
    settings = settings or Settings()
    source = KafkaSource(settings.kafka, topics=[TOPIC])
    writer = PostgresWriter(settings.postgres, {row})

    flow = Dataflow("{name}")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, JsonDecoder({row}))
    rows = ls.normalize("normalize", decoded.oks, {row})
    batches = ls.batch("batch", rows.oks, settings.batch)
    written = ls.upsert("upsert", batches, writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, rows.errs, written.errs)
    settled = (written.settled, dead.settled, decoded.skipped, rows.skipped)
    ls.commit("commit", source, *settled)
    return flow
'''
