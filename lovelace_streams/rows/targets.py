"""`Target`: where items are in a message, and what they become: rows of a class, or what a function makes of them.

For a row class it derives what the message and its items are decoded by (`decode_types`), and the function that maps
them (`codegen`).
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw

from lovelace_streams.errors import shown
from lovelace_streams.rows.codegen import FieldWriter, Generated, generate
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.decode_types import DecodeNode, NoStructFits, attribute
from lovelace_streams.rows.fields import Field, check_partial, fields_of, name_of
from lovelace_streams.rows.functions import Parameters, parameters_of
from lovelace_streams.rows.paths import AnyPath, JsonPath
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.rules import rules_of
from lovelace_streams.rows.types import SIMPLE

MapFunction = Callable[..., Row | Iterable[Row] | Skip]
"""A user's own mapping: it gets the item, the whole message if it takes two arguments, and Kafka's values as `of`."""


class Target:
    """Where items are (`path`), and what they become: rows of a class, or what a function makes of them.

    Raises `TypeError` for anything else, and for a row class with a column that can't be.
    """

    def __init__(self, what: type[Row] | MapFunction, path: AnyPath = "$", partial: bool = False) -> None:
        place = JsonPath.in_message(path)
        self.path = place.parts
        self.locate = attrgetter(".".join(map(attribute, self.path))) if self.path else None
        """Takes the item, or the list of items, out of the message's Struct; None: the message is the item."""
        self.base = place.below("$")
        """The path of the item, or of the list of items, for messages."""
        self.row: type[Row] | None = what if isinstance(what, type) and issubclass(what, Row) else None
        self.function: MapFunction | None = None if self.row is not None else what
        self.partial = partial
        """Whether a column of several paths is kept where a path before the first value is absent."""
        self.fields: tuple[Field, ...] = ()
        self.takes = Parameters()
        """What the function takes beside the item."""
        self.root_wanted = False
        """Whether the mapping reads the message beside the item."""
        self._message: DecodeNode | None = None
        self._item = DecodeNode()
        if self.row is not None:
            self.fields = fields_of(self.row)
            self.root_wanted = any(place.root for field in self.fields for place in field.places)
            self._derive()
            rules_of(self.row)
            if partial:
                check_partial(self.row)
        elif not callable(what):
            raise TypeError(f"items become a Row class or what a function makes of them, not {shown(what)}")
        else:
            if partial:
                raise TypeError(f"{name_of(what)} is a function, which says itself what a row keeps: leave partial out")
            self.takes = parameters_of(what)
            self.root_wanted = self.takes.root

    @property
    def name(self) -> str:
        """The name of the row class or function, for messages."""
        return self.row.__name__ if self.row is not None else name_of(self.function or Target)

    def _derive(self) -> None:
        """Note what the fields read, in the trees of a message and of an item; leave them out if no Struct fits."""
        message, item = DecodeNode(), DecodeNode()
        try:
            below = message.at(self.path)
            for field in self.fields:
                for place in field.places:
                    hint = None if field.column.before else field.type.hint
                    (message if place.root else below).at(place.parts).read(hint, field.blank)
            if message.leaf or below.leaf:
                return
            for field in self.fields:  # as the message has it, so that both Structs decode a place in one way
                for place in field.places:
                    if not place.root:
                        node = below.at(place.parts)
                        item.at(place.parts).read(node.hint, node.blank)
        except NoStructFits:
            return
        self._message, self._item = message, item

    @property
    def typed(self) -> bool:
        """Whether items are decoded by type. Functions get plain values, and so do fields read whole and in parts."""
        return self._message is not None

    def takes_tag(self, name: str, kind: type) -> bool:
        """Whether this name at the top of the message can be the tag of a union: its readers read it as of `kind`."""
        node = self._message.children.get(name) if self._message is not None else None
        return node is None or (node.leaf and node.hint in (SIMPLE[kind].hint, None))

    def message_type(self, *, listed: bool = False, raw: bool = False, **options: Any) -> type[msgspec.Struct]:
        """Make the Struct of a message with one item or a list of raw ones; `options` are msgspec's (the tag).

        `listed`: the items of a list are decoded with the message, so one that is refused refuses it. `raw`: so is
        nothing, as all that is read stays raw.
        """
        assert self._message is not None
        message = self._message.untyped() if raw else self._message
        item = message.at(self.path) if self.path else None
        element = self.element_type if listed and item is not None else Raw
        return message.struct(f"{self.name}_message", item, element, **options)

    def without_items(self, message: msgspec.Struct) -> msgspec.Struct:
        """Empty the list of items in a message's Struct."""
        *parents, last = map(attribute, self.path)
        msgspec.structs.force_setattr(attrgetter(".".join(parents))(message) if parents else message, last, [])
        return message

    @cached_property
    def element_type(self) -> type[msgspec.Struct]:
        """The Struct of an item of a list."""
        return self._item.struct(f"{self.name}_item")

    def item_of(self, message: msgspec.Struct) -> msgspec.Struct | None:
        """Take the one item out of a message's Struct; None if there is none, or a list."""
        try:
            item = message if self.locate is None else self.locate(message)
        except AttributeError:
            return None
        return item if isinstance(item, msgspec.Struct) else None

    def field_writer(self, kafka: Mapping[str, str]) -> FieldWriter:
        """Return what writes the lines that map an item; `kafka` are the expressions that read Kafka's values."""
        assert self.row is not None
        assert self._message is not None
        return FieldWriter(self.row, self.path, self._message, self._item, partial=self.partial, kafka=kafka)

    @cached_property
    def map(self) -> Generated:
        """The function that maps Structs of item and message to a row; raises as `generate`."""
        assert self.row is not None
        assert self._message is not None
        return generate(self.row, self.fields, self.path, self._message, self._item, partial=self.partial)
