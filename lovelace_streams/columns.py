"""What flows between our own steps: a `Chunk` of messages, the `Columns` of rows made of it, and a `Slice` of those.

    Chunk ─ decode and normalize, in one loop ─▶ Slice ─ batch ─▶ Batch of slices ─ upsert ─▶ Settled of slices
      └─ what the loop leaves ─▶ Record, Envelope: item by item, as everywhere else (`records`)

A chunk is messages of one partition that were read together, as a struct of arrays. A *place* is a message's index in
its chunk. Columns are rows of one class, a list of values a field; row n is the next item of the next message that is
in columns. A slice is consecutive rows. No object a message, an item or a row is made until somebody looks at one.

Law 1 here: a message is `OPEN` until its outcome is known. It is then settled with its neighbours, as a range of
offsets, or it is `ALONE`: it became a `Record`, which counts its items one by one from then on.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from operator import mul, sub
from typing import Any

import msgspec

from lovelace_streams.records import Envelope, Record

OPEN, SETTLED, ALONE = 0, 1, 2
"""What became of a message of a chunk."""


class Run(msgspec.Struct, gc=False):
    """Consecutive messages of a chunk whose offsets follow each other and whose headers say the same."""

    start: int
    """The place of the first message."""
    stop: int
    offset: int
    """The offset of the first message."""
    after: int
    """Offsets from here to `offset` do not exist."""
    headers: list[tuple[str, bytes | None]]
    job: str | None = None
    attempt: int = 1
    declared: int | None = None
    """The number of items that the header declares, None without the header."""


class Chunk:
    """Messages of one partition and one assignment, as arrays, in the order of their offsets.

    `in_flight` are the records of its assignment: a message that is looked at alone is counted there.
    """

    __slots__ = (
        "_sizes", "alone", "assignment", "in_flight", "items", "keys", "loop", "offsets", "open", "partition", "rows",
        "runs", "states", "timestamps", "topic", "values",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        partition: int,
        assignment: int,
        offsets: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        runs: list[Run],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.assignment = assignment
        self.offsets = offsets
        self.keys = keys
        self.values = values
        self.timestamps = timestamps
        self.runs = runs
        self.states = bytearray(len(offsets))
        self.open = len(offsets)
        """How many of its messages are `OPEN`."""
        self.items: Sequence[int] = bytes(len(offsets))
        """How many items of each message are in columns: 0 for one that is not, or not yet."""
        self.rows = 0
        """How many rows were made of it in columns."""
        self.alone: dict[int, Record] = {}
        """Place → the record of a message that was looked at alone."""
        self.in_flight: dict[int, Record] = {}
        self.loop: ColumnLoop | None = None
        """What makes columns of it, as the flow's plan says."""
        self._sizes: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def record(self) -> Record:
        """The record of the first message."""
        return self.record_at(0)

    @property
    def pending(self) -> int:
        """Items in columns without an outcome, counted message by message; records count theirs."""
        return sum(items for items, state in zip(self.items, self.states, strict=True) if state == OPEN)

    @property
    def decoded(self) -> int:
        """Items that its messages hold, as far as they are known."""
        return sum(self.items) + sum(record.items for place, record in self.alone.items() if not self.items[place])

    @property
    def oldest(self) -> int | None:
        """The first offset that is open; None if none is."""
        place = self.states.find(OPEN)
        return self.offsets[place] if place >= 0 else None

    @property
    def sizes(self) -> Sequence[int]:
        """Bytes of the values before each place, and of all of them last."""
        if self._sizes is None:
            values = self.values
            lengths = map(len, values) if None not in values else (len(value or b"") for value in values)  # type: ignore[arg-type]
            self._sizes = list(accumulate(lengths, initial=0))
        return self._sizes

    def record_at(self, place: int) -> Record:
        """Return a message's record, always the same one, as its items share a tally; from now on it is alone."""
        record = self.alone.get(place)
        if record is None:
            run = self.runs[bisect_right(self.runs, place, key=_start) - 1]
            offset = self.offsets[place]
            record = self.alone[place] = Record(
                self.topic,
                self.partition,
                offset,
                run.after if place == run.start else offset,
                self.assignment,
                self.keys[place],
                self.values[place],
                run.headers,
                self.timestamps[place],
                run.job,
                run.attempt,
                run.declared,
                items=self.items[place],
            )
            if self.states[place] == OPEN:
                self.states[place] = ALONE
                self.open -= 1
                self.in_flight[offset] = record
        return record

    def envelopes_at(self, places: Sequence[int]) -> list[Envelope[bytes]]:
        """Return some messages one by one, as they were read."""
        return [Envelope(self.record_at(place), 0, self.values[place]) for place in places]  # type: ignore[arg-type]

    def runs_between(self, start: int, stop: int) -> Iterator[tuple[int, int, Run]]:
        """Yield the runs of these places: the first place, the end, and the run that they belong to."""
        runs = self.runs
        index = bisect_right(runs, start, key=_start) - 1
        while start < stop:
            run = runs[index]
            end = min(stop, run.stop)
            yield start, end, run
            start, index = end, index + 1

    def some(self, places: Sequence[int]) -> "Chunk":
        """Return a chunk of some of its messages, for a loop that reads them again; nothing of it is in flight."""
        arrays = (self.offsets, self.keys, self.values, self.timestamps)
        if len(places) < len(self):
            arrays = tuple([array[place] for place in places] for array in arrays)  # type: ignore[assignment]
        runs: list[Run] = []
        stop = 0
        for first, end, place in _spans(places):
            for begin, upto, run in self.runs_between(place, place + end - first):
                start, stop = stop, stop + upto - begin
                offset = self.offsets[begin]
                runs.append(Run(start, stop, offset, offset, run.headers, run.job, run.attempt, run.declared))
        return Chunk(self.topic, self.partition, self.assignment, *arrays, runs)

    def settle(self, start: int, stop: int) -> None:
        """Note that open messages have their outcome."""
        self.states[start:stop] = bytes((SETTLED,)) * (stop - start)
        self.open -= stop - start


