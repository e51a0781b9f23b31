"""What a JSON value becomes in a column: one `Kind` for each type that a row may declare.

Every kind has a plain side, `coerce` (a value as `parse` gives it → the column's value, or `Misfit`), which is
authoritative, and a fast side for the common types: the `hint` that msgspec decodes by and the `lines` that finish the
job in generated code. The fast side may refuse what the plain one takes; it may never take what the plain one refuses.

No `strict=False` anywhere: it takes 1.0 for an int and "true" for a bool.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WORDS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
"""What `Lenient` takes for a `bool`, in any case: the words that Postgres takes."""

_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS_MAX = 4300  # beyond it int() refuses (sys.set_int_max_str_digits)
_NUMERIC_EXPONENTS = range(-16383, 131072)  # what Postgres' numeric can hold


class Misfit(Exception):  # noqa: N818
    """A value that is not of its kind; whoever knows the path makes a `RecordFault` of it. Holds no value (law 10)."""

    def __init__(self, reason: Reason, expected: str, got: str, where: str = "") -> None:
        super().__init__(reason, expected, got, where)
        self.reason = reason
        self.expected = expected
        self.got = got
        self.where = where
        """What is to be added to the path, for values inside of values."""

    def at(self, path: str) -> RecordFault:
        """The fault that a record gets, with the path that had the value."""
        return RecordFault(self.reason, f"expected {self.expected}, got {self.got} at {path}{self.where}")


class Kind(msgspec.Struct, frozen=True):
    """How values of one type are taken."""

    expected: str
    """Its name in messages."""
    coerce: Callable[[Any], Any]
    hint: Any = None
    """What msgspec decodes it as; None: read as raw JSON and given to `coerce`."""
    lines: tuple[str, ...] = ()
    """Python that finishes `{x}`, decoded by `hint` and neither None nor UNSET; `raise SLOW` asks the plain side."""
    names: Mapping[str, Any] = {}
    """What `lines` refer to; `{n}` is the column's name, for what is a column's own."""


def got(value: Any) -> str:
    """What JSON kind a value is: never the value itself.

    >>> got({}), got(None), got(True), got(Decimal("1.5"))
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


# ---- JSON as it stands ------------------------------------------------------------------------------------------


def parse(text: bytes | str) -> Any:
    """JSON to plain values, exactly: floats as `Decimal`, and lone surrogates kept: so the field at fault can be named.

    Raises `RecordFault`: not_utf8, not_json (NaN and Infinity are not JSON either), too_deep.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise RecordFault(Reason.NOT_UTF8, f"byte {error.start}") from None
    try:
        return _quick(text)
    except msgspec.DecodeError as error:
        if "\\" not in text and str(error) == _TRUNCATED:
            raise RecordFault(Reason.NOT_JSON) from None
    except (ValueError, RecursionError):
        pass
    try:
        return _PLAIN.decode(text)
    except ValueError:
        raise RecordFault(Reason.NOT_JSON) from None
    except RecursionError:
        raise RecordFault(Reason.TOO_DEEP) from None


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < _DIGITS_MAX else Decimal(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent past decimal's own limits
        mantissa, exponent = re.split("[eE]", text)
        vanishes = exponent.startswith("-") or not Decimal(mantissa)
        return Decimal(0) if vanishes else Decimal("Infinity").copy_sign(Decimal(mantissa))


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_PLAIN = json.JSONDecoder(parse_float=_fraction, parse_int=_integer, parse_constant=_no_constant)
_quick = msgspec.json.Decoder(float_hook=_fraction).decode
"""Takes half the time (2.5 of 5.1 µs for a member) and reads the same values, but refuses some: lone surrogates, the
longest integers. What it refuses is read again by the other, which says whether it is JSON."""
_TRUNCATED = "Input data was truncated"
"""msgspec's words where a text ends too early: then it is no JSON, unless in half of an escaped pair of surrogates."""


