"""The paths that no item of a sample has: a path that is mistyped gives no error, only absent values in every row."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import UNSET

from lovelace_streams.errors import RecordFault
from lovelace_streams.rows.normalizer import RawItem
from lovelace_streams.rows.paths import JsonPath, find
from lovelace_streams.rows.targets import Target


class PathsSeen:
    """Which paths of the row classes were found. `targets` are the decoder's by event; {} if it does not say."""

    def __init__(self, targets: Mapping[Any, Target]) -> None:
        self._events: dict[Target, list[str | int]] = {}
        for event, target in targets.items():
            self._events.setdefault(target, []).append(event)
        self._items: dict[Target, int] = dict.fromkeys(self._events, 0)
        self._unseen: dict[Target, dict[JsonPath, list[str]]] = {}
        """Target → the paths that no item had, with the columns that read them."""
        self._bases: dict[Target, str] = {}

    def look(self, raw: RawItem) -> None:
        """Note which paths an item has; raises nothing."""
        target = raw.target
        self._items[target] = self._items.get(target, 0) + 1
        if target not in self._unseen:
            self._bases[target] = raw.base
            unseen = self._unseen[target] = {}
            for field in target.fields:
                for place in field.places:
                    unseen.setdefault(place, []).append(field.column.name)
        unseen = self._unseen[target]
        if unseen:
            item, root = raw.plain()
            for place in [each for each in unseen if _has(root if each.root else item, each)]:
                del unseen[place]

    def notes(self) -> Iterator[str]:
        """Say what no item had: a line for each row class, and one for each that no message held items of."""
        for target, count in self._items.items():
            if not count:
                events = ", ".join(str(event) for event in self._events[target] if event != "")
                yield f"no message of the sample holds items of {target.name}{f' ({events})' if events else ''}"
        for target, unseen in self._unseen.items():
            base = self._bases[target]
            paths = [f"{place.below(base)} ({', '.join(columns)})" for place, columns in unseen.items()]
            if paths:
                yield (
                    f"{target.name}: none of the {self._items[target]} items of the sample has {'; '.join(paths)}: "
                    "correct the path, if messages are to have it"
                )


def _has(within: Any, place: JsonPath) -> bool:
    try:
        return find(within, place.parts) is not UNSET
    except RecordFault:  # a parent is no object: a failure of the sample says so
        return True
