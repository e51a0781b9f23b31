"""Many items → columns by one generated loop: the same lines as `codegen` writes for one item, in a loop over messages.

The loop reads the Structs that a decoder made of a chunk's messages, and appends each value to the list of its column.
Like the function for one item it never judges: a message, or an item of a list, for which a line raises is left to the
items' way, which gives the row or the fault. So both ways end the same, and only the quick one is here.

For a row class `Order` with `id` and `seen_at`, and messages that may hold a list of items at `orders`:

    for place, message in zip(places, messages):
        try:
            item = message.orders
            if item.__class__ is list: …                 a loop over its items
            v_id = item.id                               the lines of each field, as in `codegen`
            …
        except Exception: left.append(place); continue
        a_id(v_id); a_seen_at(v_seen_at)
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET

from lovelace_streams.columns import Chunk, Columns
from lovelace_streams.records import ITEMS_MAX
from lovelace_streams.rows.codegen import FieldWriter, indented
from lovelace_streams.rows.decode_types import attribute
from lovelace_streams.rows.targets import Target

OF_CHUNK = {
    "timestamp": "timestamps[place]", "offset": "offsets[place]", "key": "keys[place]", "topic": "topic",
    "partition": "partition",
}  # fmt: skip
"""Kafka's value → the expression that reads it from the chunk."""

Loop = Callable[[Sequence[int], Sequence[Any], Any, Chunk, datetime], tuple[list[list[Any]], list[int], list[int]]]
"""`columns(places, messages, declared, chunk, latest)` → a list of values a field, items of each message, places left.

`declared` are the numbers of items that the headers declare, by place; None if no header does."""


def items_only(target: Target) -> str:
    """Say why the items of a target are mapped one by one; "" if a loop can do it.

    >>> from lovelace_streams import Row
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> items_only(Target(Order)), items_only(Target(lambda item: item))
    ('', 'items become rows by a function, <lambda>')
    """
    if target.row is None:
        return f"items become rows by a function, {target.name}"
    if not target.typed:
        return f"{target.name} reads a place whole and in parts, or a name with a quote in it"
    if hasattr(target.row, "__post_init__"):
        return f"{target.name} has __post_init__, which looks at each row"
    return ""


class RowLoop:
    """The loop of a target: makes columns of the Structs of messages. Raises as `codegen.generate`."""

    def __init__(self, target: Target) -> None:
        assert target.row is not None
        self._row = target.row
        self._names = tuple(field.column.attribute for field in target.fields)
        self._loop = generate_loop(target)
        self.__doc__ = self._loop.__doc__

    def columns(
        self, places: Sequence[int], messages: Sequence[Any], declared: Any, chunk: Chunk, latest: datetime
    ) -> tuple[Columns | None, list[int]]:
        """Make columns of messages at ascending places; returns also the places of messages that it leaves."""
        values, counts, left = self._loop(places, messages, declared, chunk, latest)
        if left:
            out = set(left)
            places = [place for place in places if place not in out]
        if not places:
            return None, left
        named = dict(zip(self._names, values, strict=True))
        return Columns(chunk, self._row, named, places, counts or None), left


def generate_loop(target: Target) -> Loop:
    """Write the loop for a target, and compile it. Its docstring is its source."""
    fields = target.fields
    writer = _item_lines(target)
    names = {**writer.names, "ITEMS_MAX": ITEMS_MAX, "UNSET": UNSET}
    columns = [field.column.attribute for field in fields]
    used = sorted({OF_CHUNK[field.kafka].partition("[")[0] for field in fields if field.kafka is not None})
    where = ".".join(["message", *map(attribute, target.path)])
    done = f"c_{columns[0]}"
    body = [
        "def columns(places, messages, declared, chunk, latest):",
        "    left = []; counts = []; lists = 0",
        *(f"    {name} = chunk.{name}" for name in used),
        *(f"    c_{name} = []; a_{name} = c_{name}.append" for name in columns),
        "    for place, message in zip(places, messages):",
        "        try:",
        f"            item = {where}",
        "            if item.__class__ is list:",
        "                count = len(item)",
        "                if not 0 < count <= ITEMS_MAX: raise SLOW",
        "                if declared is not None and declared[place] not in (None, count): raise SLOW",
        f"                begin = len({done})",
        "                try:",
        "                    for item in item:",
        *indented(indented(indented(indented(indented(indented(writer.lines)))))),
        *(f"                        a_{name}(v_{name})" for name in columns),
        "                except BaseException:",
        *(f"                    del c_{name}[begin:]" for name in columns),
        "                    raise",
        "                if not lists: counts = [1] * begin; lists = 1",
        "                counts.append(count)",
        "                continue",
        "            if item is None or item is UNSET: raise SLOW",
        "            if declared is not None and declared[place] not in (None, 1): raise SLOW",
        *indented(indented(indented(writer.lines))),
        "        except KeyboardInterrupt:",
        "            raise",
        "        except BaseException:",
        "            left.append(place)",
        "            continue",
        *(f"        a_{name}(v_{name})" for name in columns),
        "        if lists: counts.append(1)",
        f"    return [{', '.join(f'c_{name}' for name in columns)}], counts, left",
    ]
    source = "\n".join(body) + "\n"
    exec(compile(source, f"<columns of {target.name}>", "exec"), names)  # noqa: S102 - made of attribute names alone
    function: Loop = names["columns"]
    function.__doc__ = source
    return function


def _item_lines(target: Target) -> FieldWriter:
    """Write the lines that read one item's fields into `v_…`, and refuse what the row class refuses."""
    writer = target.field_writer(OF_CHUNK)
    for field in target.fields:
        writer.add_field(field)
    writer.check_version(target.fields)
    writer.checked_row(target.fields)
    return writer
