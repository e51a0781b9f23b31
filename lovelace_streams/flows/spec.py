"""`SOURCE`: what a dataflow tells the command line about itself."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from lovelace_streams.errors import RecordFault
from lovelace_streams.rows.paths import AnyPath, JsonPath, find
from lovelace_streams.rows.row import Row


class Outgoing(msgspec.Struct, gc=False):
    """One raw message to send: its key, its bytes, and the number of its items (the header `lovelace-items`)."""

    key: bytes
    value: bytes
    items: int = 1


class FlowSpec(msgspec.Struct, frozen=True):
    """A dataflow's topic, its rows, and how payloads become messages, for `lovelace submit`."""

    name: str
    topic: str
    rows: tuple[type[Row], ...]
    messages: Callable[..., Iterator[Outgoing]]
    """Turns a payload into messages; raises `ValueError` for one that can't be sent.

    Further parameters are options: `lovelace submit FLOW FILE --option NAME=VALUE` passes each as a keyword argument,
    as text.
    """
    row: str = "item"


def keyed_by(*fields: AnyPath) -> Callable[[Any], Iterator[Outgoing]]:
    """Make `FlowSpec.messages` for payloads of one item: sent as they are, one row's payloads to one partition.

    `fields` are paths as in `From`. A field that a payload does not have is empty in its key. Raises as `From` does.

    >>> [message] = keyed_by("id", "shop.id")({"id": 7, "shop": {"id": 3}})
    >>> message.key, message.value
    (b'7:3', b'{"id":7,"shop":{"id":3}}')
    """
    if not fields:
        raise TypeError("keyed_by needs the fields that tell rows apart: keyed_by('id')")
    places = [(JsonPath.in_message(field).parts, field) for field in fields]

    def messages(payload: Any) -> Iterator[Outgoing]:
        key = ":".join(str(_found(payload, parts, field)) for parts, field in places)
        yield Outgoing(key.encode("utf-8", "replace"), msgspec.json.encode(payload))

    return messages


def _found(payload: Any, parts: tuple[str, ...], field: AnyPath) -> Any:
    """Return the value of a field, "" without one. A name with dots that the payload itself has is that name."""
    if isinstance(payload, dict) and field in payload:
        return payload[field]
    try:
        value = find(payload, parts)
    except RecordFault:  # a parent is no object: the flow says so when it reads the message
        return ""
    return "" if value is UNSET else value
