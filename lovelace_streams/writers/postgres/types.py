"""Encode columns of Python values as Postgres texts, and tell which column type can hold which Python type.

A block reaches the server in one of two ways: as one array literal a column, the parameters of a statement that merges,
or as the lines of a COPY. The first way needs no temporary table and no prepared statement, so it passes any connection
pooler. Both ways are made of the same texts, `EncodedColumn`. Encoding a column takes a few passes over it in C. A
value that does not fit its declared type raises, and the caller finds its row.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from itertools import chain, compress
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

import msgspec

from lovelace_streams.rows.decimals import fits_scale
from lovelace_streams.rows.json_values import json_text
from lovelace_streams.rows.types import scalar

Texts = list[str | None]
"""The values of one column as the input of its Postgres type; None is NULL."""


Pick = Callable[[Sequence[Any]], list[Any]]
"""Picks the values of some rows of a column."""


def picker(rows: Sequence[int]) -> Pick:
    """Return what picks the values of these rows, in this order; a range is of step 1.

    >>> picker([2, 0])("abc"), picker([1])("abc"), picker(range(1, 3))("abc")
    (['c', 'a'], ['b'], ['b', 'c'])
    """
    if isinstance(rows, range):
        return lambda values: list(values[rows.start : rows.stop])
    if len(rows) < 2:  # noqa: PLR2004 - `itemgetter` of one gives no tuple
        return lambda values: [values[row] for row in rows]
    get = itemgetter(*rows)
    return lambda values: list(get(values))


class EncodedColumn(msgspec.Struct, gc=False):
    """The texts of one column of a block."""

    texts: Texts
    has_nulls: bool
    escape_free: bool
    """No text holds a character that has a meaning in an array literal or in a line of COPY."""

    def literal(self) -> str:
        """Return one array literal.

        >>> EncodedColumn(['say "a"', None], has_nulls=True, escape_free=False).literal()
        '{"say \\\\"a\\\\"",NULL}'
        """
        if self.escape_free:
            return "{" + ",".join(self._with_null("NULL")) + "}"
        if self.has_nulls:
            return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in self.texts]) + "}"
        return _quoted("\0".join(self._with_null(""))).replace("\0", '","').join("{}") if self.texts else "{}"

    def fields(self) -> Sequence[str]:
        r"""Return the fields of lines of COPY.

        >>> EncodedColumn(["a\\b", None], has_nulls=True, escape_free=False).fields()
        ['a\\\\b', '\\N']
        """
        if not self.escape_free and any(map("".join(self._with_null("")).__contains__, "\\\t\n\r")):
            return [r"\N" if text is None else text.translate(_ESCAPES) for text in self.texts]
        return self._with_null(r"\N")

    def subset(self, chosen: Sequence[bool]) -> "EncodedColumn":
        """Return the column of the chosen rows."""
        return EncodedColumn(list(compress(self.texts, chosen)), self.has_nulls, self.escape_free)

    def picked(self, pick: "Pick") -> "EncodedColumn":
        """Return the column of some rows, in another order."""
        return EncodedColumn(pick(self.texts), self.has_nulls, self.escape_free)

    def without_texts(self) -> "EncodedColumn":
        """Return what is known of the column, without its texts."""
        return EncodedColumn([], self.has_nulls, self.escape_free)

    def between(self, start: int, stop: int) -> "EncodedColumn":
        """Return the column of consecutive rows."""
        return EncodedColumn(self.texts[start:stop], self.has_nulls, self.escape_free)

    def _with_null(self, null: str) -> list[str]:
        return [null if text is None else text for text in self.texts] if self.has_nulls else self.texts  # type: ignore[return-value]


def joined(columns: Sequence[EncodedColumn]) -> EncodedColumn:
    """Return the same column of one piece after the other."""
    return EncodedColumn(
        [*chain.from_iterable([column.texts for column in columns])],
        has_nulls=any(column.has_nulls for column in columns),
        escape_free=all(column.escape_free for column in columns),
    )


_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def lines(columns: Sequence[EncodedColumn]) -> list[str]:
    """Return the input of a COPY, one line a row."""
    return list(map("\t".join, zip(*[column.fields() for column in columns], strict=True)))


def read_lines(lines: Sequence[str], like: Sequence[EncodedColumn]) -> list[EncodedColumn]:
    r"""Return the columns that the lines of a COPY were made of; `like` are those, their texts forgotten.

    >>> columns = [EncodedColumn(["a\\b", None], True, False), EncodedColumn(["1", "2"], False, True)]
    >>> read_lines(lines(columns), [column.without_texts() for column in columns]) == columns
    True
    """
    fields = zip(*[line.split("\t") for line in lines], strict=True)
    return [
        EncodedColumn(_texts_of(each, column), column.has_nulls, column.escape_free)
        for each, column in zip(fields, like, strict=True)
    ]


def _texts_of(fields: Sequence[str], like: EncodedColumn) -> Texts:
    texts: Texts = [None if text == r"\N" else text for text in fields] if like.has_nulls else list(fields)
    if like.escape_free or not any("\\" in text for text in texts if text is not None):
        return texts
    return [None if text is None else _ESCAPED.sub(_unescaped, text) for text in texts]


_ESCAPED = re.compile(r"\\(.)")
_MEANINGS = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


def _unescaped(found: re.Match[str]) -> str:
    return _MEANINGS[found[1]]


ColumnEncoder = Callable[[Sequence[Any]], EncodedColumn]
"""Values of one column → their texts. Raises any Exception for a value that does not fit."""


class TypeInfo(msgspec.Struct, frozen=True):
    """A column's type: the type under its domains, without modifier, as the catalogue names it."""

    name: str
    """`pg_type.typname`: int8, text, _int8, jsonb, …"""
    category: str
    cast_name: str
    """The name for a cast. It lacks the modifier: a cast to varchar(5) would cut, an assignment refuses."""
    modified: bool
    modifier: int
    exact: bool
    """No domain, and a collation by which only equal strings are equal."""
    display_name: str
    """The name with its modifier, for messages."""
    coercion: str = ""
    """The server's function that applies the modifier, quoted with its schema; empty if the type has none."""
    coercion_is_told: bool = False
    """Whether that function is told if a cast is explicit: an explicit one cuts, an assignment refuses."""

    @property
    def json(self) -> bool:
        return self.name in ("json", "jsonb")

    @property
    def scale(self) -> int | None:
        """Digits after the point that a `numeric(p,s)` keeps, also as an element; None if it keeps all.

        A negative one rounds before the point. It is the modifier's lower 11 bits (src/backend/utils/adt/numeric.c).
        """
        if not self.modified or self.name.removeprefix("_") != "numeric":
            return None
        return ((self.modifier - 4 & 0x7FF) ^ 0x400) - 0x400

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
    """Whether a column can hold values of a declared type.

    A value out of the column's range is a record's fault, found when it is written.
    """
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


