"""Paths into plain values: `user.id`, `$.d.shop_id`, `("meta", "k8s.pod.name")`.

A path is names with dots between, or a tuple of exact names. It begins at the item; `$.` begins at the message (in a
tuple, a first name `$`), `$` is the whole message, `.` the whole item. A parent that is null or absent makes the path
absent; a parent of another type is the record's fault.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from lovelace_streams.errors import RecordFault, shown
from lovelace_streams.records import Reason
from lovelace_streams.rows.values import json_type_name

AnyPath = str | tuple[str, ...]
"""A path as a flow's author writes it."""


class JsonPath(msgspec.Struct, frozen=True):
    """Where a value is: names below the message (`root`) or below the item."""

    root: bool
    parts: tuple[str, ...]

    @classmethod
    def of(cls, path: AnyPath) -> "JsonPath":
        """Read `$.d.shop_id`, `user.id` or `("meta", "k8s.pod.name")`.

        Raises `ValueError` for a text that no message could have, such as `items[0].sku` or `a..b`, and `TypeError` for
        what is neither text nor a tuple of texts.

        >>> JsonPath.of("$.d.shop_id"), JsonPath.of(("user", "full.name"))
        (JsonPath(root=True, parts=('d', 'shop_id')), JsonPath(root=False, parts=('user', 'full.name')))
        """
        if isinstance(path, tuple) and all(isinstance(part, str) for part in path):
            if not path:
                raise ValueError("() is no path: a tuple holds the names from the outside in")
            return cls(root=path[0] == "$", parts=path[1:] if path[0] == "$" else path)
        if not isinstance(path, str):
            raise TypeError(f"{shown(path)} is no path: a path is a text, or a tuple of texts")
        if path in ("$", "."):
            return cls(root=path == "$", parts=())
        root = path.startswith("$.")
        parts = tuple((path[2:] if root else path).split("."))
        if not all(map(_is_plain, parts)):
            raise ValueError(f"{path!r} is no path: {_advice(path)}")
        return cls(root=root, parts=parts)

    @classmethod
    def in_message(cls, path: AnyPath) -> "JsonPath":
        """Read a path that begins at the message, with `$` or without; raises as `of`."""
        if isinstance(path, tuple) and path:
            return cls.of(path if path[0] == "$" else ("$", *path))
        place = cls.of(path)
        return cls(root=True, parts=place.parts)

    def below(self, base: str) -> str:
        """Spell the absolute path for messages; `base` is the path of the item."""
        return spelled("$" if self.root else base, self.parts)


def _is_plain(part: str) -> bool:
    """Whether a name in a text means itself: elsewhere, brackets, stars and blanks mean more than names."""
    return part not in ("", "*") and part == part.strip() and not {"[", "]"} & set(part)


def _advice(path: str) -> str:
    exact = f"a name that has such characters itself is written in a tuple of exact names: ({path!r},)"
    if "[" in path or "]" in path:
        return f"brackets are not read, and no element of a list is; Items(…) makes an item of each. But {exact}"
    return f"it is names with dots between, `$.` to start at the message, `.` the item; {exact}"


def spelled(base: str, parts: Sequence[str]) -> str:
    """Spell a path below another one for messages.

    >>> spelled("$.d", ["user", "full.name", "first"])
    '$.d.user["full.name"].first'
    """
    names = (f".{part}" if _is_plain(part) and "." not in part else f"[{json.dumps(part)}]" for part in parts)
    return "".join((base, *names))


def find(value: Any, parts: tuple[str, ...], base: str = "$") -> Any:
    """Follow names down plain values. Returns UNSET if a name or parent is absent, or a parent is null.

    `base` is the path of `value` for messages. Raises `RecordFault` for a parent that is no object.
    """
    for depth, part in enumerate(parts):
        if value.__class__ is not dict:  # asking for a Mapping costs as much as the rest of the loop
            if value is None:
                return UNSET
            if not isinstance(value, Mapping):
                parent = spelled(base, parts[:depth])
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
