"""JSON messages of a chunk → columns: decoded one after the other by type, then mapped by one loop a target.

It checks what `JsonDecoder.decode_all` checks, and says nothing of what it does not take: that message is left.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from lovelace_streams.columns import Chunk, Slice
from lovelace_streams.formats.column_loops import slices_of
from lovelace_streams.formats.limits import BACKSLASH, DEEP_BYTES_MIN, NUL, SHALLOW_BYTES, check_depth, check_utf8
from lovelace_streams.rows.loops import RowLoop


class JsonLoop:
    """Decodes the messages of a chunk by `decode`; `loops` has for each Struct the loop that maps it."""

    def __init__(self, decode: Callable[[bytes], Any], loops: Mapping[type, RowLoop]) -> None:
        self._decode = decode
        self._loops = loops

    def __call__(self, chunk: Chunk, latest: datetime) -> tuple[list[Slice], list[int]]:
        """Make slices of rows, and say which messages are left."""
        decode = self._decode
        decoded: dict[RowLoop, tuple[list[int], list[Any]]] = {loop: ([], []) for loop in self._loops.values()}
        adds = {kind: (decoded[loop][0].append, decoded[loop][1].append) for kind, loop in self._loops.items()}
        left: list[int] = []
        for place, value in enumerate(chunk.values):
            if value is None:
                left.append(place)
                continue
            try:
                if not value.isascii():
                    check_utf8(value)
                size = len(value)
                if size > SHALLOW_BYTES and size + 3 * (value.rfind(b"[") - value.find(b"[")) > DEEP_BYTES_MIN:
                    check_depth(value)
                if BACKSLASH in value and NUL in value:
                    left.append(place)
                    continue
                message = decode(value)
                add_place, add_message = adds[message.__class__]
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - another event, bad JSON: the items' way says which
                left.append(place)
                continue
            add_place(place)
            add_message(message)
        return slices_of(chunk, decoded, left, latest)
