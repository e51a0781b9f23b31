"""`RowMeta`, the type of all row classes: reads a class's arguments and annotations into its `Table`.

It is apart from `Row`, so that the interpreter needs only the type of row classes, and `Row.from_raw` the interpreter.
"""

from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from lovelace_streams.errors import shown
from lovelace_streams.rows.declaration import Before, Column, Epoch, From, FromKafka, Lenient, Name, Pii, Scale, Table


class RowMeta(msgspec.StructMeta):
    """Take `table`, `primary_key` and `version` as class arguments; `__table__` is what the class says with them."""

    _arguments: tuple[str, tuple[str, ...], str | None]
    _table: Table

    def __new__(  # noqa: PYI034 - it makes classes, not instances of itself
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
        row_class = super().__new__(mcls, name, bases, namespace, **options)
        if table is not None:
            key = (primary_key,) if isinstance(primary_key, str) else tuple(primary_key)
            row_class._arguments = (table, key, version)
        return row_class

    @property
    def __table__(cls) -> Table:  # noqa: N805 - of a metaclass
        """The table; raises `TypeError` for a class that names none, or contradicts itself.

        It is built at first use, because annotations may name what is defined later in the module.
        """
        if "_table" not in cls.__dict__:
            if "_arguments" not in cls.__dict__:
                raise TypeError(f"{cls.__name__} names no table: class {cls.__name__}(Row, table=…, primary_key=…)")
            cls._table = _table_of(cast("type[msgspec.Struct]", cls), *cls._arguments)
        return cls._table


def pii_of(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Give the fields of a class that hold personal data, with its kind; also of a class that names no table.

    All fields count as personal where the annotations can't be read: what is shown by mistake can't be taken back.
    """
    kinds: dict[str, str] | None = cls.__dict__.get("_pii")
    if kinds is None:
        try:
            hints = get_type_hints(cls, include_extras=True)
        except (NameError, TypeError):
            return dict.fromkeys(cls.__struct_fields__, "hidden")
        marks = {name: _parts_of(hints[name])[2] for name in cls.__struct_fields__}
        found = (
            (name, next((mark.kind for mark in each if isinstance(mark, Pii)), None)) for name, each in marks.items()
        )
        kinds = cls._pii = {name: kind for name, kind in found if kind is not None}  # type: ignore[attr-defined]
    return kinds


def _table_of(cls: type[msgspec.Struct], name: str, key: tuple[str, ...], version: str | None) -> Table:
    hints = get_type_hints(cls, include_extras=True)
    columns = {field.name: _column_of(cls, field, hints[field.name]) for field in msgspec.structs.fields(cls)}
    if not key:
        raise TypeError(f"{cls.__name__}: a table needs a primary_key, so that a replay writes the same row")
    for required in (*key, *((version,) if version else ())):
        if required not in columns:
            raise TypeError(f"{cls.__name__}: {shown(required)} is named as key or version but is not a field")
        if columns[required].nullable:
            raise TypeError(f"{cls.__name__}.{required}: a key or version can't be None")
    fields_by_name: dict[str, str] = {}
    for field, column in columns.items():
        other = fields_by_name.setdefault(column.name, field)
        if other != field:
            raise TypeError(f"{cls.__name__}.{other} and .{field} are both the column {column.name!r}")
    in_table = tuple(columns[field].name for field in key)
    return Table(name, tuple(columns.values()), in_table, columns[version].name if version else None)


def _column_of(cls: type[msgspec.Struct], field: msgspec.structs.FieldInfo, hint: Any) -> Column:
    declared, nullable, marks = _parts_of(hint)
    sources = [mark for mark in marks if isinstance(mark, From | FromKafka)]
    if len(sources) > 1:
        raise TypeError(f"{cls.__name__}.{field.name}: one From or FromKafka; a From takes several paths")
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    name = next((mark.name for mark in marks if isinstance(mark, Name)), field.name)
    if name == "$" and not sources:
        raise TypeError(f"{cls.__name__}.{field.name}: a path that is $ is the message, so the column $ needs a From")
    own_name = From(field.name) if name == field.name else From((name,))
    return Column(
        name=name,
        type=declared,
        nullable=nullable,
        source=sources[0] if sources else own_name,
        default=default,
        before=tuple(mark.function for mark in marks if isinstance(mark, Before)),
        after=tuple(m for m in marks if callable(m) and m is not Lenient and not isinstance(m, msgspec.Struct)),
        epoch=next((mark.unit for mark in marks if isinstance(mark, Epoch)), _unit_of(sources, declared)),
        scale=next((mark for mark in marks if isinstance(mark, Scale)), None),
        lenient=any(isinstance(mark, Lenient) or mark is Lenient for mark in marks),
        pii=next((mark.kind for mark in marks if isinstance(mark, Pii)), None),
        meta=tuple(mark for mark in marks if isinstance(mark, msgspec.Meta)),
        field="" if name == field.name else field.name,
    )


def _unit_of(sources: list[From | FromKafka], declared: Any) -> str | None:
    """Return the unit of a number that Kafka gives; None for other values."""
    return "ms" if declared is int and FromKafka("timestamp") in sources else None


def _parts_of(hint: Any) -> tuple[Any, bool, tuple[Any, ...]]:
    """Split an annotation into the type without None, whether it had None, and its marks.

    Marks may stand inside of the union, too: `Annotated[int, Meta(ge=0)] | None`.
    """
    hint, outer = _without_marks(hint)
    declared, nullable = _without_none(hint)
    declared, inner = _without_marks(declared)
    return declared, nullable, (*inner, *outer)


def _without_marks(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is not Annotated:
        return hint, ()
    declared, *marks = get_args(hint)
    return declared, tuple(marks)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    members = tuple(member for member in get_args(hint) if member is not NoneType)
    declared = members[0] if len(members) == 1 else Union[members]  # noqa: UP007 - built from a tuple
    return declared, len(members) < len(get_args(hint))