def loosen(value: Any) -> Any:
    """The same with floats as Python's, for functions of users; raises `Misfit` for a number beyond them."""
    if isinstance(value, Decimal):
        return _float(value)
    if isinstance(value, dict):
        return {name: loosen(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [loosen(inner) for inner in value]
    return value


# ---- the plain side -----------------------------------------------------------------------------------------------


def _wrong(expected: str, value: Any) -> Misfit:
    return Misfit(Reason.WRONG_TYPE, expected, got(value))


def _int(value: Any) -> int:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()) and not _INTEGER.fullmatch(value):
            raise _wrong("int", value)
        if len(value) >= _DIGITS_MAX:
            raise Misfit(Reason.OUT_OF_RANGE, "int of 64 bits", "a longer one")
        value = int(value)
    elif isinstance(value, Decimal) and value.is_finite() and value.adjusted() + 2 >= _DIGITS_MAX:
        raise Misfit(Reason.OUT_OF_RANGE, "int of 64 bits", "a longer one")
    elif isinstance(value, bool) or not isinstance(value, int):
        raise _wrong("int", value)
    if not INT_MIN <= value <= INT_MAX:
        raise Misfit(Reason.OUT_OF_RANGE, "int of 64 bits", "a longer one")
    return int(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("str", value)
    if not value.isprintable():  # neither NUL nor surrogates are printable, and most text is
        if "\0" in value:
            raise Misfit(Reason.BAD_VALUE, "str", "str with NUL")
        if _SURROGATE.search(value):
            raise Misfit(Reason.BAD_VALUE, "str", "str with a lone surrogate")
    return value


def _lenient_str(value: Any) -> str:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    return _str(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("bool", value)
    return value


def _lenient_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, list | dict) or value is None:
        raise _wrong("bool", value)
    word = WORDS.get(str(value).lower())
    if word is None:
        raise Misfit(Reason.BAD_VALUE, "bool", f"{got(value)} that says neither")
    return word


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _wrong("float", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Misfit(Reason.OUT_OF_RANGE, "float", "a number that is not finite")
    return number


def _decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise Misfit(Reason.BAD_VALUE, "Decimal", "str that is no number")
        value = _fraction(value)
    elif isinstance(value, float):
        value = Decimal(repr(value))
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _wrong("Decimal", value)
    number = Decimal(value)
    if not number.is_finite():
        raise Misfit(Reason.OUT_OF_RANGE, "Decimal", "a number that is not finite")
    exponent = number.as_tuple().exponent
    if number and not (number.adjusted() in _NUMERIC_EXPONENTS and int(exponent) in _NUMERIC_EXPONENTS):
        raise Misfit(Reason.OUT_OF_RANGE, "Decimal", "a number past Postgres' numeric")
    return number


def _datetime(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = msgspec.convert(value, datetime)
        except ValueError:  # RFC 3339 only; ISO 8601 knows more forms
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise Misfit(Reason.BAD_VALUE, "datetime", "str that is no ISO datetime") from None
    elif not isinstance(value, datetime):
        raise _wrong("datetime", value)
    return utc(value)


def utc(value: datetime) -> datetime:
    """The same instant in UTC; raises `Misfit` for a naive one, and where UTC leaves the years 1 to 9999."""
    if value.utcoffset() is None:
        raise Misfit(Reason.BAD_VALUE, "datetime with offset", "one without")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Misfit(Reason.BAD_VALUE, "datetime", "one past the years 1 to 9999") from None


def after_epoch(microseconds: int) -> datetime:
    """An instant given as microseconds since 1970; raises `Misfit`."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise Misfit(Reason.BAD_VALUE, "datetime", "a number past the years 1 to 9999") from None


def _epoch(scale: int) -> Callable[[Any], datetime]:
    def coerce(value: Any) -> datetime:
        if isinstance(value, datetime):
            return utc(value)
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                raise Misfit(Reason.BAD_VALUE, "number since 1970", "str that is no number")
            value = _fraction(value)
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise _wrong("number since 1970", value)
        if isinstance(value, int):
            return after_epoch(value * scale)
        if not math.isfinite(float(value)):
            raise Misfit(Reason.BAD_VALUE, "datetime", "a number past the years 1 to 9999")
        return after_epoch(round(float(value) * scale))

    return coerce


def _date(value: Any) -> date:
    if isinstance(value, str):
        try:
            return msgspec.convert(value, date)
        except ValueError:  # a lone surrogate raises UnicodeEncodeError
            raise Misfit(Reason.BAD_VALUE, "date", "str that is no ISO date") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise _wrong("date", value)
    return value


def _uuid(value: Any) -> UUID:
    if isinstance(value, str):
        try:
            return msgspec.convert(value, UUID)
        except ValueError:
            raise Misfit(Reason.BAD_VALUE, "UUID", "str that is none") from None
    if not isinstance(value, UUID):
        raise _wrong("UUID", value)
    return value


def plain_json(value: Any) -> Any:
    """What JSONB takes: no NUL and no lone surrogate anywhere, ints of 64 bits, finite floats; raises `Misfit`."""
    if isinstance(value, str):
        return _str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _int(value)
    if isinstance(value, float | Decimal):
        return _float(value)
    if isinstance(value, Mapping):
        return {_str(name): plain_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    raise _wrong("JSON", value)


def _json(expected: str, wanted: tuple[type, ...], target: Any) -> Callable[[Any], Any]:
    def coerce(value: Any) -> Any:
        if target is not None and isinstance(target, type) and isinstance(value, target):
            return value  # a Struct already, made by a function
        if wanted and not isinstance(value, wanted):
            raise _wrong(expected, value)
        plain = plain_json(value)
        if target is None:
            return plain
        try:
            return msgspec.convert(plain, target)
        except msgspec.ValidationError as error:
            inner = re.search(r" - at `(?:key in )?\$([^`]*)`$", str(error))  # its text may quote a value
            path = inner[1] if inner else ""
            raise Misfit(Reason.WRONG_TYPE, expected, f"{got(value)} that does not fit", path) from None
        except Exception as error:  # noqa: BLE001 - its own __post_init__ may raise anything
            raise Misfit(Reason.RULE, expected, type(error).__name__) from None

    return coerce


def _choice(expected: str, members: dict[Any, Any]) -> Callable[[Any], Any]:
    kinds = {type(value) for value in members}

    def coerce(value: Any) -> Any:
        if isinstance(value, Enum) and value in members.values():
            return value
        if isinstance(value, Decimal):
            value = _float(value)
        if type(value) not in kinds:
            raise _wrong(expected, value)
        if value not in members:
            raise Misfit(Reason.BAD_VALUE, expected, f"another {got(value)}")
        return members[value]

    return coerce


def _list(element: Kind, element_null: bool, limits: Callable[[Any], Any]) -> Callable[[Any], Any]:
    expected = f"list of {element.expected}"

    def coerce(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _wrong(expected, value)
        taken: list[Any] = []
        for inner in value:
            if inner is None and element_null:
                taken.append(None)
                continue
            if inner is None:
                raise Misfit(Reason.WRONG_TYPE, element.expected, "null", "[]")
            try:
                taken.append(limits(element.coerce(inner)))
            except Misfit as misfit:
                misfit.where = "[]" + misfit.where
                raise
        return taken

    return coerce


# ---- which kind a declared type is ----------------------------------------------------------------------------------

_INT_HINT = Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
_FLOORS = (0, 0, *(10**digits for digits in range(1, 19)))
"""By length, the least number that needs so many digits: one that does leaves no room for signs, spaces or `_`, which
int() takes. Cheaper than asking for digits; what is not so plain (or too long: IndexError) is left to `_int`."""
_INT_LINES = (
    "if {x}.__class__ is str:",
    f"    if not ({{x}}.isascii() and FLOORS[len({{x}})] <= ({{x}} := int({{x}})) <= {INT_MAX}): raise SLOW",
)
_INTS_LINES = (  # a loop, as a comprehension is a call up to Python 3.11: a third of the cost of short lists
    "ints = []",
    "for e in {x}:",
    f"    if e.__class__ is str and e.isascii() and FLOORS[len(e)] <= (n := int(e)) <= {INT_MAX}: ints.append(n)",
    "    else: ints.append(integer(e))",
    "{x} = ints",
)
_EPOCH_HINT = _INT_HINT | float | str

SIMPLE: dict[Any, Kind] = {
    int: Kind("int", _int, _INT_HINT | str, _INT_LINES, {"FLOORS": _FLOORS}),
    str: Kind("str", _str, str),  # that no NUL is in the message is seen to before
    bool: Kind("bool", _bool, bool),
    float: Kind("float", _float, float | int, ("if {x}.__class__ is int: {x} = float({x})",)),
    Decimal: Kind("Decimal", _decimal),
    datetime: Kind("datetime", _datetime, datetime, ("if {x}.tzinfo is not UTC: {x} = utc({x})",), {"utc": utc}),
    date: Kind("date", _date, date),
    UUID: Kind("UUID", _uuid, UUID),
    Any: Kind("JSON", _json("JSON", (), None)),
    object: Kind("JSON", _json("JSON", (), None)),
    dict: Kind("object", _json("object", (Mapping,), None)),
}
LENIENT: dict[Any, Kind] = {str: Kind("str", _lenient_str), bool: Kind("bool", _lenient_bool)}
EPOCHS = {
    unit: Kind(
        f"datetime as {unit} since 1970",
        _epoch(scale),
        _EPOCH_HINT,
        ("{x} = epoch_{n}({x})",),
        {"epoch_{n}": _epoch(scale)},
    )
    for unit, scale in (("ms", 1_000), ("s", 1_000_000))
}


def kind_of(declared: Any, *, lenient: bool = False, epoch: str | None = None) -> Kind:  # noqa: PLR0911 - a table
    """The kind of a declared type; raises `TypeError` for one that no column can be."""
    if epoch is not None:
        if declared is not datetime:
            raise TypeError("Epoch is for datetime")
        return EPOCHS[epoch]
    if lenient and declared in LENIENT:
        return LENIENT[declared]
    try:
        if declared in SIMPLE:
            return SIMPLE[declared]
    except TypeError:  # not hashable: not simple
        pass
    origin = get_origin(declared)
    if origin is Literal or (isinstance(declared, type) and issubclass(declared, Enum)):
        return _choice_kind(declared)
    if declared is list or origin is list:
        return _list_kind(*(get_args(declared) or (Any,)), lenient=lenient)
    if origin is dict:
        loose = get_args(declared) == (str, Any)
        return SIMPLE[dict] if loose else Kind("object", _json("object", (Mapping,), declared))
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        return Kind("object", _json("object", (Mapping,), declared))
    raise TypeError(f"a column can't be {declared!r}")


def _choice_kind(declared: Any) -> Kind:
    is_enum = isinstance(declared, type)
    members = {m.value: m for m in declared} if is_enum else {value: value for value in get_args(declared)}
    expected = declared.__name__ if is_enum else "one of a Literal"
    coerce = _choice(expected, members)
    if {type(value) for value in members} == {str}:
        lines = ("{x} = members_{n}.get({x})", "if {x} is None: raise SLOW")
        return Kind(expected, coerce, str, lines, {"members_{n}": members})
    return Kind(expected, coerce)


def _list_kind(declared: Any, *, lenient: bool) -> Kind:
    metas: tuple[Any, ...] = ()
    nullable = False
    if get_origin(declared) in (Union, UnionType):
        members = [member for member in get_args(declared) if member is not type(None)]
        if len(members) != 1:
            raise TypeError(f"a list can't be of {declared!r}")
        declared, nullable = members[0], True
    if get_origin(declared) is Annotated:
        declared, *metas_ = get_args(declared)
        metas = tuple(mark for mark in metas_ if isinstance(mark, msgspec.Meta))
    element = kind_of(declared, lenient=lenient)
    coerce = _list(element, nullable, limits(metas, element.expected))
    expected = f"list of {element.expected}"
    if metas or nullable or declared not in (int, str, bool, float, date, UUID):
        return Kind(expected, coerce)
    if declared is int:
        return Kind(
            expected, coerce, GenericAlias(list, (element.hint,)), _INTS_LINES, {"integer": _int, "FLOORS": _FLOORS}
        )
    if declared is float:
        return Kind(expected, coerce, GenericAlias(list, (element.hint,)), ("{x} = [float(e) for e in {x}]",))
    return Kind(expected, coerce, GenericAlias(list, (element.hint,)))


# ---- constraints --------------------------------------------------------------------------------------------------

_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
    "multiple_of": lambda value, bound: value % (Decimal(repr(bound)) if isinstance(value, Decimal) else bound) == 0,
}
_SHAPES: dict[str, Callable[[Any, Any], bool]] = {
    "pattern": lambda value, bound: re.search(bound, value) is not None,
    "min_length": lambda value, bound: len(value) >= bound,
    "max_length": lambda value, bound: len(value) <= bound,
}


def limits(metas: tuple[msgspec.Meta, ...], expected: str) -> Callable[[Any], Any]:
    """A function that hands on what keeps all constraints, else raises `Misfit`: out_of_range, or bad_value of shapes.

    Raises `TypeError` at once for a constraint that the type can't have.
    """
    checks = [
        (holds, bound, reason, name)
        for meta in metas
        for tests, reason in ((_BOUNDS, Reason.OUT_OF_RANGE), (_SHAPES, Reason.BAD_VALUE))
        for name, holds in tests.items()
        if (bound := getattr(meta, name)) is not None
    ]

    for _, _, _, name in checks:
        allowed = ("int", "float", "Decimal") if name in _BOUNDS else ("str",) if name == "pattern" else ("str", "list")
        if not expected.startswith((*allowed, "object") if name.endswith("length") else allowed):
            raise TypeError(f"{name} is no constraint for {expected}")

    def check(value: Any) -> Any:
        for holds, bound, reason, name in checks:
            if not holds(value, bound):
                raise Misfit(reason, f"{expected} with {name}={bound!r}", "one without")
        return value

    return check
