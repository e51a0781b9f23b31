"""msgspec Structs that decode only what the rows read: a tree of `DecodeNode`s, and a Struct made of it.

A row class may read a place whole *and* in parts (`user` and `user.id`), or a name with a quote in it. No Struct
decodes that, so such a class is interpreted, which costs some 20 µs a row instead of one.
"""

import keyword
from typing import Any, Optional, Union

import msgspec
from msgspec import UNSET, Raw


class NoStructFits(Exception):  # noqa: N818 - says what the rows do, which is no error of theirs
    """A place is read whole and in parts, or a name is none that msgspec decodes."""


class DecodeNode:
    """What is read at one place: parts of it (`children`), or all of it (a leaf, decoded by `hint` or as raw JSON)."""

    def __init__(self) -> None:
        self.children: dict[str, DecodeNode] = {}
        self.leaf = False
        self.hint: Any = None
        """The type that msgspec decodes a leaf by; None: raw JSON."""
        self.blank: Any = None
        """Stands for an absent value: UNSET, or None if no reader tells absent from null."""

    def at(self, parts: tuple[str, ...]) -> "DecodeNode":
        """Return the node below by its names, made if there is none; raises `NoStructFits`."""
        node = self
        for part in parts:
            if node.leaf or not can_be_decoded(part):
                raise NoStructFits
            node = node.children.setdefault(part, DecodeNode())
        return node

    def read(self, hint: Any, blank: Any) -> None:
        """Note one more reader of all that is here; raises `NoStructFits` above other nodes."""
        if self.children:
            raise NoStructFits
        self.hint = hint if not self.leaf or self.hint == hint else None  # two readers, two types: raw, for both
        self.blank = UNSET if UNSET in (blank, self.blank) or self.hint is None else None
        self.leaf = True

    def untyped(self) -> "DecodeNode":
        """Return a copy whose leaves are raw JSON."""
        copy = DecodeNode()
        copy.leaf, copy.blank = self.leaf, UNSET
        copy.children = {name: child.untyped() for name, child in self.children.items()}
        return copy

    def struct(
        self,
        name: str,
        item: "DecodeNode | None" = None,
        element: Any = Raw,
        *,
        tag_field: str = "",
        tag: str | int = "",
        **options: Any,
    ) -> type[msgspec.Struct]:
        """Make a Struct type that decodes just this.

        `item` is the node of the items: it may also be a list of `element`s, which stay raw unless that is a Struct.
        `tag_field` and `tag` make the Struct a member of a tagged union; if a row reads the tag, it is an attribute of
        the class.
        """
        fields: list[tuple[str, Any, Any]] = []
        if tag_field:
            reader = self.children.get(tag_field)
            value = tag if reader is None or reader.hint is not None else Raw(msgspec.json.encode(tag))
            options |= {"tag_field": tag_field, "tag": tag, "namespace": {attribute(tag_field): value}}
        for key, node in self.children.items():
            if key == tag_field:
                continue
            if node.leaf:
                hint = Raw if node.hint is None else Optional[node.hint]  # noqa: UP045
                fields.append((attribute(key), hint, node.blank))
                continue
            inner = node.struct(f"{name}_{attribute(key)}", item, element)
            if node is item:
                fields.append((attribute(key), Union[inner, list[element], None], UNSET))  # noqa: UP007
            else:
                fields.append((attribute(key), Optional[inner], inner()))  # noqa: UP045
        renamed = {attribute(key): key for key in self.children if key != tag_field}
        return msgspec.defstruct(name, fields, gc=False, frozen=True, rename=renamed, **options)


def can_be_decoded(key: str) -> bool:
    """Whether msgspec decodes a JSON name: it refuses quotes, backslashes and control characters."""
    return not any(character in '"\\' or character < " " for character in key)


def attribute(key: str) -> str:
    """Return a JSON name as the name of an attribute: itself if it can be one, else an identifier made of it.

    >>> attribute("user"), attribute("with-dash")
    ('user', 'k_with_2d_dash')
    """
    if key.isidentifier() and key.isascii() and not keyword.iskeyword(key) and not key.startswith(("_", "k_")):
        return key
    return "k_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in key)
