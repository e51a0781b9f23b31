"""Values that are passed on as JSON: what each kind becomes, and its text, the same for every writer.

A column of `dict`, `Any`, a Struct or lists of them holds JSON "as it is": every digit that was sent is stored. What
JSON has no word for has one form (docs/rows.md has the table), or is refused: NaN and infinity, NUL, lone surrogates.
Reasons: docs/decisions/0023-json-as-it-is.md.
"""

import base64
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

import msgspec

from lovelace_streams.records import Reason
from lovelace_streams.rows.coercion import to_decimal, to_str, utc, wrong_type
from lovelace_streams.rows.values import INT_MAX, INT_MIN, ConversionError, ExactFloat, fraction, json_type_name, parse

# ---- any value → JSON -----------------------------------------------------------------------------------------------


def json_value(value: Any) -> Any:
    """Return the JSON of a plain value, made of Python's own types; a fraction that no float has is an `ExactFloat`.

    Raises `ConversionError` for what Postgres' JSONB can't hold.
    """
    convert = _FORMS.get(value.__class__)
    if convert is None:
        convert = next((form for kind, form in _FORMS.items() if isinstance(value, kind)), None)
        if convert is None:
            raise wrong_type("JSON", value)
    return convert(value)


def _same(value: Any) -> Any:
    return value


def _integer(value: int) -> Any:
    return value if INT_MIN <= value <= INT_MAX or value.bit_length() < _BITS_MAX else _number(Decimal(value))


_BITS_MAX = 14_000  # 4,215 digits: an int with more than 4,300 has no text (sys.set_int_max_str_digits)


def _number(value: float | Decimal) -> float:
    return as_float(to_decimal(value))


def _float(value: float) -> float:
    if value - value:  # infinity or NaN: the difference is NaN
        raise ConversionError(Reason.OUT_OF_RANGE, "JSON", "a number that is not finite")
    return value


