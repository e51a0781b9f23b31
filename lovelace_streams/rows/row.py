"""`Row`, the base of all row classes."""

from collections.abc import Iterator
from typing import Any, Self, cast, dataclass_transform

import msgspec

from lovelace_streams.records import Record
from lovelace_streams.rows.context import NoContextError, RecordContext, record_of
from lovelace_streams.rows.fields import check_partial, fields_of
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.rows.metaclass import RowMeta, pii_of


class _Mask:
    """Shows in a row's text that a value is there, and what kind of personal data it is."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def _masked(row: "Row") -> Iterator[tuple[str, Any]]:
    kinds = pii_of(type(row))
    for name in row.__struct_fields__:
        value = getattr(row, name)
        yield name, value if name not in kinds or value is None or value is msgspec.UNSET else _Mask(kinds[name])


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Row(msgspec.Struct, metaclass=RowMeta):
    """Base of all rows: a class of it is the contract of a table, an instance is one row.

    `class Order(Row, table="orders", primary_key="id", version="at")`: the table (or `schema.table`), the field or
    tuple of fields that tells rows apart, and the field by which the later of two rows wins (without one the later
    offset wins). A field that the message does not mention holds `UNSET`: absent is not null. The class raises
    `TypeError` at first use if key or version are no fields, or may be None. docs/rows.md has the types and marks.

    >>> from typing import Annotated
    >>> from lovelace_streams import From, Row
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    ...     country: Annotated[str | None, From("shipping.country"), str.upper]
    >>> Order.from_raw({"id": "7", "shipping": {"country": "de"}})
    Order(id=7, country='DE')
    >>> Order.__table__.key
    ('id',)
    """

    def __repr__(self) -> str:
        """Show the row without personal data: the values of fields marked `Pii` are masked, None and `UNSET` are not.

        A failing test, a log line or a traceback prints rows. A test compares values: `row.name == "Ada"`.
        """
        shown = (f"{name}={value!r}" for name, value in _masked(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same to rich, which prints Structs by their fields."""
        return list(_masked(self))

    @classmethod
    def from_raw(
        cls, raw: Any, root: Any = None, *, of: RecordContext | Record | None = None, partial: bool = False
    ) -> Self:
        """Map one decoded payload to a row, as a flow would, without a server.

        `root` is the whole message for `$.` paths, by default the payload itself. `of` has Kafka's values, which
        `FromKafka` reads: what a mapping function gets as `of`, a `Record`, or a `RecordContext` with made-up values. A
        class that reads them raises `TypeError` without it. Raises `RecordFault` with the path, what was expected and
        which kind was found. `partial` maps it as an item of a partial event (`Items`).
        """
        if partial:
            check_partial(cls)
        if of is None:
            if read := [field.column.name for field in fields_of(cls) if field.kafka]:
                raise NoContextError(cls.__name__, read)
            return cast("Self", interpret(cls, raw, root=root, partial=partial))
        return cast("Self", interpret(cls, raw, record_of(of), root, partial=partial))
