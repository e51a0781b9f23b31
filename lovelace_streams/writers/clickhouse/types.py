"""Which ClickHouse type can hold which Python type, and what is checked before a value is sent.

ClickHouse's client cuts, wraps or refuses a whole block without saying which row it was, so every value is checked
here: by the type of its column, with the code that the server has for it. Nothing is changed on the way, but for
instants, which are cut to the precision that the column declares.
"""

import math
import re
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import UNSET

from lovelace_streams.records import Reason
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers import Refusal

Take = Callable[[Any], Any]
"""A value of a row → what the client is given; raises `Unfit`, or whatever a value of another type makes it raise."""

Whole = Callable[[list[Any]], Sequence[Any]]
"""All values of a column at once → what the client is given. It may refuse what `Take` takes, by raising one of
`DOUBTS`: then each is looked at by itself. It never takes what `Take` refuses."""
DOUBTS = (TypeError, ValueError, OverflowError)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1)
_FIRST_DAY = EPOCH_DAY.toordinal()
TICK = timedelta(microseconds=1)
MICROSECONDS = 6
TYPE_MISMATCH, OUT_OF_RANGE, NOT_UTF8 = "53", "321", "117"
TOO_LONG, NO_NULL, NO_MEMBER, DECIMAL_OVERFLOW = "131", "349", "691", "407"


class Unfit(Exception):  # noqa: N818
    """A value that its column can't hold: reason and code, never the value."""

    def __init__(self, reason: Reason, code: str, column: str = "") -> None:
        super().__init__(reason, code, column)
        self.reason = reason
        self.code = code
        self.column = column

    def refusal(self, column: str) -> Refusal:
        """What the row gets."""
        return Refusal(self.reason, self.code, column)


class Type(msgspec.Struct, frozen=True):
    """A column's type without its wrappers: `LowCardinality(Nullable(String))` is a nullable `String`."""

    name: str
    arguments: str
    nullable: bool
    shown: str

    @property
    def element(self) -> "Type":
        """Of an Array."""
        return parse(self.arguments)


def parse(shown: str) -> Type:
    """Read a type as `system.columns` shows it.

    >>> parse("LowCardinality(Nullable(String))").nullable, parse("DateTime64(6, 'UTC')").arguments
    (True, "6, 'UTC'")
    """
    inner, nullable = shown.strip(), False
    while True:
        name, _, rest = inner.partition("(")
        arguments = rest[:-1] if rest.endswith(")") else ""
        if name not in ("Nullable", "LowCardinality"):
            return Type(name, arguments, nullable, shown)
        nullable = nullable or name == "Nullable"
        inner = arguments


def holds(kind: Any, real: Type) -> bool:
    """Whether a column can hold values of a declared type.

    >>> holds(int, parse("UInt8")), holds(datetime, parse("Date")), holds(list[int], parse("Array(Int64)"))
    (True, False, True)
    """
    plain = scalar(kind)
    if plain is dict:
        return real.name == "String"
    if get_origin(plain) is list:
        return real.name == "Array" and holds(get_args(plain)[0], real.element)
    return (plain, real.name) in TAKERS


def exact(kind: Any, real: Type) -> bool:
    """Whether keys are equal in Python exactly where they are equal in the column."""
    if real.name in ("FixedString", "Float32", "Float64", "Array") or scalar(kind) is dict:
        return False
    return scalar(kind) is not datetime or (real.name == "DateTime64" and precision(real) >= 6)  # noqa: PLR2004


def taker(kind: Any, real: Type) -> Take:
    """How values of a declared type are checked for a column of the table, and handed to the client."""
    take = _taker(kind, real)
    if isinstance(kind, type) and issubclass(kind, Enum):
        plain = take

        def take(value: Any) -> Any:
            return plain(value.value)

    nullable = real.nullable

    def checked(value: Any) -> Any:
        if value is None:
            if nullable:
                return None
            raise Unfit(Reason.NOT_NULL, NO_NULL)
        if value is UNSET:  # absent would become the type's default: whoever is refused at start never gets here
            raise Unfit(Reason.MISSING, NO_NULL)
        try:
            return take(value)
        except (TypeError, ValueError, AttributeError, ArithmeticError, msgspec.MsgspecError):
            raise Unfit(Reason.BAD_VALUE, TYPE_MISMATCH) from None

    return checked


