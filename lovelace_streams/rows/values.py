"""JSON as exact values, the names of JSON types, and the error for a value that does not fit, which never holds it."""

import json
import re
from collections.abc import Mapping
from decimal import MIN_ETINY, Decimal, InvalidOperation
from typing import Any, Self

import msgspec

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
DIGITS_MAX = 4300  # int() refuses a longer text (sys.set_int_max_str_digits)


class ConversionError(Exception):
    """A value does not fit its type. It holds no value (law 10), and no path: a caller that knows it calls `at`.

    `found` says in words what was there: the name of its JSON type, or `a longer one`.
    """

    def __init__(self, reason: Reason, expected: str, found: str, where: str = "") -> None:
        super().__init__(reason, expected, found, where)
        self.reason = reason
        self.expected = expected
        self.found = found
        self.where = where
        """The rest of the path, for a value inside of a value."""

    def at(self, path: str) -> RecordFault:
        """Return the record's fault, with the path of the value."""
        return RecordFault(self.reason, f"expected {self.expected}, got {self.found} at {path}{self.where}")


def json_type_name(value: Any) -> str:
    """Return the name of a value's JSON type.

    >>> json_type_name({}), json_type_name(None), json_type_name(True), json_type_name(Decimal("1.5"))
    ('object', 'null', 'bool', 'float')
    """
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, float | Decimal):
        return "float"
    return next((t.__name__ for t in (bool, int, str, bytes) if isinstance(value, t)), type(value).__name__)


class ExactFloat(float):
    """A float that keeps the digits that it was read from, where no float has the same.

    A column of JSON has it for such a number.

    >>> price = ExactFloat(Decimal("19.999999999999999999"))
    >>> price, price.digits, price + 1
    (19.999999999999999999, Decimal('19.999999999999999999'), 21.0)
    """

    __slots__ = ("digits",)
    digits: Decimal

    def __new__(cls, digits: Decimal) -> Self:
        """Make the nearest float; infinity for a number past its range."""
        made = super().__new__(cls, digits)
        made.digits = digits
        return made

    def __repr__(self) -> str:
        return str(self.digits)

    def __reduce__(self) -> tuple[type[Self], tuple[Decimal]]:
        return type(self), (self.digits,)


# ---- exact JSON -----------------------------------------------------------------------------------------------------


def parse(text: bytes | str) -> Any:
    """Read JSON exactly: fractions as `Decimal`, and lone surrogates kept, so that the field at fault can be named.

    Raises `RecordFault`: not_utf8, not_json (NaN and Infinity are not JSON either), too_deep.

    >>> parse('{"price": 0.10}')
    {'price': Decimal('0.10')}
    """
    try:
        text = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise RecordFault(Reason.NOT_UTF8, f"byte {error.start}") from None
    try:
        return _quick_decode(text)
    except msgspec.DecodeError as error:
        if "\\" not in text and str(error) == _TRUNCATED:
            raise RecordFault(Reason.NOT_JSON) from None
    except (ValueError, RecursionError):
        pass
    try:
        return plain_decode(text)
    except ValueError:
        raise RecordFault(Reason.NOT_JSON) from None
    except RecursionError:
        raise RecordFault(Reason.TOO_DEEP) from None


def fraction(text: str) -> Decimal:
    """Read a number exactly. If its exponent is past the limits of `Decimal`: infinity, or the least number."""
    try:
        return Decimal(text)
    except InvalidOperation:
        mantissa, exponent = re.split("[eE]", text)
        digits = Decimal(mantissa)
        if not digits:
            return digits
        return (_LEAST if exponent.startswith("-") else Decimal("Infinity")).copy_sign(digits)


_LEAST = Decimal((0, (1,), MIN_ETINY))
"""No column of exact numbers holds it, so it is refused and not stored as zero; the nearest float is zero."""


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < DIGITS_MAX else Decimal(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


plain_decode = json.JSONDecoder(parse_float=fraction, parse_int=_integer, parse_constant=_refuse_constant).decode
"""Decides whether a text is JSON, and which values it has: `parse` must not differ from it."""
_quick_decode = msgspec.json.Decoder(float_hook=fraction).decode
"""Takes half the time (2.5 of 5.1 µs for a member) and reads the same values, but refuses some: lone surrogates, the
longest integers. `plain_decode` reads a text again that it refuses."""
_TRUNCATED = "Input data was truncated"
"""msgspec's words for a text that ends too early. That is not JSON, unless an escaped pair of surrogates is cut."""
