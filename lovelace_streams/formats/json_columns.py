"""JSON messages of a chunk → columns: decoded one after the other by type, then mapped by one loop a target.

It checks what `JsonDecoder.decode_all` checks, and says nothing of what it does not take: that message is left. A list
is decoded with its message; where one of its items is refused, each item by itself (law 7).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from lovelace_streams.columns import Chunk, Mapped
from lovelace_streams.formats.column_loops import Decoded, map_decoded
from lovelace_streams.formats.limits import unsound
from lovelace_streams.rows.loops import RowLoop
from lovelace_streams.rows.normalizer import Message, RawItem
from lovelace_streams.rows.targets import Target


class LocatedItems:
    """Messages that `decode` makes Structs of; `locations` has for each Struct its target, and what takes items out."""

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        locations: Mapping[type, tuple[Target, Callable[[Any], Any] | None]],
    ) -> None:
        self._decode = decode
        self._locations = locations

    def locate(self, value: bytes) -> tuple[Any, Target, Any]:
        """Return a message's Struct, its target, and its items; of a message that is a list, that itself."""
        message = self._decode(value)
        target, locate = self._locations[message.__class__]
        return message, target, message if locate is None else locate(message)


class Lists(LocatedItems):
    """The lists of messages: `decode` leaves their items raw."""

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        locations: Mapping[type, tuple[Target, Callable[[Any], Any] | None]],
    ) -> None:
        super().__init__(decode, locations)
        self._decoders = {
            id(target): msgspec.json.Decoder(target.element_type).decode for target, _ in locations.values()
        }

    def read(self, value: bytes) -> tuple[Any, Target, list[Any]]:
        """Return a message's Struct, its target, and its items, raw. Raises anything for a message without a list."""
        message, target, items = self.locate(value)
        if items.__class__ is not list:
            raise TypeError("no list")
        return message, target, items

    def decoded(self, target: Target, items: Sequence[Any]) -> list[Any]:
        """Decode each item; None for one that is refused."""
        decode = self._decoders[id(target)]
        found: list[Any] = []
        for raw in items:
            try:
                found.append(decode(raw))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                found.append(None)
        return found


class RawItems(LocatedItems):
    """Items that no loop takes, of messages of which it takes others; `decode` leaves raw all that is read of one.

    They are interpreted, for which the message is parsed plainly. It may be long, with a thousand good items in it, so
    no more of it is parsed than fields read beside its items: that saves 0.7 of 0.94 ms (400 KB).
    """

    def of(self, value: bytes, numbers: Sequence[int]) -> list[RawItem]:
        """Return some items of a message with a list."""
        message, target, items = self.locate(value)
        if items is message:
            read = Message(value)
        else:
            read = Message(msgspec.json.encode(target.without_items(message)) if target.root_wanted else b"{}")
        return [RawItem(target, None, None, items[number], read) for number in numbers]


class JsonLoop:
    """Decodes the messages of a chunk by `decode`; `loops` has for each Struct the loop that maps it.

    `lists` reads a message again of which an item was refused, and `raws` one of which an item was not mapped.
    """

    def __init__(
        self, decode: Callable[[bytes], Any], loops: Mapping[type, RowLoop], lists: Lists, raws: RawItems
    ) -> None:
        self._decode = decode
        self._loops = loops
        self._lists = lists
        self._raws = raws
        self._has_lists = False
        """Whether a message was seen that holds a list: only then one may hold a bad item among good ones."""

    def __call__(self, chunk: Chunk, latest: datetime) -> Mapped:
        """Make slices of rows, and say what is left."""
        lists: dict[int, list[Any]] = {}
        decoded, left = self._sorted(self._decoded(chunk.values, lists))
        mapped = map_decoded(chunk, decoded, left, lists, latest, partial(self._raw_items, chunk))
        self._has_lists = self._has_lists or any(rows.columns.ends is not None for rows in mapped.slices)
        return mapped

    def _decoded(self, values: Sequence[bytes | None], lists: dict[int, list[Any]]) -> list[Any]:
        """Return a Struct for each value, None for one that is left; `lists` gets items that were decoded one by one.

        No line of Python is run for a message that decodes.
        """
        if out := unsound(values):
            values = list(values)
            for place in out:
                values[place] = None
        messages: list[Any] = []
        decoding = map(self._decode, values)  # type: ignore[arg-type] # None raises, and so is left
        while len(messages) < len(values):
            try:
                for message in decoding:
                    messages.append(message)  # noqa: PERF402 - `extend` need not keep what it got before an exception
            except KeyboardInterrupt:
                raise
            except msgspec.DecodeError:
                place = len(messages)
                messages.append(self._with_list(place, values[place] or b"", lists) if self._has_lists else None)
            except BaseException:  # noqa: BLE001 - another event, bad JSON: the items' way says which
                messages.append(None)
        return messages

    def _sorted(self, messages: list[Any]) -> tuple[dict[RowLoop, Decoded], list[int]]:
        """Sort Structs by the loops that map them; say also which have none."""
        kinds = set(map(type, messages))
        if len(kinds) == 1 and (loop := self._loops.get(*kinds)) is not None:
            return {loop: Decoded(range(len(messages)), messages)}, []
        decoded: dict[RowLoop, tuple[list[int], list[Any]]] = {loop: ([], []) for loop in self._loops.values()}
        adds = {kind: tuple(each.append for each in decoded[loop]) for kind, loop in self._loops.items()}
        left: list[int] = []
        for place, message in enumerate(messages):
            if (add := adds.get(message.__class__)) is None:
                left.append(place)
                continue
            add_place, add_message = add
            add_place(place)
            add_message(message)
        return {loop: Decoded(*found) for loop, found in decoded.items()}, left

    def _raw_items(self, chunk: Chunk, place: int, numbers: Sequence[int]) -> list[RawItem]:
        return self._raws.of(chunk.values[place] or b"", numbers)

    def _with_list(self, place: int, value: bytes, lists: dict[int, list[Any]]) -> Any:
        """Return the Struct of a message of which an item may have been refused, and note its items; None without."""
        try:
            message, target, raws = self._lists.read(value)
            lists[place] = self._lists.decoded(target, raws)
        except Exception:  # noqa: BLE001 - as above
            return None
        return message