def _object(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {to_str(name): json_value(inner) for name, inner in value.items()}


def _list(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    return [json_value(inner) for inner in value]


def _instant(value: datetime) -> str:
    """Spell an instant in UTC; a local timestamp, which has no offset, without one."""
    return value.isoformat() if value.tzinfo is None else f"{utc(value).replace(tzinfo=None).isoformat()}Z"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


_FORMS: dict[type, Callable[[Any], Any]] = {
    str: to_str,
    NoneType: _same,
    bool: _same,
    int: _integer,
    ExactFloat: _number,
    float: _float,
    Decimal: _number,
    dict: _object,
    Mapping: _object,
    list: _list,
    tuple: _list,
    datetime: _instant,
    date: date.isoformat,
    time: time.isoformat,
    UUID: str,
    bytes: _base64,
}
"""Class → what makes JSON of its values. A class stands before those that it is a subclass of."""

# ---- JSON → JSON ----------------------------------------------------------------------------------------------------


_ODD = re.compile(rb"\\u|\d{19}")
"""Where msgspec accepts what `json_value` refuses, or reads it in another way: escaped NUL, surrogates, long ints."""


def _fraction(text: str) -> float:
    nearest = float(text)
    return nearest if repr(nearest) == text and "e" not in text else _number(fraction(text))


_decode = msgspec.json.Decoder(float_hook=_fraction).decode


def json_of_text(text: bytes) -> Any:
    """Return `json_value` of a piece of JSON, mostly without a look at each value in it. It may refuse more."""
    return json_value(parse(text)) if _ODD.search(text) else _decode(text)


def object_of_text(text: bytes) -> Any:
    """Do what `json_of_text` does for an object or null; raises `TypeError` for anything else."""
    value = json_of_text(text)
    if value is not None and value.__class__ is not dict:
        raise TypeError
    return value


# ---- its text -------------------------------------------------------------------------------------------------------


def _digits(value: Any) -> Decimal:
    if isinstance(value, ExactFloat):
        return value.digits
    raise NotImplementedError


_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_digits).encode


def json_text(value: Any) -> str:
    """Return the text of a column's JSON. Every writer that stores JSON stores this one.

    >>> json_text({"price": ExactFloat(Decimal("19.999999999999999999"))})
    '{"price":19.999999999999999999}'
    """
    return _encode(value).decode()


# ---- the column's type ----------------------------------------------------------------------------------------------


def json_of(expected: str, accepted: tuple[type, ...], target: Any) -> Callable[[Any], Any]:
    """Make a function for columns of JSON.

    `expected` is their name in messages, `accepted` the classes of plain values (any, if empty), `target` the type that
    msgspec decodes to (a Struct, `dict[str, int]`), None to keep plain values.
    """

    if target is None:

        def coerce_plain(value: Any) -> Any:
            if accepted and not isinstance(value, accepted):
                raise wrong_type(expected, value)
            return json_value(value)

        return coerce_plain
    is_made = isinstance(target, type)
    decode = msgspec.json.Decoder(target, float_hook=lambda text: as_float(Decimal(text))).decode

    def coerce(value: Any) -> Any:
        if is_made and isinstance(value, target):
            return _checked(value, expected)  # a function returned a Struct
        if not isinstance(value, accepted):
            raise wrong_type(expected, value)
        text = _encode(json_value(value))
        try:
            made = decode(text)
        except msgspec.ValidationError as error:
            raise _misfit(error, value, expected) from None
        except Exception as error:  # noqa: BLE001 - the __post_init__ of a Struct may raise anything
            raise ConversionError(Reason.RULE, expected, type(error).__name__) from None
        return _checked(made, expected) if _NOT_FINITE.search(text) else made

    return coerce


_NOT_FINITE = re.compile(rb'"[+-]?(s?nan|inf)', re.IGNORECASE)
"""A text that a Struct's Decimal would take, and that JSON has no number for."""
_KEPT = (bytes, datetime, date, time, Decimal, UUID)


def _checked(value: Any, expected: str) -> Any:
    """Return a Struct whose values JSON can say; raises `ConversionError` for another."""
    try:
        plain = msgspec.to_builtins(value, builtin_types=_KEPT, enc_hook=_digits)
    except (TypeError, NotImplementedError) as error:
        raise ConversionError(Reason.RULE, expected, type(error).__name__) from None
    json_value(plain)
    return value


def _misfit(error: msgspec.ValidationError, value: Any, expected: str) -> ConversionError:
    """Make the error for JSON that does not fit a Struct, with the path alone: the text may quote a value."""
    inner = re.search(r" - at `(?:key in )?\$([^`]*)`$", str(error))
    path = inner[1] if inner else ""
    return ConversionError(Reason.WRONG_TYPE, expected, f"{json_type_name(value)} that does not fit", path)


# ---- numbers → floats -----------------------------------------------------------------------------------------------


def as_float(number: Decimal) -> float:
    """Return the float that is written with the same digits, else an `ExactFloat`, which keeps them.

    >>> as_float(Decimal("1.5")), as_float(Decimal("1.50"))
    (1.5, 1.50)
    """
    text = str(number)
    nearest = float(text)
    return nearest if repr(nearest) == text else ExactFloat(number)


class Digits:
    """The digits of numbers while a user's function has the nearest floats, and what it makes of them.

    It gets no `ExactFloat`: msgspec and others take no subclass of `float`. A float that it passes on is the very
    object that it was given, and gets its digits back. One that it calculates is another.

    >>> digits = Digits()
    >>> given = digits.hidden({"price": Decimal("19.999999999999999999")})
    >>> given, digits.restored({"net": given["price"], "gross": given["price"] * 1.5})
    ({'price': 20.0}, {'net': 19.999999999999999999, 'gross': 30.0})
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[int, tuple[float, ExactFloat]] = {}
        """Id of a float → the float, which keeps the id its own, and what it stands for."""

    def hidden(self, value: Any, kind: type = Decimal) -> Any:
        """Return a value with floats instead of numbers of a kind."""
        if isinstance(value, kind):
            exact = as_float(value) if isinstance(value, Decimal) else value
            if not isinstance(exact, ExactFloat):
                return exact
            nearest = float(exact)
            self._kept[id(nearest)] = nearest, exact
            return nearest
        if isinstance(value, dict):
            return {name: self.hidden(inner, kind) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.hidden(inner, kind) for inner in value]
        return value

    def restored(self, value: Any) -> Any:
        """Return what a function made, with the digits of the floats that it passed on."""
        if not self._kept:
            return value
        if value.__class__ is float:
            known = self._kept.get(id(value))
            return value if known is None else known[1]
        if isinstance(value, dict):
            return {name: self.restored(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.restored(inner) for inner in value]
        if isinstance(value, msgspec.Struct):
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            changed = {name: exact for name, inner in fields.items() if (exact := self.restored(inner)) is not inner}
            return msgspec.structs.replace(value, **changed) if changed else value
        return value
