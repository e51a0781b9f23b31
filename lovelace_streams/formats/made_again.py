"""Values of columns that a writer let go, made again of the same messages: by the loop, or else item by item."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from lovelace_streams.columns import Chunk, ColumnLoop, Columns
from lovelace_streams.formats.decoder import Decoder
from lovelace_streams.records import Envelope
from lovelace_streams.rows.normalizer import Normalizer

EVER = datetime.max.replace(tzinfo=UTC)
"""The latest version accepted of messages that were accepted once."""


class MakeAgain:
    """Makes the values of columns again that were let go (`Columns.let_go`); any thread may ask for them.

    A loop may leave messages that it took among others, as too few of a schema to be read at once.
    """

    def __init__(self, loop: ColumnLoop, decoder: Decoder, normalizer: Normalizer) -> None:
        self._loop = loop
        self._decoder = decoder
        self._normalizer = normalizer

    def __call__(self, columns: Columns) -> Mapping[str, Sequence[Any]]:
        """Return the values of each field."""
        chunk = columns.chunk.some(columns.places)
        for rows in self._loop(chunk, EVER).slices:
            if _is_same(rows.columns, columns):
                return rows.columns.values
        return self._item_by_item(chunk, columns)

    def _item_by_item(self, chunk: Chunk, columns: Columns) -> Mapping[str, Sequence[Any]]:
        messages = map(columns.message_of, range(len(columns)))
        found: dict[tuple[int, int], Any] = {
            (chunk.offsets[message], columns.item_of(row, message)): None for row, message in enumerate(messages)
        }
        now = int(time.time() * 1000)
        oks: list[Envelope[Any]] = []
        for place in range(len(chunk)):  # not all at once: the engine's thread may be in `look_ahead`
            self._decoder.decode(chunk.record_at(place), oks, [], [])
        for envelope in oks:
            if (item := (envelope.record.offset, envelope.item)) in found:
                found[item] = self._normalizer.normalize(envelope, now)
        return {field: list(map(attrgetter(field), found.values())) for field in columns.fields}


def _is_same(made: Columns, columns: Columns) -> bool:
    """Whether columns of only the messages of others are those."""
    is_whole = made.row is columns.row and len(made.places) == len(columns.places)
    return is_whole and (made.ends, made.lost) == (columns.ends, columns.lost)
