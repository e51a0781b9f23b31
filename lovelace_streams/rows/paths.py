"""Paths into plain values: `user.id`, `$.d.shop_id`.

A path is names with dots between. It begins at the item; `$.` begins at the message, `$` is the whole message, `.` the
whole item. A parent that is null or absent makes the path absent; a parent of another type is the record's fault.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.values import json_type_name


class JsonPath(msgspec.Struct, frozen=True):
    """Where a value is: names below the message (`root`) or below the item."""

    root: bool
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> "JsonPath":
        """Read `$.d.shop_id` or `user.id`; raises `ValueError` for an empty name.

        >>> JsonPath.of("$.d.shop_id"), JsonPath.of("user.id")
        (JsonPath(root=True, parts=('d', 'shop_id')), JsonPath(root=False, parts=('user', 'id')))
        """
        if path in ("$", "."):
            return cls(root=path == "$", parts=())
        root = path.startswith("$.")
        parts = tuple((path[2:] if root else path).split("."))
        if not all(parts):
            raise ValueError(
                f"{path!r} is no path: names with dots between, `$.` to start at the message, `.` the item"
            )
        return cls(root=root, parts=parts)

    def below(self, base: str) -> str:
        """Spell the absolute path for messages; `base` is the path of the item."""
        return ".".join(("$" if self.root else base, *self.parts))


def find(value: Any, parts: tuple[str, ...], base: str = "$") -> Any:
    """Follow names down plain values. Returns UNSET if a name or parent is absent, or a parent is null.

    `base` is the path of `value` for messages. Raises `RecordFault` for a parent that is no object.
    """
    for depth, part in enumerate(parts):
        if value.__class__ is not dict:  # asking for a Mapping costs as much as the rest of the loop
            if value is None:
                return UNSET
            if not isinstance(value, Mapping):
                parent = ".".join((base, *parts[:depth]))
                raise RecordFault(Reason.WRONG_TYPE, f"expected object, got {json_type_name(value)} at {parent}")
        value = value.get(part, UNSET)
        if value is UNSET:
            return UNSET
    return value


def getter(place: JsonPath) -> Callable[[Any, Any], Any]:
    """Make a function of item and message that returns the value at a path of one or two names.

    It returns None, or raises `AttributeError`, where only `find` can tell absent, null and a wrong parent apart. It
    costs a third of `find`, and most fields of an item that is interpreted are right: the last one looked at is not.
    """
    parts = place.parts
    if len(parts) == 1:
        [name] = parts
        return (lambda _item, root: root.get(name)) if place.root else (lambda item, _root: item.get(name))
    if len(parts) == 2:  # noqa: PLR2004 - nearly all paths have one name or two
        outer, inner = parts
        if place.root:
            return lambda _item, root: root.get(outer).get(inner)
        return lambda item, _root: item.get(outer).get(inner)
    return lambda _item, _root: None
