"""Many items → columns by one generated loop: the same lines as `codegen` writes for one item, in a loop over messages.

The loop reads the Structs that a decoder made of a chunk's messages, and appends each value to the list of its column.
Like the function for one item it never judges: a message, or an item of a list, for which a line raises is left to the
items' way, which gives the row or the fault. So both ways end the same, and only the quick one is here.

For a row class `Order` with `id` and `seen_at`, and messages that may hold a list of items at `orders`:

    for place, message in zip(places, messages):
        try:
            item = message.orders
            if item.__class__ is list: …                 a loop over its items, each with its own `try`
            v_id = item.id                               the lines of each field, as in `codegen`
            …
        except Exception: left.append(place); continue
        a_id(v_id); a_seen_at(v_seen_at)

Of some fields the loop only reads the values: their columns are finished whole, behind it (`whole`).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import UNSET

from lovelace_streams.columns import Chunk, Columns
from lovelace_streams.records import ITEMS_MAX
from lovelace_streams.rows.decode_types import attribute
from lovelace_streams.rows.fields import Field
from lovelace_streams.rows.rules import rules_of
from lovelace_streams.rows.targets import Target
from lovelace_streams.rows.whole import WholeColumn, whole_of

OF_CHUNK = {
    "timestamp": "timestamps[place]", "offset": "offsets[place]", "key": "keys[place]", "topic": "topic",
    "partition": "partition", "instant": "stamp(timestamps[place])",
}  # fmt: skip
"""Kafka's value → the expression that reads it from the chunk; `instant` is the timestamp as one."""

Lists = Mapping[int, list[Any]]
"""Place → the items of a message, each decoded by itself; None for one that was refused."""
Lost = dict[int, tuple[int, list[int]]]
"""Place → how many items a message has, and the numbers of those that are no rows, ascending."""
Loop = Callable[
    [Sequence[int], Sequence[Any], Lists, Any, Chunk, datetime], tuple[list[list[Any]], list[int], list[int], Lost]
]
"""`columns(places, messages, lists, declared, chunk, latest)` → a list of values a field; how many rows each message
has, if one has many; the places of messages that are left; the items that are lost of others.

`lists` has the items of messages of which one was refused. `declared` are the numbers of items that the headers
declare, by place; None if no header does."""


class MappedRows(NamedTuple):
    """What a loop made of some messages of a chunk."""

    columns: Columns | None
    left: list[int]
    """Places of messages that it does not take."""
    lost: Lost


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
        self._loop, self._whole = generate_loop(target)
        self.__doc__ = self._loop.__doc__

    def columns(
        self,
        places: Sequence[int],
        messages: list[Any],
        declared: Any,
        chunk: Chunk,
        latest: datetime,
        lists: Lists = MappingProxyType({}),
    ) -> MappedRows:
        """Make columns of messages at ascending places; `messages` is empty then."""
        values, counts, left, lost = self._loop(places, messages, lists, declared, chunk, latest)
        messages.clear()  # what follows uses their memory while it is in the CPU's cache: 0.1 µs a row
        if left:
            out = set(left)
            places = [place for place in places if place not in out]
        refused: set[int] = set()
        for index, finish in self._whole.items():
            values[index], rows = finish(values[index])
            refused.update(rows)
        if refused:
            for row in sorted(refused, reverse=True):
                for column in values:
                    del column[row]
            places, counts = _without(refused, places, counts, left, lost)
        if not places:
            return MappedRows(None, left, {})
        named = dict(zip(self._names, values, strict=True))
        by_message = {bisect_left(places, place): bad for place, (_, bad) in lost.items()}
        return MappedRows(Columns(chunk, self._row, named, places, counts or None, by_message), left, lost)


def _without(
    refused: set[int], places: Sequence[int], counts: list[int], left: list[int], lost: Lost
) -> tuple[list[int], list[int]]:
    """Return the messages that still have rows, and how many each if one has many; note the others, and lost items."""
    if not counts:
        left += [places[row] for row in refused]
        return [place for row, place in enumerate(places) if row not in refused], []
    kept: dict[int, int] = {}
    first = 0
    for place, count in zip(places, counts, strict=True):
        rows = [row - first for row in range(first, first + count) if row in refused]
        first += count
        if len(rows) == count:
            lost.pop(place, None)
            left.append(place)
            continue
        kept[place] = count - len(rows)
        if rows:
            items, missing = lost.get(place, (count, []))
            numbers = sorted({*range(items)}.difference(missing))
            lost[place] = items, sorted([*missing, *(numbers[row] for row in rows)])
    return list(kept), list(kept.values())