def _start(run: Run) -> int:
    return run.start


class Columns:
    """Rows of one class, made of messages of a chunk: of each message at `places` one row, or `counts` of them.

    `values` has a list for each field of the class, in its order; an absent value is `msgspec.UNSET`. `lost` are the
    numbers of items that are no rows here, ascending, by the index of their message in `places`.

    A writer may encode the rows as soon as they are made (`encoded`). Then their values are let go while they are in
    the CPU's cache, and so is their memory used again. They are made again, of the same messages, if somebody asks for
    one.
    """

    __slots__ = (
        "_again", "_blank", "_sizes", "_spans", "_values", "chunk", "encoded", "ends", "fields", "lost", "places",
        "row",
    )  # fmt: skip

    def __init__(
        self,
        chunk: Chunk,
        row: type[Any],
        values: Mapping[str, Sequence[Any]],
        places: Sequence[int],
        counts: Sequence[int] | None = None,
        lost: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.chunk = chunk
        self.row = row
        self.fields = tuple(values)
        self._values = values
        self._again: ValuesAgain | None = None
        self.encoded: Any = None
        """The rows as the writer that was asked first encoded them, in a form of its own; None: it did not."""
        self.places = places
        self.ends: Sequence[int] | None = None
        """Where the rows of each message begin, and where the last ones end; None: each message has one row."""
        if counts is not None:
            self.ends = array("L", accumulate(counts, initial=0))
        self.lost = lost or {}
        self._spans: list[tuple[int, int, int]] | None = None
        self._sizes: Sequence[int] | None = None
        self._blank: Any = None

    def __len__(self) -> int:
        return len(self.places) if self.ends is None else self.ends[-1]

    @property
    def values(self) -> Mapping[str, Sequence[Any]]:
        """The values of each field."""
        if len(self._values) < len(self.fields):
            assert self._again is not None
            self._values = self._again(self)
        return self._values

    def column(self, field: str) -> Sequence[Any]:
        """Return the values of a field."""
        return self._values[field] if field in self._values else self.values[field]

    def let_go(self, encoded: Any, keep: Sequence[str], again: "ValuesAgain") -> None:
        """Take what a writer made of the rows, and forget their values but of some fields; `again` makes them."""
        self.encoded = encoded
        self._values = {field: self._values[field] for field in keep}
        self._again = again

    def message_of(self, row: int) -> int:
        """Return which message a row is of, as an index of `places`."""
        return row if self.ends is None else bisect_right(self.ends, row) - 1

    def rows_before(self, offset: int, item: int) -> int:
        """Return how many rows are of messages before an offset, or of items before this one of that message."""
        message = bisect_left(self.places, offset, key=self.chunk.offsets.__getitem__)
        if self.ends is None:
            return message
        lost = self.lost.get(message)
        if lost is None or self.chunk.offsets[self.places[message]] != offset:
            return self.ends[message]
        return self.ends[message] + item - bisect_left(lost, item)

    def item_of(self, row: int, message: int) -> int:
        """Return the number of a row's item within its message."""
        if self.ends is None:
            return 0
        item = row - self.ends[message]
        for lost in self.lost.get(message, ()):
            if lost > item:
                break
            item += 1
        return item

    def make(self, values: Sequence[Any]) -> Any:
        """Make a row of a value for each field."""
        if self._blank is None:
            self._blank = self.row(**dict.fromkeys(self.fields, msgspec.UNSET))
        return msgspec.structs.replace(self._blank, **dict(zip(self.fields, values, strict=True)))

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, int, Any]]:
        """Yield some rows, each with the place and the number of its item."""
        columns = [column[start:stop] for column in self.values.values()]
        for row, values in enumerate(zip(*columns, strict=True), start):
            message = self.message_of(row)
            yield self.places[message], self.item_of(row, message), self.make(values)

    def size_before(self, row: int) -> int:
        """Return the bytes of the messages' values before a row, divided evenly among a message's items."""
        if self._sizes is None:
            values: Sequence[Any] = self.chunk.values
            if self.ends is None and len(self.places) == len(self.chunk):
                self._sizes = self.chunk.sizes
            elif self.ends is None:  # a message without a value has no row
                self._sizes = list(accumulate(map(len, map(values.__getitem__, self.places)), initial=0))
            else:
                sizes, items = self.chunk.sizes, self.chunk.items
                shares = ((sizes[place + 1] - sizes[place]) // items[place] for place in self.places)
                self._sizes = list(accumulate(map(mul, shares, map(sub, self.ends[1:], self.ends)), initial=0))
        message = self.message_of(row)
        if self.ends is None or row == self.ends[message]:
            return self._sizes[message]
        part = (self._sizes[message + 1] - self._sizes[message]) // (self.ends[message + 1] - self.ends[message])
        return self._sizes[message] + part * (row - self.ends[message])

    def cut(self, start: int, stop: int, most_bytes: int) -> int:
        """Return where to end rows from `start` on: at `stop`, or after the row that makes so many bytes."""
        limit = self.size_before(start) + most_bytes
        if self.size_before(stop) < limit:
            return stop
        return bisect_left(range(len(self) + 1), limit, start + 1, stop, key=self.size_before)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the places of some messages (indexes of `places`) as spans without a gap: the first, and the end."""
        if self.places.__class__ is range:
            yield self.places[start], self.places[start] + stop - start
            return
        if self._spans is None:
            self._spans = list(_spans(self.places))
        index = bisect_right(self._spans, start, key=_first) - 1
        while start < stop:
            first, end, place = self._spans[index]
            upto = min(stop, end)
            yield place + start - first, place + upto - first
            start, index = upto, index + 1


def _first(span: tuple[int, int, int]) -> int:
    return span[0]


def _spans(places: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield runs of consecutive places: the index of the first and of the end, and the first place.

    Places ascend, so within a run a place is as far from its index as the first is. Where few are missing, the end of a
    run is found by bisection.

    >>> list(_spans([0, 1, 2, 5, 6, 9])), list(_spans([3, *range(5, 25)]))
    ([(0, 3, 0), (3, 5, 5), (5, 6, 9)], [(0, 1, 3), (1, 21, 5)])
    """
    start, count = 0, len(places)
    if count and (places[-1] - places[0] + 1 - count) * _STEPS_OF_BISECTION < count:
        while start < count:
            apart = places[start] - start
            end = bisect_right(range(count), apart, start + 1, key=lambda index: places[index] - index)
            yield start, end, places[start]
            start = end
        return
    for index in range(1, count + 1):
        if index == count or places[index] != places[index - 1] + 1:
            yield start, index, places[start]
            start = index


_STEPS_OF_BISECTION = 16
"""How many steps of a loop cost as much as finding the end of one run."""


class Slice:
    """Consecutive rows of columns, from `start` to `stop`."""

    __slots__ = ("columns", "start", "stop")

    def __init__(self, columns: Columns, start: int, stop: int) -> None:
        self.columns = columns
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def assignment(self) -> int:
        """The number of the assignment that its messages were read in."""
        return self.columns.chunk.assignment

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch of the first row's message, -1 without."""
        columns = self.columns
        return columns.chunk.timestamps[columns.places[columns.message_of(self.start)]]

    @property
    def record(self) -> Record:
        """The record of the first row's message."""
        columns = self.columns
        return columns.chunk.record_at(columns.places[columns.message_of(self.start)])

    @property
    def size(self) -> int:
        """Bytes of its messages' values; each item of a message counts an equal share."""
        return self.columns.size_before(self.stop) - self.columns.size_before(self.start)

    def item_at(self, index: int) -> tuple[Record, int]:
        """Return the record of one row's message, which is alone from now on, and the number of the item."""
        columns, row = self.columns, self.start + index
        message = columns.message_of(row)
        return columns.chunk.record_at(columns.places[message]), columns.item_of(row, message)

    def envelopes(self) -> list[Envelope[Any]]:
        """Return all rows as items; their messages are alone from now on."""
        record_at = self.columns.chunk.record_at
        return [Envelope(record_at(place), item, row) for place, item, row in self.columns.rows(self.start, self.stop)]

    def first(self, count: int) -> "Slice":
        """Return its first rows, at most `count`."""
        return self if len(self) <= count else Slice(self.columns, self.start, self.start + count)

    def followed_by(self, other: "Slice") -> bool:
        """Whether another slice goes on where this one ends."""
        return self.columns is other.columns and self.stop == other.start

    def chosen(self, indexes: Sequence[int]) -> "list[Slice]":
        """Return some of its rows, by ascending indexes, as slices."""
        return [
            Slice(self.columns, self.start + indexes[first], self.start + indexes[end - 1] + 1)
            for first, end, _ in _spans(indexes)
        ]

    def whole_messages(self) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
        """Return its messages by place, as far as all their items are in it; and those that it has only a part of.

        The first are spans of messages with equally many items: the first place, the end, the items of each. The others
        are a place and how many of the items are here.
        """
        columns, ends = self.columns, self.columns.ends
        if ends is None:
            return [(start, stop, 1) for start, stop in columns.spans(self.start, self.stop)], []
        cut: list[tuple[int, int]] = []
        whole: list[tuple[int, int, int]] = []
        for message in range(columns.message_of(self.start), columns.message_of(self.stop - 1) + 1):
            place = columns.places[message]
            items = min(self.stop, ends[message + 1]) - max(self.start, ends[message])
            if items < columns.chunk.items[place]:
                cut.append((place, items))
            elif whole and whole[-1][1] == place and whole[-1][2] == items:
                whole[-1] = (whole[-1][0], place + 1, items)
            else:
                whole.append((place, place + 1, items))
        return whole, cut


Part = Envelope[Any] | Slice
"""What flows: an item, or some rows of columns."""


def count_of(part: Part) -> int:
    """Return how many items a part is: each row of a slice is one."""
    return len(part) if isinstance(part, Slice) else 1


def row_class_of(part: Part) -> type[Any]:
    """Return the class of a part's rows; `tuple` for an item of several."""
    return part.columns.row if isinstance(part, Slice) else part.payload.__class__


def assignment_of(part: "Part | Chunk") -> int:
    """Return the number of the assignment that a part, or a chunk, was read in."""
    return part.record.assignment if isinstance(part, Envelope) else part.assignment


def assignments_of(parts: Sequence[Part]) -> set[int]:
    """Return the numbers of the assignments that parts were read in."""
    return {part.assignment if isinstance(part, Slice) else part.record.assignment for part in parts}


def append(parts: list[Part], part: Part) -> None:
    """Append a part; a slice that goes on where the last one ends becomes one with it."""
    last = parts[-1] if parts else None
    if isinstance(part, Slice) and isinstance(last, Slice) and last.followed_by(part):
        parts[-1] = Slice(last.columns, last.start, part.stop)
    else:
        parts.append(part)


def _order(item: Envelope[Any]) -> tuple[int, int]:
    return item.record.offset, item.item


def in_between(slices: Sequence[Slice], items: Sequence[Envelope[Any]]) -> list[Part]:
    """Put items that are in no slice into their places, as the messages of the chunk were read."""
    if not items:
        return list(slices)
    items = sorted(items, key=_order)
    parts: list[Part] = []
    left = iter(items)
    item = next(left, None)
    for rows in slices:
        begin = rows.start
        while item is not None and (end := rows.columns.rows_before(item.record.offset, item.item)) < rows.stop:
            if begin < end:
                parts.append(Slice(rows.columns, begin, end))
                begin = end
            parts.append(item)
            item = next(left, None)
        parts.append(Slice(rows.columns, begin, rows.stop))
    if item is not None:
        parts += [item, *left]
    return parts


def before(parts: Sequence[Part], offset: int) -> list[Part]:
    """Return what is of messages of one chunk before an offset."""
    found: list[Part] = []
    for part in parts:
        if not isinstance(part, Slice):
            found += [part] if part.record.offset < offset else []
        elif part.start < (stop := min(part.stop, part.columns.rows_before(offset, 0))):
            found.append(Slice(part.columns, part.start, stop))
    return found


def extend(parts: list[Part], more: Sequence[Part]) -> None:
    """Append parts; a slice that goes on where the last one ends becomes one with it."""
    append(parts, more[0])
    parts += more[1:]


class Mapped(msgspec.Struct, gc=False):
    """What a loop made of a chunk."""

    slices: list[Slice]
    """Rows, in the order read."""
    left: list[int]
    """Places of messages that it does not take, ascending."""
    lost: list[Envelope[Any]] = []
    """Decoded items that it does not take, of messages of which it takes others."""
    untried: int = 0
    """How many messages it left without a try, as those of a schema that was not asked for yet: that cost nothing."""


ColumnLoop = Callable[[Chunk, datetime], Mapped]
"""Decodes and maps the messages of a chunk; `latest version accepted` is its second argument.

It sets `Chunk.items`, and raises nothing."""

ValuesAgain = Callable[[Columns], Mapping[str, Sequence[Any]]]
"""Makes the values of columns again, of the same messages."""

LEFT_SHARE_MAX = 1 / 3
"""Of which share of a chunk's messages a loop may be tried in vain: from there on it costs more than it saves."""
PAUSE_CHUNKS = 32


class AdaptiveLoop:
    """A loop that pauses for some chunks after one of which it left too much, and then tries again.

    >>> chunk = Chunk("t", 0, 1, range(3), [b""] * 3, [b""] * 3, [0] * 3, [Run(0, 3, 0, 0, [])])
    >>> tried = []
    >>> loop = AdaptiveLoop(lambda chunk, _latest: tried.append(chunk) or Mapped([], [0, 1]))
    >>> len([loop(chunk, datetime.max) for _ in range(1 + PAUSE_CHUNKS)]), len(tried)
    (33, 1)
    >>> _ = loop(chunk, datetime.max)
    >>> len(tried)
    2
    """

    def __init__(self, loop: ColumnLoop) -> None:
        self._loop = loop
        self._pause = 0

    def __call__(self, chunk: Chunk, latest: datetime) -> Mapped:
        """Do what the loop does, or leave the whole chunk."""
        if self._pause:
            self._pause -= 1
            return Mapped([], list(range(len(chunk))))
        mapped = self._loop(chunk, latest)
        if len(mapped.left) - mapped.untried > len(chunk) * LEFT_SHARE_MAX:
            self._pause = PAUSE_CHUNKS
        return mapped


class EncodingLoop:
    """A loop whose columns are encoded at once, by `encode`: it returns what it made, and which fields to keep.

    It returns None where the values have to stay. `again` makes them again.
    """

    def __init__(
        self, loop: ColumnLoop, encode: Callable[[Columns], tuple[Any, Sequence[str]] | None], again: ValuesAgain
    ) -> None:
        self._loop = loop
        self._encode = encode
        self._again = again

    def __call__(self, chunk: Chunk, latest: datetime) -> Mapped:
        """Do what the loop does; then the columns are encoded."""
        mapped = self._loop(chunk, latest)
        for columns in {id(rows.columns): rows.columns for rows in mapped.slices}.values():
            if (encoded := self._encode(columns)) is not None:
                columns.let_go(*encoded, self._again)
        return mapped
