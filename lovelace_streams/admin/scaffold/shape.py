"""What a new flow's row looks like: its fields, its key, and where they were found."""

import json
import re
from keyword import iskeyword

import msgspec

from lovelace_streams.rows.paths import JsonPath
from lovelace_streams.rows.row import Row

WIDTH = 88
"""The usual formatters leave lines of this width as they are."""


class FlowField(msgspec.Struct, frozen=True):
    """One field of the new row; one with a `problem` is written as a comment."""

    name: str
    type: str = ""
    optional: bool = False
    problem: str = ""
    source: str = ""
    """The name in the message, where that is not the field's."""
    column: str = ""
    """The name in the table, and then in the message too, where that is not the field's."""
    scale: int | None = None
    """Digits after the point, of a Decimal whose column has a number of them."""

    @property
    def key(self) -> str:
        """The name at the top of the message."""
        return self.source or self.column or self.name

    @property
    def marks(self) -> tuple[str, ...]:
        """What stands beside the type."""
        name = (f"Name({json.dumps(self.column, ensure_ascii=False)})",) if self.column else ()
        scale = (f"Scale({self.scale})",) if self.scale is not None else ()
        return (*name, *scale, *((source_of(self.source),) if self.source else ()))

    def line(self) -> str:
        """Write the field's line in the class."""
        if self.problem:
            name = self.name if self.name.isprintable() else json.dumps(self.name)  # a line break would end the comment
            return f"# {name}: {self.problem}"
        annotation = f"{self.type}{' | None' if self.optional else ''}"
        return _annotated(self.name, annotation, *self.marks) if self.marks else f"{self.name}: {annotation}"


def _annotated(name: str, *parts: str) -> str:
    """Write a field with its marks as a formatter would: in one line of the class, or broken where that is too long."""
    inner = ", ".join(parts)
    line = f"{name}: Annotated[{inner}]"
    if len(line) + 4 <= WIDTH:
        return line
    within = inner if len(inner) + 8 <= WIDTH else ",\n        ".join(parts) + ","
    return f"{name}: Annotated[\n        {within}\n    ]"


class FlowShape(msgspec.Struct, frozen=True):
    """The row of a new flow, and the origin of that knowledge."""

    origin: str
    key: tuple[str, ...]
    fields: tuple[FlowField, ...]


class FlowReading(msgspec.Struct, frozen=True):
    """How the new flow decodes its messages."""

    framing: str = ""
    """How Avro messages say their schema: `registry`, `single`, `bare`; "" for a topic in JSON."""
    mixed: bool = False
    """Whether some messages are JSON and some Avro."""
    schemas: tuple[str, ...] = ()
    """The files of the schemas of single objects and of bare data."""
    kinds_by: str = ""
    """The field that says an event; "" where all messages are of one kind."""
    kinds: tuple[tuple[str, str], ...] = ()
    """Each event that is read, with the path of its items."""

    @property
    def is_json(self) -> bool:
        """Whether `lovelace submit`, which sends JSON, can send to the topic."""
        return not self.framing or self.mixed


SKELETON = FlowShape(
    "",
    ("id",),
    (
        FlowField("id", "int"),
        FlowField("name", problem="str | None"),
        FlowField("amount", problem='Annotated[Decimal, From("total.amount")]'),
        FlowField("seen_at", problem='Annotated[datetime, FromKafka("timestamp")]'),
    ),
)
"""The row where there is neither a table nor a message."""


def source_of(name: str) -> str:
    """Write the `From` of a name at the top of the message: as a tuple of exact names, if a text means something else.

    >>> print(source_of("with-dash"), source_of("k8s.pod.name"))
    From("with-dash") From(("k8s.pod.name",))
    """
    text = json.dumps(name, ensure_ascii=False)
    try:
        is_plain = JsonPath.of(name).parts == (name,)
    except ValueError:
        is_plain = False
    return f"From({text})" if is_plain else f"From(({text},))"


def field_name(name: str, taken: set[str]) -> str:
    """Make a field's name of a column's that no field can have, and add it to those that are taken.

    >>> field_name("class", set()), field_name("my col-2", set()), field_name("2nd", {"n_2nd"}), field_name("%", set())
    ('class_', 'my_col_2', 'n_2nd_', 'column')
    """
    made = re.sub(r"\W+", "_", name).strip("_").lower() or "column"
    made = f"n_{made}" if made[0].isdigit() else made
    while name_problem(made) or made in taken:
        made += "_"
    taken.add(made)
    return made


def name_problem(name: str) -> str:
    """Say why no field can have this name; "" where one can."""
    if not name.isidentifier() or iskeyword(name):
        return "a name that no Python field can have"
    return "a name that rows have taken" if hasattr(Row, name) or name.startswith("_") else ""
