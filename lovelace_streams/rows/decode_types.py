"""Structs that decode only what the rows ask for.

What is read whole *and* in parts (`user` and `user.id`) is not decoded by type: such a row class is interpreted, which
costs some 20 µs a row instead of one.
"""

import keyword
from typing import Any, Optional, Union

import msgspec
from msgspec import UNSET, Raw


class ReadWholeAndInParts(Exception):  # noqa: N818
    """Something is read whole and in parts."""


class DecodeNode:
    """What is read at one place: parts of it (`children`), or all of it (`hint`, or as raw JSON)."""

    def __init__(self) -> None:
        self.children: dict[str, DecodeNode] = {}
        self.leaf = False
        self.hint: Any = None
        self.blank: Any = None
        """What stands for nothing: UNSET, or None where no reader tells it from null."""

    def at(self, parts: tuple[str, ...]) -> "DecodeNode":
        node = self
        for part in parts:
            if node.leaf:
                raise ReadWholeAndInParts
            node = node.children.setdefault(part, DecodeNode())
        return node

    def read(self, hint: Any, blank: Any) -> None:
        if self.children:
            raise ReadWholeAndInParts
        self.hint = hint if not self.leaf or self.hint == hint else None  # read in two ways: raw, for both
        self.blank = UNSET if UNSET in (blank, self.blank) or self.hint is None else None
        self.leaf = True

    def struct(
        self, name: str, item: "DecodeNode | None" = None, *, tag_field: str = "", tag: str = "", **options: Any
    ) -> type[msgspec.Struct]:
        """A Struct type that decodes just this; the `item` node below it may also be a list, whose items stay raw.

        A field that is the tag is an attribute of the class.
        """
        fields: list[tuple[str, Any, Any]] = []
        if tag_field:
            told = self.children.get(tag_field)
            value = tag if told is None or told.hint is not None else Raw(msgspec.json.encode(tag))
            options |= {"tag_field": tag_field, "tag": tag, "namespace": {attribute(tag_field): value}}
        for key, node in self.children.items():
            if key == tag_field:
                continue
            if node.leaf:
                hint = Raw if node.hint is None else Optional[node.hint]  # noqa: UP045
                fields.append((attribute(key), hint, node.blank))
                continue
            inner = node.struct(f"{name}_{attribute(key)}", item)
            if node is item:
                fields.append((attribute(key), Union[inner, list[Raw], None], UNSET))  # noqa: UP007
            else:
                fields.append((attribute(key), Optional[inner], inner()))  # noqa: UP045
        renamed = {attribute(key): key for key in self.children if key != tag_field}
        return msgspec.defstruct(name, fields, gc=False, frozen=True, rename=renamed, **options)


def attribute(key: str) -> str:
    """A JSON name as the name of an attribute: itself where it can be one."""
    if key.isidentifier() and key.isascii() and not keyword.iskeyword(key) and not key.startswith(("_", "k_")):
        return key
    return "k_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in key)
