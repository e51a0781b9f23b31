"""Which Postgres type can hold which Python type, and how a column of values is spelled as text.

A block travels in one of two ways: as an array literal a column, the parameters of a statement that merges (no
temporary table, no prepared statement, so any pooler will do), or as the lines of a COPY. Both are put together from
the same texts, `Spelled`. Spelling a column is a few passes over it in C; a value that does not fit its declared type
raises, and whoever called finds the row.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from itertools import chain, compress
from operator import attrgetter
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

import msgspec

from lovelace_streams.rows.types import scalar

Texts = list[str | None]
"""The values of one column as its type reads them; None is NULL."""


class Spelled(msgspec.Struct, gc=False):
    """A column of a block as texts."""

    texts: Texts
    nulls: bool
    bare: bool
    """No text holds a character that means something in an array literal or in a line of COPY."""

    def literal(self) -> str:
        """One array literal.

        >>> Spelled(['say "a"', None], nulls=True, bare=False).literal()
        '{"say \\\\"a\\\\"",NULL}'
        """
        if self.bare:
            return "{" + ",".join(self._or("NULL")) + "}"
        if self.nulls:
            return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in self.texts]) + "}"
        return _quoted("\0".join(self._or(""))).replace("\0", '","').join("{}") if self.texts else "{}"

    def fields(self) -> Sequence[str]:
        r"""Fields of lines of COPY.

        >>> Spelled(["a\\b", None], nulls=True, bare=False).fields()
        ['a\\\\b', '\\N']
        """
        if not self.bare and any(map("".join(self._or("")).__contains__, "\\\t\n\r")):
            return [r"\N" if text is None else text.translate(_ESCAPES) for text in self.texts]
        return self._or(r"\N")

    def only(self, chosen: Sequence[bool]) -> "Spelled":
        """Some of the rows."""
        return Spelled(list(compress(self.texts, chosen)), self.nulls, self.bare)

    def ordered(self, order: Sequence[int]) -> "Spelled":
        """The rows in another order."""
        return Spelled(list(map(self.texts.__getitem__, order)), self.nulls, self.bare)

    def _or(self, null: str) -> list[str]:
        return [null if text is None else text for text in self.texts] if self.nulls else self.texts  # type: ignore[return-value]


_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def lines(columns: Sequence[Spelled]) -> list[str]:
    """What COPY reads: a line a row."""
    return list(map("\t".join, zip(*[column.fields() for column in columns], strict=True)))


Speller = Callable[[Sequence[Any]], Spelled]
"""Values of one column → their texts. Raises what does not fit: any Exception."""


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


_CERTAIN: dict[Any, str] = {
    bool: "bool", int: "int8", float: "float8", datetime: "timestamptz", date: "date", UUID: "uuid", str: "text"
}  # fmt: skip


def certain(kind: Any, real: TypeInfo) -> bool:
    """Whether the column's type reads whatever is spelled for it (but for integers past 64 bits)."""
    plain = scalar(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return False
    if get_origin(plain) is list:
        return real.name == f"_{_CERTAIN.get(get_args(plain)[0])}"
    return real.name == _CERTAIN.get(plain)


BIGINT = range(-(2**63), 2**63)


def fits_bigint(value: Any) -> bool:
    """Whether a value is no integer past 64 bits, nor a list that holds one."""
    if isinstance(value, list):
        return all(map(fits_bigint, value))
    return not isinstance(value, int) or value in BIGINT


def speller(kind: Any, real: TypeInfo) -> Speller:
    """How values of a declared type are spelled for a column of the table. Raises what does not fit: any Exception."""
    if real.json:
        return _each(_json, bare=False)
    plain = scalar(kind)
    if get_origin(plain) is list:
        return _lists(speller(get_args(kind)[0], real), ints=get_args(plain)[0] is int)
    unwrap = _value if isinstance(kind, type) and issubclass(kind, Enum) and not issubclass(kind, str) else None
    if plain is str:
        return _strings if unwrap is None else _each(unwrap, bare=False)
    spell = SPELLINGS[plain]
    if unwrap is not None:
        return _each(lambda value: spell(value.value), bare=True)
    quick = QUICK.get(plain)
    return _each(spell, bare=True) if quick is None else _all_alike(plain, quick, _each(spell, bare=True))


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


SPELLINGS: dict[Any, Callable[[Any], str]] = {
    bool: {True: "t", False: "f"}.__getitem__,
    int: int.__repr__,
    float: _number,
    Decimal: Decimal.__str__,
    datetime: _instant,
    date: date.isoformat,
    UUID: _identity,
}
"""None of these yields a character that means something in an array literal or a line of COPY."""


def _ints(values: Sequence[int]) -> list[str]:
    return _written(values).decode().split(",")


def _instants(values: Sequence[datetime]) -> list[str] | None:
    if set(map(_zone, values)) != {UTC}:
        return None  # an offset is written to the minute, as JSON has it
    return _written(values)[1:-1].decode().split('","')


def _written(values: Sequence[Any]) -> bytes:
    """All values by one call, comma between them."""
    return msgspec.json.encode(values)[1:-1]


_zone = attrgetter("tzinfo")

Quick = Callable[[Sequence[Any]], list[str] | None]
QUICK: dict[Any, Quick] = {int: _ints, datetime: _instants}
"""All values of a column by one call, where each is of just this type; None where that would spell them otherwise."""


def _all_alike(kind: type, quick: Quick, slow: Speller) -> Speller:
    def spell(values: Sequence[Any]) -> Spelled:
        if set(map(type, values)) == {kind} and (texts := quick(values)) is not None:
            return Spelled(texts, nulls=False, bare=True)  # type: ignore[arg-type]
        return slow(values)

    return spell


def _each(spell: Callable[[Any], str], *, bare: bool) -> Speller:
    def each(values: Sequence[Any]) -> Spelled:
        texts = [None if value is None else spell(value) for value in values]
        return Spelled(texts, nulls=None in texts, bare=bare) if bare else _strings(texts)

    return each


def _strings(values: Sequence[Any]) -> Spelled:
    """Texts as they are; NUL is what no Postgres text can hold, and a lone surrogate can't be sent."""
    texts = list(values)
    nulls = NoneType in set(map(type, values))
    joined = "".join([text for text in texts if text is not None] if nulls else texts)
    if "\0" in joined:
        raise ValueError("NUL in a text")
    if not joined.isascii():
        joined.encode()
    return Spelled(texts, nulls, bare=False)


def _lists(inner: Speller, *, ints: bool) -> Speller:
    """A list's text is itself an array literal."""

    def one(values: Any) -> str:
        if isinstance(values, str):
            raise TypeError("a string is not a list")
        return inner(values).literal()

    slow = _each(one, bare=False)

    def spell(values: Sequence[Any]) -> Spelled:
        if set(map(type, values)) == {list} and set(map(type, chain.from_iterable(values))) <= {int}:
            texts = _written(values).replace(b"],[", b"]\t[").translate(_BRACES).decode().split("\t")
            return Spelled(texts, nulls=False, bare=False)  # type: ignore[arg-type]
        return slow(values)

    return spell if ints else slow


_BRACES = bytes.maketrans(b"[]", b"{}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
