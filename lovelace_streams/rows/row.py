"""`Row`, the base of all rows, and how a class's annotations become its `Table`."""

from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from lovelace_streams.rows.declaration import Before, Column, Epoch, From, FromKafka, Lenient, Pii, Table


class RowMeta(msgspec.StructMeta):
    """Takes `table`, `primary_key` and `version` as class arguments and keeps what they say in `__table__`."""

    def __new__(  # noqa: PYI034 - makes classes
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        table: str | None = None,
        primary_key: tuple[str, ...] | str = (),
        version: str | None = None,
        **options: Any,
    ) -> "RowMeta":
        options.setdefault("gc", False)
        options.setdefault("kw_only", True)
        row = super().__new__(mcls, name, bases, namespace, **options)
        if table is not None:
            key = (primary_key,) if isinstance(primary_key, str) else tuple(primary_key)
            row._pending = (table, key, version)  # type: ignore[attr-defined]
        return row

    @property
    def __table__(cls) -> Table:  # noqa: N805 - of a metaclass
        """The table, worked out at first use: annotations may name what is defined later."""
        if "_table" not in cls.__dict__:
            if "_pending" not in cls.__dict__:
                raise TypeError(f"{cls.__name__} names no table: class {cls.__name__}(Row, table=…, primary_key=…)")
            row = cast(type[Row], cls)
            row._table = _describe(row, *row._pending)  # noqa: SLF001 - of its own class
        return cast(type[Row], cls)._table  # noqa: SLF001


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Row(msgspec.Struct, metaclass=RowMeta):
    """Base of all rows. A field that the message does not mention holds `UNSET`: absent is not null."""

    _pending: ClassVar[tuple[str, tuple[str, ...], str | None]]
    _table: ClassVar[Table]

    @classmethod
    def from_raw(cls, raw: Any, root: Any = None) -> Self:
        """Map one decoded payload to a row, as a flow would; raises `RecordFault` with path, expectation and kind.

        `root` is the whole message for `$.` paths, the payload itself where not given; Kafka's timestamp is now.
        """
        from lovelace_streams.rows.interpreter import interpret

        return cast(Self, interpret(cls, raw, root=root))


def _describe(cls: type[Row], name: str, key: tuple[str, ...], version: str | None) -> Table:
    hints = get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    columns = tuple(_column(cls, field, hints[field.name]) for field in fields.values())
    if not key:
        raise TypeError(f"{cls.__name__}: a table needs a primary_key, so that a replay writes the same row")
    for wanted in (*key, *((version,) if version else ())):
        if wanted not in fields:
            raise TypeError(f"{cls.__name__}: {wanted!r} is named as key or version but is not a field")
        if next(c for c in columns if c.name == wanted).nullable:
            raise TypeError(f"{cls.__name__}.{wanted}: a key or version can't be None")
    return Table(name, columns, key, version)


def _column(cls: type[Row], field: msgspec.structs.FieldInfo, hint: Any) -> Column:
    marks: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        marks = tuple(rest)
    kind, nullable = _without_none(hint)
    if get_origin(kind) is Annotated:  # Annotated[int, Meta(ge=0)] | None
        kind, *rest = get_args(kind)
        marks = (*rest, *marks)
    sources = [mark for mark in marks if isinstance(mark, From | FromKafka)]
    if len(sources) > 1:
        raise TypeError(f"{cls.__name__}.{field.name}: one From or FromKafka; a From takes several paths")
    pii = next((mark.kind for mark in marks if isinstance(mark, Pii)), None)
    epoch = next((mark.unit for mark in marks if isinstance(mark, Epoch)), None)
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return Column(
        name=field.name,
        type=kind,
        nullable=nullable,
        source=sources[0] if sources else From(field.name),
        default=default,
        before=tuple(mark.function for mark in marks if isinstance(mark, Before)),
        after=tuple(m for m in marks if callable(m) and m is not Lenient and not isinstance(m, msgspec.Struct)),
        epoch=epoch,
        lenient=any(isinstance(mark, Lenient) or mark is Lenient for mark in marks),
        pii=pii,
        meta=tuple(mark for mark in marks if isinstance(mark, msgspec.Meta)),
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    members = tuple(member for member in get_args(hint) if member is not NoneType)
    kind = members[0] if len(members) == 1 else Union[members]  # noqa: UP007 - made of a tuple
    return kind, len(members) < len(get_args(hint))
