"""`SOURCE`: what a dataflow tells the command line about itself."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

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


def keyed_by(*fields: str) -> Callable[[Any], Iterator[Outgoing]]:
    """Make `FlowSpec.messages` for payloads of one item: sent as they are, one row's payloads to one partition.

    >>> [message] = keyed_by("id")({"id": 7, "name": "seven"})
    >>> message.key, message.value
    (b'7', b'{"id":7,"name":"seven"}')
    """

    def messages(payload: Any) -> Iterator[Outgoing]:
        named = payload if isinstance(payload, dict) else {}
        key = ":".join(str(named.get(field, "")) for field in fields)
        yield Outgoing(key.encode("utf-8", "replace"), msgspec.json.encode(payload))

    return messages
