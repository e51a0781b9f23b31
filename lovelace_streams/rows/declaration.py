"""What a row class says: its table, its columns, and where each column comes from."""

from collections.abc import Callable
from typing import (
    Any,
)

import msgspec


class From:
    """Where a field's value comes from: the first of these paths that has one. `$.` starts at the whole message."""

    __slots__ = ("paths",)

    def __init__(self, *paths: str) -> None:
        if not paths:
            raise TypeError("From needs at least one path")
        self.paths = paths

    def __repr__(self) -> str:
        return f"From({', '.join(map(repr, self.paths))})"


class FromKafka(msgspec.Struct, frozen=True):
    """The message's own `timestamp`, `topic`, `partition`, `offset` or `key`; a replayed letter gives its origin's."""

    field: str

    def __post_init__(self) -> None:
        if self.field not in {"timestamp", "topic", "partition", "offset", "key"}:
            raise ValueError(f"FromKafka knows timestamp, topic, partition, offset and key, not {self.field!r}")


class Before(msgspec.Struct, frozen=True):
    """A function that gets the raw value, before it is coerced; the plain functions of a field run after."""

    function: Callable[[Any], Any]


class Epoch(msgspec.Struct, frozen=True):
    """A `datetime` given as a number since 1970, in `ms` or `s`."""

    unit: str

    def __post_init__(self) -> None:
        if self.unit not in {"ms", "s"}:
            raise ValueError(f"Epoch knows ms and s, not {self.unit!r}")


class Lenient(msgspec.Struct, frozen=True):
    """Numbers and words are taken for a `bool`, numbers for a `str`."""


class Pii(msgspec.Struct, frozen=True):
    """Personal data, and of which kind: kept out of samples; what is not marked may be shown on the page."""

    kind: str


class Skip(msgspec.Struct, frozen=True):
    """What a mapping function answers for an item that is to be passed over: `unknown_event` or `filtered`."""

    reason: str = "filtered"


class Column(msgspec.Struct, frozen=True):
    """One column: its Python type without None, whether NULL is allowed, and where its value comes from."""

    name: str
    type: Any
    nullable: bool
    source: From | FromKafka
    default: Any = msgspec.NODEFAULT
    """What an absent path gives; NODEFAULT where none is declared."""
    before: tuple[Callable[[Any], Any], ...] = ()
    after: tuple[Callable[[Any], Any], ...] = ()
    epoch: str | None = None
    lenient: bool = False
    pii: str | None = None
    meta: tuple[msgspec.Meta, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """What a row class says of its table. Rows of one table may have several classes (`Member`, `MemberLeft`)."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    version: str | None

    @property
    def partial(self) -> bool:
        """Whether a row may leave columns out (`T | None` without default): absent then keeps what is stored."""
        return any(c.nullable and c.default is msgspec.NODEFAULT for c in self.columns)
