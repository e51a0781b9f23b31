"""A first flow for one's own topic and table, written as a file to read, run and change (`lovelace init`).

What a row is comes from the real table where it exists (the same reading of the catalogue that the writer checks by),
else from the kinds of values in the topic's newest messages, else it is left to fill in. No value is written down.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import starmap
from keyword import iskeyword
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from lovelace_streams.errors import DeploymentFault, DestinationFault, RecordFault
from lovelace_streams.kafka.topic_reader import messages
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.values import INT_MAX, INT_MIN, json_type_name, parse
from lovelace_streams.settings import Settings
from lovelace_streams.writers.postgres.catalog import COLUMNS, RELATION, UNIQUES
from lovelace_streams.writers.postgres.faults import fault_of
from lovelace_streams.writers.postgres.types import TypeInfo, holds

SAMPLE = 100
"""Messages of each partition that are looked at where there is no table."""
WIDTH = 88
"""Lines that fit the usual formatters as they are."""
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
TABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")


class Field(msgspec.Struct, frozen=True):
    """One column of the row to be; with `problem` it is written as a comment."""

    name: str
    type: str = ""
    optional: bool = False
    problem: str = ""

    def line(self) -> str:
        """As it stands in the class."""
        if self.problem:
            return f"# {self.name}: {self.problem}"
        return f"{self.name}: {self.type}{' | None' if self.optional else ''}"


class Shape(msgspec.Struct, frozen=True):
    """What was found out about the rows, and from what."""

    origin: str
    key: tuple[str, ...]
    fields: tuple[Field, ...]


def write_flow(settings: Settings, name: str, topic: str, table: str, folder: Path) -> Path:
    """Write `<folder>/<name>.py`; answers its path.

    Raises `DeploymentFault` for names that can't be, a file that is there, and a table that has no key;
    `DestinationFault` where the database (or, without a table, the broker) is away.
    """
    _check_names(name, topic, table)
    path = folder / f"{name}.py"
    if path.exists():
        raise DeploymentFault(f"{path} is there already: choose another name, or remove it first")
    shape = of_table(settings, table) or of_messages(settings, topic) or _SKELETON
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "__init__.py").exists():  # without it, a `dataflows` that is installed would be found instead
        (folder / "__init__.py").write_text("")
    try:
        with path.open("x") as file:
            file.write(render(name, topic, table, shape))
    except FileExistsError:
        raise DeploymentFault(f"{path} is there already: choose another name, or remove it first") from None
    return path


def _check_names(name: str, topic: str, table: str) -> None:
    if not name.isidentifier() or not name.isascii() or iskeyword(name) or name.startswith("__"):
        raise DeploymentFault(f"{name!r} can't be a flow's name: it becomes a Python module (letters, digits and _)")
    if not TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise DeploymentFault(f"{topic!r} can't be a topic's name: letters, digits, '.', '_' and '-', at most 249")
    if not TABLE.fullmatch(table):
        raise DeploymentFault(f"{table!r} can't be a table's name here: [schema.]table in letters, digits and _")


# -- what a row is: the table -----------------------------------------------------------------------------------------

_SCALARS: tuple[tuple[Any, str], ...] = (
    (bool, "bool"),
    (Decimal, "Decimal"),  # before int, which a numeric would hold as well
    (int, "int"),
    (float, "float"),
    (datetime, "datetime"),
    (date, "date"),
)
_TYPES: tuple[tuple[Any, str], ...] = (
    *_SCALARS,
    (str, "str"),
    *((list[kind], f"list[{name}]") for kind, name in _SCALARS),  # type: ignore[valid-type]
    (list[str], "list[str]"),
)
_BY_NAME = {"json": "dict[str, Any]", "jsonb": "dict[str, Any]", "uuid": "UUID", "_uuid": "list[UUID]", "bytea": ""}
"""What a list or a `str` could be written to as well, but is seldom meant by."""


def of_table(settings: Settings, table: str) -> Shape | None:
    """The columns and the key of the real table; None where there is no such table."""
    postgres = settings.postgres
    try:
        with psycopg.connect(postgres.dsn, connect_timeout=10) as connection:
            cursor = connection.cursor(row_factory=namedtuple_row)
            found: Sequence[Any] = cursor.execute(RELATION, [sql.Identifier(*table.split(".")).as_string()]).fetchall()
            if not found:
                return None
            oid = found[0].oid
            columns: Sequence[Any] = cursor.execute(COLUMNS, [oid, oid]).fetchall()
            uniques: Sequence[Any] = cursor.execute(UNIQUES, [[oid]]).fetchall()
    except psycopg.Error as error:
        if error.sqlstate and fault_of(error.sqlstate) == "deployment":
            message = f"{postgres.name} refuses to describe table {table} (SQLSTATE {error.sqlstate})"
            raise DeploymentFault(message, error.sqlstate) from None
        raise DestinationFault(error.sqlstate or "08001", f"{postgres.name}, asked for the table's columns") from None
    required = {column.name for column in columns if column.not_null}
    key = next((u.columns for u in uniques if u.whole and u.immediate and required.issuperset(u.columns)), None)
    if key is None:
        raise DeploymentFault(f"table {table} has no primary key, so a replay would write rows twice: add one")
    fields = tuple(_of_column(column, in_key=column.name in key) for column in columns)
    key = [column.name for column in columns if column.name in key]
    if bad := next((f for f in fields if f.problem and f.name in key), None):
        raise DeploymentFault(f"table {table}: its key has the column {bad.name}, which is {bad.problem}")
    return Shape("the columns of the table", tuple(key), fields)


def _of_column(column: Any, *, in_key: bool) -> Field:
    if column.generated or column.always:
        return Field(column.name, problem="generated by the database")
    if problem := _unusable(column.name):
        return Field(column.name, problem=problem)
    real = TypeInfo(column.base, column.category, column.spelled, column.modifier >= 0, column.modifier, True, "")
    name = next((name for kind, name in _TYPES if holds(kind, real)), "")
    name = _BY_NAME.get(column.base, name)
    if not name:
        hint = "; an instant needs timestamptz" if column.base == "timestamp" else ""
        return Field(column.name, problem=f"{column.shown}, which no field type can be written to{hint}")
    return Field(column.name, name, optional=not in_key and (not column.not_null or column.filled))


def _unusable(name: str) -> str:
    if not name.isidentifier() or iskeyword(name):
        return "a name that no Python field can have"
    return "a name that rows have taken" if hasattr(Row, name) or name.startswith("_") else ""


# -- what a row is: the topic's messages ------------------------------------------------------------------------------


def of_messages(settings: Settings, topic: str) -> Shape | None:
    """The fields that the newest messages have, and a guess of their key; None without JSON objects to look at."""
    try:
        values = [message.value() for message in messages(settings.kafka, topic, newest=SAMPLE)]
    except DeploymentFault:
        return None
    objects = [value for value in map(_parsed, values) if isinstance(value, dict)]
    found: dict[str, list[Any]] = {}
    for each in objects:
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    fields = tuple(_of_values(name, seen, len(objects)) for name, seen in found.items())
    if not fields:
        return None
    origin = f"{len(objects)} messages of the topic"
    if key := _key_of(fields, found):
        return Shape(origin, (key,), fields)
    # nothing is in every message: the class needs a key, and somebody who knows which
    others = tuple(field for field in fields if field.name != "id")
    return Shape(f"{origin}, none of which says what makes a row the same row", ("id",), (Field("id", "int"), *others))


def _parsed(value: bytes | None) -> Any:
    try:
        return parse(value or b"")
    except RecordFault:
        return None


def _of_values(name: str, values: Sequence[Any], messages: int) -> Field:
    if problem := _unusable(name):
        return Field(name, problem=problem)
    there = [value for value in values if value is not None]
    kind = _kind(there) if there else "str"
    if not kind:
        return Field(name, problem=f"{' or '.join(sorted(set(map(json_type_name, there))))}: say which")
    return Field(name, kind, optional=len(there) < messages)


def _kind(values: Sequence[Any]) -> str:
    """The annotation that all of these fit, "" where none does."""
    kinds = {type(value) for value in values}
    if kinds == {list}:
        inner = [each for value in values for each in value]
        plain = _kind(inner) if inner and not {list, dict} & set(map(type, inner)) else ""
        return f"list[{plain or 'Any'}]"
    if kinds == {str}:
        return next((name for kind, name in ((datetime, "datetime"), (UUID, "UUID")) if _all(kind, values)), "str")
    if kinds == {int} and all(INT_MIN <= value <= INT_MAX for value in values):
        return "int"
    if kinds <= {int, Decimal}:
        return "Decimal"
    return {bool: "bool", dict: "dict[str, Any]"}.get(kinds.pop(), "") if len(kinds) == 1 else ""


def _all(kind: Any, values: Iterable[str]) -> bool:
    try:
        made = [msgspec.convert(value, kind) for value in values]
    except msgspec.ValidationError:
        return False
    return kind is not datetime or all(value.tzinfo is not None for value in made)


def _key_of(fields: Sequence[Field], found: dict[str, list[Any]]) -> str | None:
    """The likeliest key: a required number, text or UUID, by its name, else the first that differs in every message."""
    able = [f.name for f in fields if not f.problem and not f.optional and f.type in {"int", "str", "UUID"}]
    named = [name for name in ("id", "key", "uuid") if name in able] + [n for n in able if n.endswith("_id")]
    distinct = [name for name in able if len(set(found[name])) == len(found[name])]
    return next(iter([*named, *distinct, *able]), None)


_SKELETON = Shape(
    "",
    ("id",),
    (
        Field("id", "int"),
        Field("name", problem="str | None"),
        Field("amount", problem='Annotated[Decimal, From("total.amount")]'),
        Field("seen_at", problem='Annotated[datetime, FromKafka("timestamp")]'),
    ),
)


# -- the file ---------------------------------------------------------------------------------------------------------

_IMPORTED = {"Any", "Dataflow", "Decimal", "JsonDecoder", "KafkaSource", "PostgresWriter", "Row", "Settings", "Source"}


def render(name: str, topic: str, table: str, shape: Shape) -> str:
    """The module's text, formatted as ruff would."""
    row = _class_name(table)
    about = (
        f"From {shape.origin}; a field is read from the path of its own name."
        if shape.origin
        else "There was neither a table nor a message to look at: say what a row is."
    )
    return _MODULE.format(
        name=name,
        topic=json.dumps(topic),
        table=table,
        imports=_imports(shape),
        row=row,
        header=_header(row, table, shape.key),
        about=about,
        fields="\n    ".join(_lines(shape.fields)),
        key=", ".join(map(json.dumps, shape.key)),
    )


