"""Which events of a topic hold items, and what they become: `Events` and `Items`, and the targets made of them."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import UNSET

from lovelace_streams.errors import RecordFault, shown
from lovelace_streams.formats.items import Found, items_at
from lovelace_streams.records import Reason, SkipReason, skip_reasons
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.paths import AnyPath, JsonPath
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction, Target
from lovelace_streams.rows.values import json_type_name


class Items:
    """Name the path of an event's items in the message, and the row class or function that they become.

    The value at the path decides: an object is one item, a list holds many. The path `$` is the message itself. A path
    is as in `From`, and begins at the message; raises as `From` does.

    An event that is `partial` says only some of what is stored. Where a column has several paths, the first that is not
    null decides: an absent one keeps the stored value, because that may have come from there.

    >>> from lovelace_streams import Items, Row
    >>> from lovelace_streams.testing import mapped
    >>> class User(Row, table="users", primary_key="id"):
    ...     id: int
    >>> mapped(Items("$", User), [{"id": 7}, {"id": 8}]).rows
    [User(id=7), User(id=8)]
    """

    def __init__(self, path: AnyPath, row: type[Row] | MapFunction, *, partial: bool = False) -> None:
        JsonPath.in_message(path)
        self.path = path
        self.row = row
        self.partial = partial

    @property
    def target(self) -> tuple[type[Row] | MapFunction, AnyPath, bool]:
        """What tells targets apart: the arguments of `Target`."""
        return self.row, self.path, self.partial


EventName = str | int
"""What names an event: a text, or an integer (the code of an operation)."""


class Events:
    """Name the field of a message that says its event, the events that hold items, and what becomes of all others.

    A field whose name has dots itself is written in a tuple: `("event.type",)`. Events are named by texts or integers.
    `otherwise` skips messages of another event, as `unknown_event`, `filtered`, or for a reason of the flow's own.
    `absent` skips those that name none, because the field is absent, null, or no name: a number counts as one only if
    some event here is named by a number. With `absent=None` they are dead letters (`missing`, `null`, `wrong_type`).
    Raises `ValueError` for a field that is not at the top of the message, or a reason that has another meaning,
    `TypeError` for a name that is neither text nor integer.

    >>> from lovelace_streams import Events, Items, Row, Skip
    >>> from lovelace_streams.testing import mapped
    >>> class User(Row, table="users", primary_key="id"):
    ...     id: int
    >>> events = Events("type", {"joined": Items("user", User)}, otherwise=Skip("unknown_event"))
    >>> mapped(events, {"type": "joined", "user": {"id": 7}}).row
    User(id=7)
    >>> mapped(events, {"type": "heartbeat"}, {"user": {"id": 7}}).skipped
    ['unknown_event', 'no_event']
    """

    def __init__(
        self,
        field: AnyPath,
        events: Mapping[Any, Items],
        otherwise: Skip,
        absent: Skip | None = Skip("no_event"),  # noqa: B008 - a value, which nothing changes
    ) -> None:
        names = JsonPath.in_message(field).parts
        if len(names) != 1:
            raise ValueError(f"{field!r}: the field that names the event lies at the top of the message")
        [self.field] = names
        self.events: dict[EventName, Items] = {_plain_name(name): items for name, items in events.items()}
        reasons = {otherwise.reason} | ({absent.reason} if absent is not None else set())
        skip_reasons(reasons - set(SkipReason))  # to name it here is to declare it
        self.otherwise = otherwise.reason
        self.absent = absent.reason if absent is not None else None


def _plain_name(name: Any) -> EventName:
    plain = name.value if isinstance(name, Enum) else name
    if type(plain) not in (str, int):
        raise TypeError(f"an event is named by a text or an integer, not by {shown(name)}")
    return plain  # type: ignore[no-any-return]


class EventTargets:
    """The targets of a decoder by the name of the event. Without `Events` every message is one event, named ""."""

    def __init__(self, what: type[Row] | Items | Events | MapFunction) -> None:
        self.field = what.field if isinstance(what, Events) else None
        """The field that names the event; None without `Events`."""
        self.otherwise = what.otherwise if isinstance(what, Events) else SkipReason.UNKNOWN_EVENT
        """Why a message of another event is skipped."""
        self.absent = what.absent if isinstance(what, Events) else None
        """Why one that names no event is skipped; None: it is a dead letter."""
        self.skips = tuple({self.otherwise, self.absent or self.otherwise} - set(SkipReason))
        """The reasons of the flow's own that messages are skipped for."""
        self.takes_list = isinstance(what, Items) and not JsonPath.in_message(what.path).parts
        """Whether a message may be a list of items. `Events` names a field, and a row class one item a message."""
        if isinstance(what, Events):
            events: dict[EventName, Items] = what.events
        else:
            events = {"": what if isinstance(what, Items) else Items("$", what)}
        targets = {items.target: Target(*items.target) for items in events.values()}
        self.targets = list(targets.values())
        """Each target once: several events may share it."""
        self._has_numbers = any(isinstance(name, int) for name in events)
        self.by_event = {name: targets[items.target] for name, items in events.items()}

    def items_of(self, root: Any, value: bytes, expected: str = "object") -> Found:
        """Find the items of a message with plain values; `value` are its bytes. Raises `RecordFault`.

        `expected` is what the format calls a message with names, for messages.
        """
        if isinstance(root, list) and self.takes_list:
            return items_at(self.by_event[""], root, value)
        if not isinstance(root, dict):
            expected = f"{expected} or list" if self.takes_list else expected
            raise RecordFault(Reason.WRONG_TYPE, f"expected {expected}, got {json_type_name(root)} at $")
        name = "" if self.field is None else root.get(self.field, UNSET)
        target = self.by_event.get(name) if self._is_name(name) else None
        return self.without_items(name) if target is None else items_at(target, root, value)

    def _is_name(self, name: Any) -> bool:
        return name.__class__ is str or (name.__class__ is int and self._has_numbers)

    def without_items(self, name: Any) -> str:
        """Return why a message is skipped, by what is found where its event is named (UNSET: nothing is there).

        Raises `RecordFault` if the flow has messages without a name as dead letters.
        """
        if self._is_name(name):
            return self.otherwise
        if self.absent is not None:
            return self.absent
        reason = Reason.MISSING if name is UNSET else Reason.NULL if name is None else Reason.WRONG_TYPE
        found = "nothing" if name is UNSET else json_type_name(name)
        raise RecordFault(reason, f"expected the name of an event, got {found} at $.{self.field}")
