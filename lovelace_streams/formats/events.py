"""Which events a message may be, and which items each of them holds."""

from lovelace_streams.records import SkipReason
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.targets import MapFunction


class Items:
    """Where the items of an event lie and what they become. What is found there decides: a list holds many, an object
    is one."""

    def __init__(self, path: str, row: type[Row] | MapFunction) -> None:
        self.path = path
        self.row = row


class Events:
    """Which field names the event, which events hold items, and what becomes of the others."""

    def __init__(self, field: str, events: dict[str, Items], otherwise: Skip) -> None:
        if "." in field:
            raise ValueError(f"{field!r}: the field that names the event lies at the top of the message")
        self.field = field
        self.events = events
        self.otherwise = SkipReason(otherwise.reason)
