"""What a new flow's row looks like: its fields, its key, and where they were found."""

from keyword import iskeyword

import msgspec

from lovelace_streams.rows.row import Row


class FlowField(msgspec.Struct, frozen=True):
    """One field of the new row; one with a `problem` is written as a comment."""

    name: str
    type: str = ""
    optional: bool = False
    problem: str = ""

    def line(self) -> str:
        """Write the field's line in the class."""
        if self.problem:
            return f"# {self.name}: {self.problem}"
        return f"{self.name}: {self.type}{' | None' if self.optional else ''}"


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


def name_problem(name: str) -> str:
    """Say why no field can have this name; "" where one can."""
    if not name.isidentifier() or iskeyword(name):
        return "a name that no Python field can have"
    return "a name that rows have taken" if hasattr(Row, name) or name.startswith("_") else ""
