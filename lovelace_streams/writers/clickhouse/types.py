"""ClickHouse's types, as `system.columns` names them, and which of them keep different keys apart."""

import re
from datetime import datetime
from typing import Any

import msgspec

from lovelace_streams.rows.types import scalar

MICROSECOND_DIGITS = 6
ARRAY_TYPECODES = {
    "Int8": "b", "Int16": "h", "Int32": "i", "Int64": "q", "UInt8": "B", "UInt16": "H", "UInt32": "I", "UInt64": "Q",
    "Bool": "B", "Float64": "d", "DateTime": "I", "DateTime64": "q", "Date": "H", "Date32": "i",
}  # fmt: skip
"""ClickHouse's type → the typecode of the `array.array` that holds its values, for types that are stored as numbers."""
INTEGER_BOUNDS = {
    **{f"Int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64, 128, 256)},
    **{f"UInt{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64, 128, 256)},
}
"""ClickHouse's integer type → its least and its greatest value."""

_ENUM_MEMBER = re.compile(r"'((?:[^'\\]|\\.)*)'\s*=")


class ClickHouseType(msgspec.Struct, frozen=True):
    """A column's type without its wrappers: `LowCardinality(Nullable(String))` is a nullable `String`."""

    name: str
    arguments: str
    nullable: bool
    full_name: str
    """With its wrappers and arguments, as `system.columns` has it."""

    @property
    def element(self) -> "ClickHouseType":
        """The type of an Array's elements."""
        return parse_type(self.arguments)

    @property
    def fractional_digits(self) -> int:
        """Digits after the second that a DateTime64 keeps; 0 for other types."""
        return int(self.arguments.partition(",")[0]) if self.name == "DateTime64" else 0

    @property
    def scale(self) -> int | None:
        """Digits after the point that a Decimal keeps; None for other types."""
        return int(self.arguments.partition(",")[2]) if self.name == "Decimal" else None

    @property
    def members(self) -> set[str]:
        """The names of an Enum."""
        return {name.replace("\\'", "'").replace("\\\\", "\\") for name in _ENUM_MEMBER.findall(self.arguments)}


def parse_type(full_name: str) -> ClickHouseType:
    """Read a type as `system.columns` names it.

    >>> parse_type("LowCardinality(Nullable(String))").nullable, parse_type("DateTime64(6, 'UTC')").fractional_digits
    (True, 6)
    """
    inner, nullable = full_name.strip(), False
    while True:
        name, _, rest = inner.partition("(")
        arguments = rest[:-1] if rest.endswith(")") else ""
        if name not in ("Nullable", "LowCardinality"):
            return ClickHouseType(name, arguments, nullable, full_name)
        nullable = nullable or name == "Nullable"
        inner = arguments


def keeps_keys_apart(declared: Any, column: ClickHouseType) -> bool:
    """Whether keys of a declared type are equal in Python exactly where they are equal in the column.

    >>> keeps_keys_apart(str, parse_type("String")), keeps_keys_apart(datetime, parse_type("DateTime"))
    (True, False)
    """
    if column.name in ("FixedString", "Float32", "Float64", "Array") or scalar(declared) is dict:
        return False
    return scalar(declared) is not datetime or (
        column.name == "DateTime64" and column.fractional_digits >= MICROSECOND_DIGITS
    )