_INSTANT = ("if timestamps[place] != told: instant = stamp(timestamps[place]); told = timestamps[place]",)
"""Many messages share a timestamp with the one before."""


def generate_loop(target: Target) -> tuple[Loop, dict[int, WholeColumn]]:
    """Write the loop for a target, and compile it; say also which columns, by number, are to be finished whole.

    Its docstring is its source. What depends on nothing but the message is read, and finished, once for all items of a
    list; so such a column holds finished values among others, which has to change nothing: only integers are such.
    """
    fields = target.fields
    once = [field for field in fields if all(place.root for place in field.places)]
    each = [field for field in fields if field not in once]
    if not each:  # an item is counted by a field of its own
        once, each = once[1:], once[:1]
    of_list, writer = (target.field_writer({**OF_CHUNK, "instant": "instant"}) for _ in range(2))
    whole = {} if rules_of(target.row) else {field: quick for field in fields if (quick := whole_of(field))}
    late: list[Field] = []
    for field in once:
        of_list.add_field(field)
        if writer.add_field(field, whole=field in whole and not field.column.after):
            late.append(field)
    of_message, writer.lines = writer.lines, []
    late += [field for field in each if writer.add_field(field, whole=field in whole)]
    writer.check_version(fields)
    writer.checked_row(fields)
    names = {**of_list.names, **writer.names, "ITEMS_MAX": ITEMS_MAX, "UNSET": UNSET}
    columns = [field.column.attribute for field in fields]
    own = [field.column.attribute for field in each]
    used = sorted({OF_CHUNK[field.kafka].partition("[")[0] for field in fields if field.kafka is not None})
    has_instant = any(field.kafka == "timestamp" and field.column.type is datetime for field in fields)
    where = ".".join(["message", *map(attribute, target.path)])
    reads_item = any(not place.root for field in fields for place in field.places)
    body = [
        "def columns(places, messages, lists, declared, chunk, latest):",
        "    left = []; counts = []; lost = {}; many = False; told = None",
        "    several = declared is not None and any(run.declared not in (None, 1) for run in chunk.runs)",
        *(f"    {name} = chunk.{name}" for name in used),
        *(f"    c_{name} = []; a_{name} = c_{name}.append" for name in columns),
        "    for place, message in zip(places, messages):",
        "        try:",
        *(f"            {line}" for line in _INSTANT if has_instant),
        f"            item = {where}",
        "            if item.__class__ is list:",
        "                if place in lists: item = lists[place]",
        "                count = len(item)",
        "                if not 0 < count <= ITEMS_MAX: raise SLOW",
        "                if declared is not None and declared[place] not in (None, count): raise SLOW",
        *(f"                {line}" for line in of_list.lines),
        f"                begin = len(c_{own[0]})",
        "                bad = None",
        "                for item in item:",
        "                    try:",
        *(() if reads_item else ("                        if item is None: raise SLOW",)),
        *(f"                        {line}" for line in writer.lines),
        "                    except KeyboardInterrupt:",
        "                        raise",
        "                    except BaseException:",
        "                        if bad is None: bad = []",
        f"                        bad.append(len(c_{own[0]}) - begin + len(bad))",
        "                        continue",
        *(f"                    a_{name}(v_{name})" for name in own),
        "                if bad is not None:",
        "                    if len(bad) == count: raise SLOW",
        "                    lost[place] = count, bad",
        "                    count -= len(bad)",
        *(f"                c_{name} += [v_{name}] * count" for name in columns if name not in own),
        "                if not many: counts = [1] * begin; many = True",
        "                counts.append(count)",
        "                continue",
        "            if item is None or item is UNSET: raise SLOW",
        "            if several and declared[place] not in (None, 1): raise SLOW",
        *(f"            {line}" for line in of_message),
        *(f"            {line}" for line in writer.lines),
        "        except KeyboardInterrupt:",
        "            raise",
        "        except BaseException:",
        "            left.append(place)",
        "            continue",
        *(f"        a_{name}(v_{name})" for name in columns),
        "        if many: counts.append(1)",
        f"    return [{', '.join(f'c_{name}' for name in columns)}], counts, left, lost",
    ]
    source = "\n".join(body) + "\n"
    exec(compile(source, f"<columns of {target.name}>", "exec"), names)  # noqa: S102 - made of attribute names alone
    function: Loop = names["columns"]
    function.__doc__ = source
    return function, {fields.index(field): WholeColumn(field, whole[field]) for field in late}
