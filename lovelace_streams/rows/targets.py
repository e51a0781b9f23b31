"""What the items at a path become: a row class, or what a function makes of them."""

import inspect
from collections.abc import Callable, Iterable
from functools import cached_property
from operator import attrgetter
from typing import Any

import msgspec

from lovelace_streams.rows.codegen import Generated, generate
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.decode_types import DecodeNode, ReadWholeAndInParts, attribute
from lovelace_streams.rows.fields import Field, fields_of, name_of
from lovelace_streams.rows.paths import JsonPath
from lovelace_streams.rows.row import Row

MapFunction = Callable[..., Row | Iterable[Row] | Skip]
"""A user's own mapping: gets the item, and the whole message if it takes two arguments."""


class Target:
    """Where items lie (`path`) and what they become: a row class, or what a function makes of them.

    `message_type` and `element_type` decode a message with one item and an item of a list; None where items are
    interpreted: for functions, and for what is read whole and in parts.
    """

    def __init__(self, what: type[Row] | MapFunction, path: str = "$") -> None:
        place = JsonPath.of(path if path.startswith("$") else f"$.{path}")
        self.path = place.parts
        self.locate = attrgetter(".".join(map(attribute, self.path))) if self.path else None
        """Takes the item, or list of items, out of the message's Struct."""
        self.base = place.below("$")
        self.row: type[Row] | None = what if isinstance(what, type) and issubclass(what, Row) else None
        self.function: MapFunction | None = None if self.row is not None else what
        self.fields: tuple[Field, ...] = ()
        self.root_wanted = False
        self._message: DecodeNode | None = None
        self._item = DecodeNode()
        if self.row is not None:
            self.fields = fields_of(self.row)
            self.root_wanted = any(place.root for field in self.fields for place in field.places)
            self._derive()
        elif not callable(what):
            raise TypeError(f"items become a Row class or what a function makes of them, not {what!r}")
        else:
            self.root_wanted = _takes_two(what)

    @property
    def name(self) -> str:
        """For messages."""
        return self.row.__name__ if self.row is not None else name_of(self.function or Target)

    @property
    def typed(self) -> bool:
        """Whether items are decoded by type."""
        return self._message is not None

    def _derive(self) -> None:
        message, item = DecodeNode(), DecodeNode()
        try:
            below = message.at(self.path)
            for field in self.fields:
                for place in field.places:
                    hint = None if field.column.before else field.kind.hint
                    (message if place.root else below).at(place.parts).read(hint, field.blank)
            if message.leaf or below.leaf:
                return
            for field in self.fields:  # as the message has it, so that both Structs read a place in one way
                for place in field.places:
                    if not place.root:
                        node = below.at(place.parts)
                        item.at(place.parts).read(node.hint, node.blank)
        except ReadWholeAndInParts:
            return
        self._message, self._item = message, item

    def takes_tag(self, name: str) -> bool:
        """Whether this name at the top of the message may be the tag of a union: what is read of it is a text."""
        node = self._message.children.get(name) if self._message is not None else None
        return node is None or (node.leaf and node.hint in (str, None))

    def message_type(self, **options: Any) -> type[msgspec.Struct]:
        """The Struct of a whole message; `options` are msgspec's (the tag)."""
        assert self._message is not None
        item = self._message.at(self.path) if self.path else None
        return self._message.struct(f"{self.name}_message", item, **options)

    @cached_property
    def element_type(self) -> type[msgspec.Struct]:
        """The Struct of an item that lies in a list."""
        return self._item.struct(f"{self.name}_item")

    @cached_property
    def map(self) -> Generated:
        """The function for this row class."""
        assert self.row is not None
        assert self._message is not None
        return generate(self.row, self.fields, self.path, self._message, self._item)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have none
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) > 1
