"""Which events of a topic hold items, and what they become: `Events` and `Items`, and the targets made of them."""

from typing import Any

from lovelace_streams.errors import RecordFault
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


class Events:
    """Name the field of a message that says its event, the events that hold items, and what becomes of all others.

    A field whose name has dots itself is written in a tuple: `("event.type",)`.

    `otherwise` skips those, as `unknown_event`, `filtered`, or for a reason of the flow's own. Raises `ValueError` for
    a field that is not at the top of the message, or a reason that has another meaning.

    >>> from lovelace_streams import Events, Items, Row, Skip
    >>> from lovelace_streams.testing import mapped
    >>> class User(Row, table="users", primary_key="id"):
    ...     id: int
    >>> events = Events("type", {"joined": Items("user", User)}, otherwise=Skip("unknown_event"))
    >>> mapped(events, {"type": "joined", "user": {"id": 7}}).row
    User(id=7)
    >>> mapped(events, {"type": "heartbeat"}).skipped
    ['unknown_event']
    """

    def __init__(self, field: AnyPath, events: dict[str, Items], otherwise: Skip) -> None:
        names = JsonPath.in_message(field).parts
        if len(names) != 1:
            raise ValueError(f"{field!r}: the field that names the event lies at the top of the message")
        [self.field] = names
        self.events = events
        skip_reasons({otherwise.reason} - set(SkipReason))  # to name it here is to declare it
        self.otherwise = otherwise.reason


class EventTargets:
    """The targets of a decoder by the name of the event. Without `Events` every message is one event, named ""."""

    def __init__(self, what: type[Row] | Items | Events | MapFunction) -> None:
        self.field = what.field if isinstance(what, Events) else None
        """The field that names the event; None without `Events`."""
        self.otherwise = what.otherwise if isinstance(what, Events) else SkipReason.UNKNOWN_EVENT
        """Why a message of another event is skipped."""
        self.skips = tuple({self.otherwise} - set(SkipReason))
        """The reasons of the flow's own that messages are skipped for."""
        self.takes_list = isinstance(what, Items) and not JsonPath.in_message(what.path).parts
        """Whether a message may be a list of items. `Events` names a field, and a row class one item a message."""
        if isinstance(what, Events):
            events = what.events
        else:
            events = {"": what if isinstance(what, Items) else Items("$", what)}
        targets = {items.target: Target(*items.target) for items in events.values()}
        self.targets = list(targets.values())
        """Each target once: several events may share it."""
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
        name = "" if self.field is None else root.get(self.field)
        target = self.by_event.get(name) if isinstance(name, str) else None
        return self.otherwise if target is None else items_at(target, root, value)