def _lines(fields: Iterable[Field]) -> list[str]:
    return [field.line() for field in fields]


def _class_name(table: str) -> str:
    name = "".join(part[:1].upper() + part[1:] for part in table.rpartition(".")[2].split("_"))
    if not name.isidentifier():  # the table's begins with underscores and a digit
        return f"Row{name}"
    return f"{name}Row" if name in _IMPORTED or iskeyword(name) else name


def _header(row: str, table: str, key: Sequence[str]) -> str:
    keys = json.dumps(key[0]) if len(key) == 1 else f"({', '.join(map(json.dumps, key))})"
    line = f"class {row}(Row, table={json.dumps(table)}, primary_key={keys}):"
    if len(line) <= WIDTH:
        return line
    return f"class {row}(\n    Row,\n    table={json.dumps(table)},\n    primary_key={keys},\n):"


def _imports(shape: Shape) -> str:
    types = " ".join(field.type for field in shape.fields)
    used = set(re.findall(r"\w+", types))
    modules = (("datetime", ("date", "datetime")), ("decimal", ("Decimal",)), ("typing", ("Any",)), ("uuid", ("UUID",)))
    found = ((module, [name for name in names if name in used]) for module, names in modules)
    lines = "".join(starmap("from {} import {}\n".format, ((m, ", ".join(n)) for m, n in found if n)))
    return f"{lines}\n" if lines else ""


_MODULE = '''"""Topic → table {table}, without jobs; written by `lovelace init`, yours to change.

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
    """Messages are keyed by what makes a row the same row, so that the last one wins."""
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
