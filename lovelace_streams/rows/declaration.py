"""What a row class says: marks in its annotations, and the `Table` and `Column`s that `metaclass` reads from them.

A mark stands in `Annotated[type, mark, …]`. All marks are plain values without behaviour: `fields` gives them meaning.
"""

from collections.abc import Callable
from decimal import (
    ROUND_05UP,
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_DOWN,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    ROUND_UP,
    Decimal,
)
from typing import Any

import msgspec

from lovelace_streams.errors import shown
from lovelace_streams.records import check_skip_name
from lovelace_streams.rows.decimals import EXACT, fits_scale
from lovelace_streams.rows.paths import AnyPath, JsonPath

# ---- marks ----------------------------------------------------------------------------------------------------------


class From:
    """Name the paths that a field is read from: the first one with a value is used.

    A path is names with dots between. It begins at the item; `$.` begins at the whole message, `$` is the message and
    `.` the item. A name that has dots itself is written in a tuple of exact names: `("meta", "k8s.pod.name")`, or from
    the message on `("$", "meta", "k8s.pod.name")`. Without a `From` a field is read from its own name. Raises
    `TypeError` without a path, `ValueError` for one that no message could have (`items[0].sku`, `a..b`).

    >>> From("nick", "user.name", "$.d.name", ("user", "full.name"))
    From('nick', 'user.name', '$.d.name', ('user', 'full.name'))
    """

    __slots__ = ("paths",)

    def __init__(self, *paths: AnyPath) -> None:
        if not paths:
            raise TypeError("From needs at least one path")
        for path in paths:
            JsonPath.of(path)
        self.paths = paths

    def __repr__(self) -> str:
        return f"From({', '.join(map(repr, self.paths))})"


class Name(msgspec.Struct, frozen=True):
    """Name a column whose name no field can have (`class`, `my col`), or should not. Raises `ValueError` for no name.

    `class_: Annotated[str, Name("class")]`. Without a `From` the field is read from the same name in the item, dots and
    all.
    """

    name: str

    def __post_init__(self) -> None:
        if not self.name or "\0" in self.name:
            raise ValueError(f"{self.name!r} is no name of a column")


class FromKafka(msgspec.Struct, frozen=True):
    """Read a field from Kafka's own `timestamp`, `topic`, `partition`, `offset` or `key` of the message.

    A timestamp is a `datetime`, or an `int` of milliseconds since 1970; a key is `bytes`, or text in UTF-8. A replayed
    dead letter gives the timestamp, topic, partition and offset of the message that was first read. Raises `ValueError`
    for another name.
    """

    field: str

    def __post_init__(self) -> None:
        if self.field not in {"timestamp", "topic", "partition", "offset", "key"}:
            raise ValueError(f"FromKafka knows timestamp, topic, partition, offset and key, not {shown(self.field)}")


class Before(msgspec.Struct, frozen=True):
    """Call a function with the raw value before it is coerced. Plain functions in an annotation run after that."""

    function: Callable[[Any], Any]


EPOCH_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Unit → its nanoseconds."""


class Epoch(msgspec.Struct, frozen=True):
    """Read a `datetime` from a number since 1970, in `s`, `ms`, `us` or `ns`. Raises `ValueError` for another unit.

    An `int` stays the number that it is. As a version it then has a unit, so that one of the future can be told.
    """

    unit: str

    def __post_init__(self) -> None:
        if self.unit not in EPOCH_UNITS:
            raise ValueError(f"Epoch knows {', '.join(EPOCH_UNITS)}, not {shown(self.unit)}")


class Scale(msgspec.Struct, frozen=True):
    """Allow a `Decimal` so many digits after the point: more are `out_of_range`, or rounded where that is declared.

    `rounding` is one of the modes of `decimal`, such as `ROUND_HALF_EVEN`. Raises `ValueError` for another one.

    >>> from decimal import ROUND_HALF_UP, Decimal
    >>> Scale(2).applied(Decimal("12.340")), Scale(2).applied(Decimal("12.345"))
    (Decimal('12.340'), None)
    >>> Scale(2, ROUND_HALF_UP).applied(Decimal("12.345"))
    Decimal('12.35')
    """

    digits: int
    rounding: str | None = None

    def __post_init__(self) -> None:
        if self.digits < 0:
            raise ValueError(f"Scale is a number of digits after the point, not {shown(self.digits)}")
        if self.rounding is not None and self.rounding not in _ROUNDINGS:
            raise ValueError(f"Scale rounds by one of {', '.join(sorted(_ROUNDINGS))}, not {shown(self.rounding)}")

    def applied(self, value: Decimal) -> Decimal | None:
        """Return the value, rounded if that is declared; None if it has too many digits. Zeros at the end are none."""
        if fits_scale(value, self.digits):
            return value
        return None if self.rounding is None else value.quantize(Decimal(1).scaleb(-self.digits), self.rounding, EXACT)


_ROUNDINGS = frozenset(
    {ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, ROUND_05UP}
)


class Lenient(msgspec.Struct, frozen=True):
    """Accept what formats made of text have: words such as `yes` or `off` and numbers for a `bool`, text for a `float`,
    numbers for a `str`; and empty text, which is no value of any other type than `str`: the default, else null.
    """


class Pii(msgspec.Struct, frozen=True):
    """Mark personal data of some kind. Samples of dead letters on the page mask it, and show unmarked values."""

    kind: str


# ---- what a mapping function may return -----------------------------------------------------------------------------


class Skip(msgspec.Struct, frozen=True):
    """Pass an item over: returned by a mapping function instead of a row.

    `reason` is `unknown_event` or `filtered`, or one of the flow's own that `normalize(…, skips=("draft",))` declares.
    Raises `ValueError` for a name that can't be one: it has 1 to 40 letters a-z or _.
    """

    reason: str = "filtered"

    def __post_init__(self) -> None:
        check_skip_name(self.reason)


# ---- what marks and annotations amount to ---------------------------------------------------------------------------


class Column(msgspec.Struct, frozen=True):
    """One column: its Python type without None, whether NULL is allowed, and where its value comes from."""

    name: str
    """In the table."""
    type: Any
    nullable: bool
    source: From | FromKafka
    default: Any = msgspec.NODEFAULT
    """The value where all paths are absent; NODEFAULT where the class declares none."""
    before: tuple[Callable[[Any], Any], ...] = ()
    after: tuple[Callable[[Any], Any], ...] = ()
    epoch: str | None = None
    """The unit of the number since 1970 that the value is or is read from, None without one."""
    scale: Scale | None = None
    lenient: bool = False
    pii: str | None = None
    """The kind of personal data, None where it is not marked."""
    meta: tuple[msgspec.Meta, ...] = ()
    field: str = ""
    """The field of the class, if it has another name (`Name`)."""

    @property
    def attribute(self) -> str:
        """The field of the class, by which a row holds the value."""
        return self.field or self.name


class Table(msgspec.Struct, frozen=True):
    """One table: its columns, key and version column. Several classes may write one table (`Member`, `MemberLeft`)."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """The names of its columns in the table."""
    version: str | None
    """The name of its column in the table."""

    @property
    def attributes(self) -> dict[str, str]:
        """The field that holds each column, by the column's name."""
        return {column.name: column.attribute for column in self.columns}

    @property
    def version_column(self) -> Column | None:
        """The column by which the later of two rows is told; None without a declared version."""
        return next((column for column in self.columns if column.name == self.version), None)

    @property
    def partial(self) -> bool:
        """Whether a row may leave columns out (`T | None` without default). The stored values are kept then."""
        return any(c.nullable and c.default is msgspec.NODEFAULT for c in self.columns)