_ALWAYS_ACCEPTED: dict[Any, str] = {
    bool: "bool", int: "int8", float: "float8", datetime: "timestamptz", date: "date", UUID: "uuid", str: "text"
}  # fmt: skip


def always_accepted(kind: Any, real: TypeInfo) -> bool:
    """Whether the column's type accepts every encoded value of a declared type, but for integers past 64 bits."""
    plain = scalar(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return False
    if get_origin(plain) is list:
        return real.name == f"_{_ALWAYS_ACCEPTED.get(get_args(plain)[0])}"
    return real.name == _ALWAYS_ACCEPTED.get(plain)


BIGINT = range(-(2**63), 2**63)


def fits_bigint(value: Any) -> bool:
    """Whether a value is no integer past 64 bits, nor a list that holds one."""
    if isinstance(value, list):
        return all(map(fits_bigint, value))
    return not isinstance(value, int) or value in BIGINT


class TooManyDigits(ValueError):  # noqa: N818 - says what is wrong with a value
    """A number has more digits after the point than its column keeps, and would be rounded."""


def column_encoder(kind: Any, real: TypeInfo) -> ColumnEncoder:
    """Return the encoder of a declared type's values for a column of the table.

    Exact numbers that the column would round raise `TooManyDigits`; a float is rounded, as it has no digits of its own.
    """
    if real.json:
        return _each(json_text, escape_free=False)
    plain = scalar(kind)
    if get_origin(plain) is list:
        element = get_args(plain)[0]
        return _lists(column_encoder(get_args(kind)[0], real), ints=element is int and not _may_round(element, real))
    unwrap = _value if isinstance(kind, type) and issubclass(kind, Enum) and not issubclass(kind, str) else None
    if plain is str:
        return _strings if unwrap is None else _each(unwrap, escape_free=False)
    encode = VALUE_ENCODERS[plain]
    if _may_round(plain, real):
        return _each(_within_scale(encode, real.scale or 0), escape_free=True)
    if unwrap is not None:
        return _each(lambda value: encode(value.value), escape_free=True)
    encode_all = ENCODE_ALL.get(plain)
    each = _each(encode, escape_free=True)
    return each if encode_all is None else _all_at_once(plain, encode_all, each)


def _may_round(plain: Any, real: TypeInfo) -> bool:
    """Whether a column may round an exact number of this type."""
    scale = real.scale
    return scale is not None and (plain is Decimal or (plain is int and scale < 0))


def _within_scale(encode: Callable[[Any], str], scale: int) -> Callable[[Any], str]:
    def encoded(value: Any) -> str:
        exact = value if isinstance(value, Decimal) else Decimal(value)
        if exact.is_finite() and not fits_scale(exact, scale):
            raise TooManyDigits
        return encode(value)

    return encoded


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


VALUE_ENCODERS: dict[Any, Callable[[Any], str]] = {
    bool: {True: "t", False: "f"}.__getitem__,
    int: int.__repr__,
    float: _number,
    Decimal: Decimal.__str__,
    datetime: _instant,
    date: date.isoformat,
    UUID: _identity,
}
"""No result holds a character that has a meaning in an array literal or in a line of COPY."""


def _ints(values: Sequence[int]) -> list[str]:
    return _json_elements(values).decode().split(",")


def _instants(values: Sequence[datetime]) -> list[str] | None:
    if set(map(_zone, values)) != {UTC}:
        return None  # JSON writes an offset to the minute only
    return _json_elements(values)[1:-1].decode().split('","')


def _json_elements(values: Sequence[Any]) -> bytes:
    """Encode all values by one call, a comma between them."""
    return msgspec.json.encode(values)[1:-1]


_zone = attrgetter("tzinfo")

EncodeAll = Callable[[Sequence[Any]], list[str] | None]
ENCODE_ALL: dict[Any, EncodeAll] = {int: _ints, datetime: _instants}
"""Encode all values of a column by one call, if each has exactly this type. None where the texts would differ from
those of `VALUE_ENCODERS`."""


def _all_at_once(kind: type, encode_all: EncodeAll, each: ColumnEncoder) -> ColumnEncoder:
    def encode(values: Sequence[Any]) -> EncodedColumn:
        if set(map(type, values)) == {kind} and (texts := encode_all(values)) is not None:
            return EncodedColumn(texts, has_nulls=False, escape_free=True)  # type: ignore[arg-type]
        return each(values)

    return encode


def _each(encode: Callable[[Any], str], *, escape_free: bool) -> ColumnEncoder:
    def each(values: Sequence[Any]) -> EncodedColumn:
        texts = [None if value is None else encode(value) for value in values]
        return EncodedColumn(texts, has_nulls=None in texts, escape_free=True) if escape_free else _strings(texts)

    return each


def _strings(values: Sequence[Any]) -> EncodedColumn:
    """Take texts as they are. No Postgres text can hold NUL, and a lone surrogate can't be sent."""
    texts = list(values)
    has_nulls = NoneType in set(map(type, values))
    joined = "".join([text for text in texts if text is not None] if has_nulls else texts)
    if "\0" in joined:
        raise ValueError("NUL in a text")
    if not joined.isascii():
        joined.encode()
    return EncodedColumn(texts, has_nulls, escape_free=False)


def _lists(elements: ColumnEncoder, *, ints: bool) -> ColumnEncoder:
    """Encode lists: the text of a list is itself an array literal."""

    def one(values: Any) -> str:
        if isinstance(values, str):
            raise TypeError("a string is not a list")
        return elements(values).literal()

    each = _each(one, escape_free=False)

    def encode(values: Sequence[Any]) -> EncodedColumn:
        if set(map(type, values)) == {list} and set(map(type, chain.from_iterable(values))) <= {int}:
            texts = _json_elements(values).replace(b"],[", b"]\t[").translate(_BRACES).decode().split("\t")
            return EncodedColumn(texts, has_nulls=False, escape_free=False)  # type: ignore[arg-type]
        return each(values)

    return encode if ints else each


_BRACES = bytes.maketrans(b"[]", b"{}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