def _taker(kind: Any, real: Type) -> Take:
    plain = scalar(kind)
    if plain is dict:
        return _json
    if get_origin(plain) is list:
        inner = taker(get_args(kind)[0], real.element)
        return lambda values: [inner(value) for value in _listed(values)]
    return TAKERS[plain, real.name](real)


def _listed(values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError("not a list")
    return values


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _integer(low: int, high: int) -> Callable[[Type], Take]:
    def take(value: Any) -> int:
        if value.__class__ is not int and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError("not an int")
        if not low <= value <= high:
            raise Unfit(Reason.OUT_OF_RANGE, OUT_OF_RANGE)
        return int(value)

    return lambda _real: take


def _boolean(_real: Type) -> Take:
    def take(value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError("not a bool")
        return value

    return take


def _float(_real: Type) -> Take:
    def take(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("not a float")
        return float(value)

    return take


def _float32(real: Type) -> Take:
    exactly = _float(real)

    def take(value: Any) -> float:
        number: float = exactly(value)
        if math.isfinite(number) and abs(number) > 3.4028235e38:  # noqa: PLR2004 - the largest there is
            raise Unfit(Reason.OUT_OF_RANGE, OUT_OF_RANGE)
        return number

    return take


def _decimal(real: Type) -> Take:
    precision, scale = (int(part) for part in real.arguments.split(","))

    def take(value: Any) -> Decimal:
        if not isinstance(value, Decimal):
            raise TypeError("not a Decimal")
        if not value.is_finite():
            raise Unfit(Reason.OUT_OF_RANGE, DECIMAL_OVERFLOW)
        if value and value.adjusted() >= precision - scale:
            raise Unfit(Reason.OUT_OF_RANGE, DECIMAL_OVERFLOW)
        if value and int(value.normalize().as_tuple().exponent) < -scale:
            raise Unfit(Reason.OUT_OF_RANGE, DECIMAL_OVERFLOW)  # it would be cut
        return value

    return take


def _text(_real: Type) -> Take:
    def take(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("not a str")
        if not value.isascii():
            _utf8(value)
        return str(value)

    return take


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise Unfit(Reason.BAD_VALUE, NOT_UTF8) from None


def _fixed(real: Type) -> Take:
    size = int(real.arguments)

    def take(value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError("not a str")
        encoded = _utf8(value)
        if len(encoded) > size:
            raise Unfit(Reason.OUT_OF_RANGE, TOO_LONG)
        return encoded.ljust(size, b"\0")

    return take


def _names(real: Type) -> set[str]:
    """The members of an enum."""
    return {name.replace("\\'", "'").replace("\\\\", "\\") for name in _NAME.findall(real.arguments)}


def _member(real: Type) -> Take:
    names = _names(real)

    def take(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("not a str")
        if value not in names:
            raise Unfit(Reason.BAD_VALUE, NO_MEMBER)
        return str(value)

    return take


_NAME = re.compile(r"'((?:[^'\\]|\\.)*)'\s*=")


def microseconds(value: datetime) -> int:
    """Since 1970; raises `ValueError` for a time without offset, which would be read in the server's time zone."""
    if value.tzinfo is None:
        raise ValueError("a time without offset")
    return (value - EPOCH) // TICK


def _instant(real: Type) -> Take:
    low, high = _span(real)
    digits = precision(real)

    def take(value: Any) -> int:
        since = microseconds(value)
        if not low <= value <= high:
            raise Unfit(Reason.OUT_OF_RANGE, OUT_OF_RANGE)
        return _cut(since, digits)

    return take


def _cut(since: int, digits: int) -> int:
    """Microseconds in the precision of a column."""
    return int(since * 10 ** (digits - 6) if digits > 6 else since // 10 ** (6 - digits))  # noqa: PLR2004


def precision(real: Type) -> int:
    """Digits after the second."""
    return int(real.arguments.partition(",")[0]) if real.name == "DateTime64" else 0


def _span(real: Type) -> tuple[datetime, datetime]:
    """The first and last instant of a column; nanoseconds leave room for fewer years."""
    if real.name == "DateTime":
        return EPOCH, EPOCH + timedelta(seconds=2**32 - 1)
    end = datetime(2262, 4, 11, tzinfo=UTC) if precision(real) == 9 else LAST  # noqa: PLR2004
    return datetime(1900, 1, 1, tzinfo=UTC), end


LAST = datetime(2299, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
DATES = EPOCH_DAY, EPOCH_DAY + timedelta(days=2**16 - 1)
CODES = {
    "Int8": "b", "Int16": "h", "Int32": "i", "Int64": "q", "UInt8": "B", "UInt16": "H", "UInt32": "I", "UInt64": "Q",
    "Bool": "B", "Float64": "d", "DateTime": "I", "DateTime64": "q", "Date": "H", "Date32": "i",
}  # fmt: skip
"""ClickHouse's type → the code of Python's array that holds its values, where they are numbers."""
DATES32 = date(1900, 1, 1), date(2299, 12, 31)
INTEGERS = {
    **{f"Int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64, 128, 256)},
    **{f"UInt{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64, 128, 256)},
}


def _day(low: date, high: date) -> Callable[[Type], Take]:
    def take(value: Any) -> int:
        if isinstance(value, datetime) or not isinstance(value, date):
            raise TypeError("not a date")
        if not low <= value <= high:
            raise Unfit(Reason.OUT_OF_RANGE, OUT_OF_RANGE)
        return (value - EPOCH_DAY).days

    return lambda _real: take


def days(values: list[date]) -> list[int]:
    """Since 1970."""
    return [value.toordinal() - _FIRST_DAY for value in values]


def ticks(values: list[datetime]) -> list[int]:
    """Microseconds since 1970; raises `TypeError` for a time without offset.

    Many rows share one instant, the very object (Kafka's timestamps): finding costs a third of computing (0.07 µs).
    """
    places = list(map(id, values))
    if len(set(places)) * 4 > len(values):
        return [(value - EPOCH) // TICK for value in values]
    found = {place: (value - EPOCH) // TICK for place, value in dict(zip(places, values, strict=True)).items()}
    return list(map(found.__getitem__, places))


def _uuid(_real: Type) -> Take:
    def take(value: Any) -> UUID:
        if not isinstance(value, UUID):
            raise TypeError("not a UUID")
        return value

    return take


def _uuid_text(_real: Type) -> Take:
    return UUID.__str__


TAKERS: dict[tuple[Any, str], Callable[[Type], Take]] = {
    **{(int, name): _integer(*bounds) for name, bounds in INTEGERS.items()},
    (bool, "Bool"): _boolean,
    (bool, "UInt8"): _boolean,
    (float, "Float64"): _float,
    (float, "Float32"): _float32,
    (Decimal, "Decimal"): _decimal,
    (str, "String"): _text,
    (str, "FixedString"): _fixed,
    (str, "Enum8"): _member,
    (str, "Enum16"): _member,
    (datetime, "DateTime"): _instant,
    (datetime, "DateTime64"): _instant,
    (date, "Date"): _day(*DATES),
    (date, "Date32"): _day(*DATES32),
    (UUID, "UUID"): _uuid,
    (UUID, "String"): _uuid_text,
}
"""Python's plain type and ClickHouse's → how a value is checked."""


# ---- a column at a time -------------------------------------------------------------------------------------------


def whole(kind: Any, real: Type) -> Whole | None:
    """How all values of a column are checked at once; None where there is no quicker way than one by one.

    Values of exactly one class are held to the bounds of the least and the greatest of them, which costs some 0.05 µs
    a value where `taker` costs 0.3.

    >>> whole(int, parse("Nullable(Int8)"))([1, None, -128])
    [1, None, -128]
    >>> whole(int, parse("Int8"))([1, 128])
    Traceback (most recent call last):
    OverflowError: signed char is greater than maximum
    """
    plain = scalar(kind)
    if kind is not plain and isinstance(kind, type):  # an Enum
        return None
    if get_origin(plain) is list:
        inner = whole(get_args(plain)[0], real.element)
        return None if inner is None else _nullable(list, _lists(inner), real.nullable)
    way = _WHOLES.get((plain, real.name))
    return None if way is None else _nullable(plain, way(real), real.nullable)


def _nullable(plain: type, way: Whole, nullable: bool) -> Whole:
    """Of one class all of them, but for nulls where the column takes them; `way` sees no null."""

    def take(values: list[Any]) -> Sequence[Any]:
        classes = set(map(type, values))
        if classes == {plain}:
            return way(values)
        if not nullable or not classes <= {plain, NoneType}:
            raise TypeError
        present = [value for value in values if value is not None]
        taken = way(present) if present else present
        if _unchanged(taken, present):
            return values
        each = iter(taken)
        return [None if value is None else next(each) for value in values]

    return take


def _unchanged(taken: Sequence[Any], values: list[Any]) -> bool:
    """Whether values are sent as they are: the very list, or the same integers in an array."""
    return taken is values or taken.__class__ is array


def _lists(inner: Whole) -> Whole:
    """Lists whose elements are sent as they are."""

    def take(values: list[list[Any]]) -> list[list[Any]]:
        elements = list(chain.from_iterable(values))
        if elements and not _unchanged(inner(elements), elements):
            raise TypeError
        return values

    return take


def _within(low: int, high: int) -> Callable[[Type], Whole]:
    def take(values: list[int]) -> list[int]:
        if not low <= min(values) <= max(values) <= high:
            raise ValueError
        return values

    return lambda _real: take


def _packed(real: Type) -> Whole:
    """An array refuses what is beyond its bounds, and is what will be sent."""
    code = CODES[real.name]
    return lambda values: array(code, values)


def _texts(_real: Type) -> Whole:
    def take(values: list[str]) -> list[str]:
        text = "".join(values)
        if not text.isascii():
            text.encode()  # raises UnicodeEncodeError, which is a ValueError
        return values

    return take


def _members(real: Type) -> Whole:
    names = _names(real)

    def take(values: list[str]) -> list[str]:
        if not names.issuperset(values):
            raise ValueError
        return values

    return take


def _instants(real: Type) -> Whole:
    low, high = map(microseconds, _span(real))
    digits = precision(real)

    def take(values: list[datetime]) -> list[int]:
        taken = ticks(values)
        if not low <= min(taken) <= max(taken) <= high:
            raise ValueError
        if digits == 6:  # noqa: PLR2004 - microseconds
            return taken
        return [_cut(each, digits) for each in taken]

    return take


def _days(low: date, high: date) -> Callable[[Type], Whole]:
    def take(values: list[date]) -> list[int]:
        if not low <= min(values) <= max(values) <= high:
            raise ValueError
        return days(values)

    return lambda _real: take


def _as_they_are(_real: Type) -> Whole:
    return lambda values: values


_WHOLES: dict[tuple[Any, str], Callable[[Type], Whole]] = {
    **{(int, name): _packed if name in CODES else _within(*bounds) for name, bounds in INTEGERS.items()},
    (bool, "Bool"): _as_they_are,
    (bool, "UInt8"): _as_they_are,
    (float, "Float64"): _as_they_are,
    (str, "String"): _texts,
    (str, "Enum8"): _members,
    (str, "Enum16"): _members,
    (datetime, "DateTime"): _instants,
    (datetime, "DateTime64"): _instants,
    (date, "Date"): _days(*DATES),
    (date, "Date32"): _days(*DATES32),
    (UUID, "UUID"): _as_they_are,
}
