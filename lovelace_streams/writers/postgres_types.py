"""Which Postgres type can hold which Python type, and how a column of values is spelled as an array literal.

A block travels as one text parameter a column, an array literal: it needs no temporary table, no `COPY` and no
prepared statement, so any pooler will do. Encoding a column is a few passes over it in C; a value that does not fit
its declared type raises, and whoever called finds the row.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec

Encoder = Callable[[Sequence[Any]], str]
"""Values of one column → one array literal; None is NULL."""


class TypeInfo(msgspec.Struct, frozen=True):
    """A column's type: the type under its domains, without modifier, as the catalogue spells it."""

    name: str
    """`pg_type.typname`: int8, text, _int8, jsonb, …"""
    category: str
    spelled: str
    """As it stands in a cast. Without the modifier: a cast to varchar(5) would cut, the assignment refuses."""
    modified: bool
    modifier: int
    exact: bool
    """No domain, and a collation by which only equal strings are equal."""
    shown: str
    """With its modifier, for messages and for casts that must round as the column does."""

    @property
    def json(self) -> bool:
        return self.name in ("json", "jsonb")

    @property
    def array(self) -> bool:
        return self.category == "A"


SCALARS: dict[Any, frozenset[str]] = {
    bool: frozenset({"bool"}),
    int: frozenset({"int2", "int4", "int8", "numeric"}),
    float: frozenset({"float4", "float8", "numeric"}),
    Decimal: frozenset({"numeric"}),
    datetime: frozenset({"timestamptz"}),  # a timestamp without time zone can't hold an instant
    date: frozenset({"date"}),
    UUID: frozenset({"uuid", "text", "varchar"}),
}
TEXTS = frozenset({"S", "E", "I"})
"""Categories that hold a `str`: strings, enums, network addresses."""


def scalar(kind: Any) -> Any:
    """The plain type under an Enum or Literal, `dict` for whatever is JSON, and the type itself otherwise.

    >>> scalar(Literal["a", "b"]), scalar(list[int]), scalar(dict[str, int])
    (<class 'str'>, list[int], <class 'dict'>)
    """
    values: Sequence[Any] = ()
    if get_origin(kind) is Literal:
        values = get_args(kind)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        values = [member.value for member in kind]
    if values:
        return int if all(type(value) is int for value in values) else str
    if kind in SCALARS or kind is str:
        return kind
    if get_origin(kind) is list and scalar(get_args(kind)[0]) in (str, *SCALARS):
        return list[scalar(get_args(kind)[0])]  # type: ignore[misc]
    return dict


def holds(kind: Any, real: TypeInfo) -> bool:
    """Whether a column can hold values of a declared type; out-of-range values are a record's fault, not seen here."""
    plain = scalar(kind)
    if real.json:
        return plain is dict or get_origin(plain) is list
    if plain is dict:
        return False
    if get_origin(plain) is list:
        element = get_args(plain)[0]
        return real.array and (element is str or real.name.removeprefix("_") in SCALARS[element])
    if plain is str:
        return real.category in TEXTS or real.category == "U"
    return real.name in SCALARS[plain]


def exact_key(kind: Any, real: TypeInfo) -> bool:
    """Whether keys are equal in Python exactly where they are equal in the column."""
    same: dict[Any, set[str]] = {
        int: {"int2", "int4", "int8"},
        str: {"text", "varchar"},
        UUID: {"uuid"},
        date: {"date"},
        datetime: {"timestamptz"},
        bool: {"bool"},
    }
    by_name = real.name in same.get(scalar(kind), ()) or (scalar(kind) is str and real.category == "E")
    return by_name and real.exact and (not real.modified or real.name == "varchar")


def encoder(kind: Any, real: TypeInfo) -> Encoder:
    """How a column of a declared type is spelled for a column of the table. Raises what does not fit: any Exception."""
    if real.json:
        return _quoting(_json)
    plain = scalar(kind)
    if get_origin(plain) is list:
        return _quoting(_nested(encoder(get_args(kind)[0], real)))
    unwrap = _value if isinstance(kind, type) and issubclass(kind, Enum) and not issubclass(kind, str) else None
    if plain is str:
        return _texts if unwrap is None else _quoting(unwrap)
    spell = SPELLINGS[plain]
    return _bare(spell if unwrap is None else lambda value: spell(value.value))


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a time without offset")  # the server would read it in the session's time zone
    return datetime.isoformat(value)


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float | int) else float.__repr__(value)


def _identity(value: UUID) -> str:
    return UUID.__str__(value)


def _value(member: Enum) -> str:
    return str(member.value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _nested(inner: Encoder) -> Callable[[Any], str]:
    def spell(values: Sequence[Any]) -> str:
        if isinstance(values, str):
            raise TypeError("a string is not a list")
        return inner(values)

    return spell


SPELLINGS: dict[Any, Callable[[Any], str]] = {
    bool: {True: "t", False: "f"}.__getitem__,
    int: int.__repr__,
    float: _number,
    Decimal: Decimal.__str__,
    datetime: _instant,
    date: date.isoformat,
    UUID: _identity,
}
"""None of these yields a character that means something in an array literal."""


def _bare(spell: Callable[[Any], str]) -> Encoder:
    def encode(values: Sequence[Any]) -> str:
        if None in values:
            return "{" + ",".join(["NULL" if value is None else spell(value) for value in values]) + "}"
        return "{" + ",".join(map(spell, values)) + "}"

    return encode


def _texts(values: Sequence[Any]) -> str:
    """All strings of a column escaped in one go; NUL parts them, which no Postgres text can hold."""
    if not values:
        return "{}"
    if None in values:
        return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"
    joined = "\0".join(values)
    if joined.count("\0") != len(values) - 1:
        raise ValueError("NUL in a text")
    if "\\" in joined:
        joined = joined.replace("\\", "\\\\")
    if '"' in joined:
        joined = joined.replace('"', '\\"')
    return '{"' + joined.replace("\0", '","') + '"}'


def _quoted(text: str) -> str:
    if "\0" in text:
        raise ValueError("NUL in a text")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _quoting(spell: Callable[[Any], str]) -> Encoder:
    def encode(values: Sequence[Any]) -> str:
        return _texts([None if value is None else spell(value) for value in values])

    return encode
