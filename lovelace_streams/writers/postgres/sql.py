"""The statements of a Postgres writer: a block's columns come as array literals, `unnest` makes rows of them again.

Composed with `psycopg.sql` alone. `Plan` holds what depends on which columns a row has (an absent field's column is
left out, so that it keeps what is stored) and on whether it may overwrite.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from enum import Enum
from operator import attrgetter
from typing import Any

from psycopg import sql

from lovelace_streams.rows.declaration import Column, Table
from lovelace_streams.rows.row import Row
from lovelace_streams.writers.postgres.catalog import Shape, identifier
from lovelace_streams.writers.postgres.subtransactions import script
from lovelace_streams.writers.postgres.types import Spelled, Speller, TypeInfo, certain, fits_bigint, speller


def trusted(text: str) -> sql.SQL:
    """What the catalogue itself spelled: a type, an expression."""
    return sql.SQL(text.replace("%", "%%"))


class Plan:
    """How rows that have just these columns are written."""

    def __init__(self, table: Table, shape: Shape, columns: Sequence[Column], *, only_new: bool) -> None:
        self.columns = tuple(columns)
        self.only_new = only_new
        absent = frozenset(shape.types) - {column.name for column in self.columns}
        self.whole = not absent
        self.single = self.whole or shape.keeps(absent)
        """One statement writes it; else a pair does: UPDATE what is there, INSERT what is not."""
        self._spellers: dict[str, tuple[Callable[[Row], Any], Speller]] = {
            column.name: (attrgetter(column.name), speller(column.type, shape.types[column.name]))
            for column in self.columns
        }
        self.never_null = tuple(c.name for c in self.columns if not c.nullable and c.name in shape.not_null)
        certain_columns = {c.name for c in self.columns if certain(c.type, shape.types[c.name])}
        names = self._names = _Names(
            table,
            shape,
            [column.name for column in self.columns],
            # by these no rule is broken that could hide another: they need not be asked about
            harmless=certain_columns & {*self.never_null, *(set(shape.types) - set(shape.not_null))},
            only_new=only_new,
        )
        self._sweep: bytes | None = None
        # rendered once: composing costs a millisecond, as much as the block's own way
        returning = bool(table.version) or only_new or shape.suppresses or not self.single
        self.statements = names.writes(single=self.single, returning=returning)
        self.copy = names.copy().as_bytes()
        self.asked = names.asked
        self._unasked = [name for name in names.columns if name not in self.asked]
        self.verdict = names.verdict().as_bytes()
        self.verdict_on_references = names.verdict(references=True).as_bytes()
        self.names = names.columns
        self.newer_columns = names.newer_columns()
        newer = names.newer()
        self.newer = newer.as_bytes() if newer is not None else None
        self.key_columns = tuple(table.key)
        self.fresh = names.fresh().as_bytes()
        self._array_types = ["text" if shape.types[n].array else shape.types[n].spelled for n in self.names]
        self.askable = self.single and not absent & set(shape.not_null)
        """Whether the catalogue's rules for a row depend on nothing that the row does not say."""

    def sweep(self, record: Sequence[str], again: Sequence[str]) -> bytes:
        """The script that writes such rows one by one (`postgres_sweep`), for the codes that it is asked with first."""
        if self._sweep is None:
            alone = copy(self._names)
            alone.alone = True
            newer = alone.newer()
            self._sweep = script(
                statements=self._names.writes(single=self.single, returning=False),
                alone=alone.writes(single=self.single, returning=False),
                newer=newer.as_bytes() if newer is not None else None,
                newer_places=[self.names.index(name) for name in self.newer_columns] if newer is not None else [],
                types=self._array_types,
                record=record,
                again=again,
            )
        return self._sweep

    def judgeable(self, row: Row) -> bool:
        """Whether a row that breaks a rule can't be refused for something else first, which was not asked about."""
        try:
            self.encode([row], self._unasked)
        except Unfit:
            return False
        return self.sure(row)

    def sure(self, row: Row) -> bool:
        """The same of a row that can be sent."""
        return all(fits_bigint(getattr(row, name)) for name in self._unasked) and not any(
            getattr(row, name) is None for name in self.never_null
        )

    def encode(self, rows: Sequence[Row], names: Sequence[str] | None = None) -> list[str]:
        """One array literal a column, all of them or those named. Raises `Unfit` with the column's name."""
        return [self._spell(name, rows).literal() for name in (self.names if names is None else names)]

    def spell(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Spelled]:
        """Every column's values as texts. Raises `Unfit` with the column's name."""
        return {name: self._spelled(name, columns[name]) for name in self.names}

    def _spell(self, name: str, rows: Sequence[Row]) -> Spelled:
        return self._spelled(name, list(map(self._spellers[name][0], rows)))

    def _spelled(self, name: str, values: Sequence[Any]) -> Spelled:
        try:
            return self._spellers[name][1](values)
        except Exception as error:  # whatever a value of the wrong kind raises
            raise Unfit(name) from error


class Unfit(Exception):  # noqa: N818 - says of a value what it is
    """A value that its column's declared type does not admit; carries the column's name, never the value."""


def identity_of(table: Table, types: Mapping[str, TypeInfo]) -> Callable[[Row], Any]:
    """The key of a row, so that two are equal exactly where the table's are (if the table's key is exact)."""
    if plain_identity(table, types):
        return attrgetter(*table.key)
    parts = [(attrgetter(name), _spelling(types[name])) for name in table.key]
    if len(parts) == 1:
        get, spell = parts[0]
        return lambda row: spell(get(row))
    return lambda row: tuple(spell(get(row)) for get, spell in parts)


def plain_identity(table: Table, types: Mapping[str, TypeInfo]) -> bool:
    """Whether the values of a key are compared as they are."""
    fields = {column.name: column.type for column in table.columns}
    return not any(_spelled_otherwise(fields[name], types[name]) for name in table.key)


def _spelled_otherwise(kind: Any, real: TypeInfo) -> bool:
    return (isinstance(kind, type) and issubclass(kind, Enum)) or (real.name == "varchar" and real.modified)


def _spelling(real: TypeInfo) -> Callable[[Any], Any]:
    """An Enum by its value; a varchar(n) without the blanks beyond n, which an assignment drops."""
    limit = real.modifier - 4 if real.name == "varchar" and real.modified else None

    def spell(value: Any) -> Any:
        plain = value.value if isinstance(value, Enum) else value
        if limit is not None and isinstance(plain, str) and len(plain) > limit:
            return plain[:limit] + plain[limit:].rstrip(" ")
        return plain

    return spell


class _Names:
    """Composes the statements of one plan; `t` is the table, `s` what is staged, `n` its order."""

    def __init__(
        self, table: Table, shape: Shape, columns: Sequence[str], *, harmless: set[str], only_new: bool
    ) -> None:
        self.table = table
        self.shape = shape
        self.columns = columns
        self.harmless = harmless
        self.only_new = only_new
        self.alone = False
        """Whether one row is staged, each parameter its value, rather than rows, each a column."""
        self.t = self._free("t")
        self.s = self._free("s")
        self.n = self._free("n")

    def _free(self, name: str) -> sql.Identifier:
        """A name that no column has: an expression of the catalogue must not find ours."""
        while name in self.shape.names:
            name += "_"
        return sql.Identifier(name)

    def of_table(self, column: str) -> sql.Composed:
        return sql.SQL("{}.{}").format(self.t, sql.Identifier(column))

    def staged(self, column: str) -> sql.Composed:
        """The staged column in its own type; arrays travel as text, because `unnest` would flatten them."""
        name = sql.SQL("{}.{}").format(self.s, sql.Identifier(column))
        real = self.shape.types[column]
        return sql.SQL("{}::{}").format(name, trusted(real.spelled)) if real.array else name

    def source(self, columns: Sequence[str] | None = None) -> sql.Composed:
        """`unnest(%s::bigint[], …) with ordinality as s(id, …, n)`."""
        columns = self.columns if columns is None else columns
        if self.alone:  # half as dear as rows of which there is one
            types = [self.shape.types[column] for column in columns]
            values = [sql.SQL("%s::{}").format(trusted("text" if real.array else real.spelled)) for real in types]
            return sql.SQL("(select {}, 1) as {} ({}, {})").format(
                sql.SQL(", ").join(values), self.s, self.list(columns), self.n
            )
        arrays = [
            sql.SQL("%s::{}").format(trusted("text[]" if real.array else f"{real.spelled}[]"))
            for real in (self.shape.types[column] for column in columns)
        ]
        return sql.SQL("unnest({}) with ordinality as {} ({}, {})").format(
            sql.SQL(", ").join(arrays), self.s, self.list(columns), self.n
        )

    def list(self, columns: Sequence[str]) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, columns))

    def same_key(self) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(self.of_table(column), self.staged(column)) for column in self.table.key
        )

    def not_older(self, incoming: sql.Composable) -> sql.Composed:
        """The version guard: an equal version overwrites, unless it is a replay's; a stored null is older than all."""
        stored = self.of_table(self.table.version or "")
        guard = sql.SQL("({} is null or {} < {})" if self.only_new else "({} is null or {} <= {})")
        return guard.format(stored, stored, incoming)

    def changed(self) -> Sequence[str]:
        """What an update sets; a row that is all key still counts as written, so the key is set to itself."""
        return [column for column in self.columns if column not in self.table.key] or self.table.key

    def writes(self, *, single: bool, returning: bool) -> Sequence[bytes]:
        """The statement, or pair, that writes what is staged; `returning` tells of one which rows those are."""
        if self.only_new and self.table.version is None:
            statements = [self.insert(overwrite=False, returning=returning)]
        elif single:
            statements = [self.insert(overwrite=True, returning=returning)]
        else:
            # an INSERT alone would miss absent NOT NULL columns before it saw a conflict; who came first in between is
            # overwritten by the second as the version says
            statements = [
                self.update(returning=returning),
                self.insert(overwrite=True, returning=returning, missing=True),
            ]
        return [statement.as_bytes() for statement in statements]

    def insert(self, *, overwrite: bool, returning: bool, missing: bool = False) -> sql.Composed:
        parts: list[sql.Composable] = [
            sql.SQL("insert into {} as {} ({}) select {} from {}").format(
                identifier(self.table),
                self.t,
                self.list(self.columns),
                sql.SQL(", ").join(map(self.staged, self.columns)),
                self.source(),
            )
        ]
        if missing:
            parts.append(
                sql.SQL(" where not exists (select 1 from {} as {} where {})").format(
                    identifier(self.table), self.t, self.same_key()
                )
            )
        parts.append(sql.SQL(" order by {}.{} on conflict ({})").format(self.s, self.n, self.list(self.table.key)))
        parts.append(self._overwrite() if overwrite else sql.SQL(" do nothing"))
        if returning:
            keys = sql.SQL(", ").join(map(self.of_table, self.table.key))
            parts.append(sql.SQL(" returning {}").format(keys))
        return sql.Composed(parts)

    def _overwrite(self) -> sql.Composed:
        excluded = [
            sql.SQL("{} = excluded.{}").format(sql.Identifier(column), sql.Identifier(column))
            for column in self.changed()
        ]
        action = sql.SQL(" do update set {}").format(sql.SQL(", ").join(excluded))
        if self.table.version is None:
            return action
        incoming = sql.SQL("excluded.{}").format(sql.Identifier(self.table.version))
        return sql.SQL("{} where {}").format(action, self.not_older(incoming))

    def update(self, *, returning: bool) -> sql.Composed:
        """The first of a partial row's pair."""
        values = [sql.SQL("{} = {}").format(sql.Identifier(column), self.staged(column)) for column in self.changed()]
        condition = self.same_key()
        if self.table.version is not None:
            condition = sql.SQL("{} and {}").format(condition, self.not_older(self.staged(self.table.version)))
        update = sql.SQL("update {} as {} set {} from {} where {}").format(
            identifier(self.table), self.t, sql.SQL(", ").join(values), self.source(), condition
        )
        return sql.SQL("{} returning {}.{}").format(update, self.s, self.n) if returning else update

    def newer(self) -> sql.Composed | None:
        """Which staged rows are held off by what is stored, rather than by a trigger."""
        if not self.only_new and self.table.version is None:
            return None
        columns = self.newer_columns()
        conditions = [self.same_key()]
        if self.table.version is not None:
            conditions.append(sql.SQL("not {}").format(self.not_older(self.staged(self.table.version))))
        return sql.SQL("select {}.{} from {} join {} as {} on {}").format(
            self.s,
            self.n,
            self.source(columns),
            identifier(self.table),
            self.t,
            sql.SQL(" and ").join(conditions),
        )

    def fresh(self) -> sql.Composed:
        """Which staged keys the table does not have."""
        return sql.SQL("select {}.{} from {} where not exists (select 1 from {} as {} where {})").format(
            self.s, self.n, self.source(self.table.key), identifier(self.table), self.t, self.same_key()
        )

    def newer_columns(self) -> Sequence[str]:
        version = self.table.version
        return self.table.key if version is None or version in self.table.key else (*self.table.key, version)

    @property
    def asked(self) -> Sequence[str]:
        """Columns that a rule looks at, and those that may be refused before any rule is: a value does not fit."""
        if any(check.whole_row for check in self.shape.checks):
            return self.columns
        looked_at = {column for check in self.shape.checks for column in check.columns} | dict(self._limits()).keys()
        wanted = [column for column in self.columns if column in looked_at or column not in self.harmless]
        return wanted or self.columns[:1]

    def verdict(self, *, references: bool = False) -> sql.Composed:
        """Which rule, by its place in `rules`, each staged row breaks first, in the order Postgres tests them."""
        columns = self.columns if references else self.asked
        # an expression that no rule needs is not evaluated: but a value that does not fit is refused before any rule
        every = sql.SQL(", ").join(sql.SQL("{}.{}").format(self.s, sql.Identifier(column)) for column in columns)
        cases = [sql.SQL("when num_nulls({}) < 0 then null").format(every)]
        cases += [
            sql.SQL("when char_length({}.{}) > {} then null").format(self.s, sql.Identifier(name), limit)
            for name, limit in self._limits()
        ]
        not_null = self.shape.not_null
        tests = [
            (place, sql.SQL("{}.{} is null").format(self.s, sql.Identifier(column)))
            for place, column in enumerate(not_null)
            if column in columns
        ]
        tests += [
            (place, sql.SQL("({}) is false").format(trusted(check.expression)))
            for place, check in enumerate(self.shape.checks, len(not_null))
        ]
        if references:
            first = len(not_null) + len(self.shape.checks)
            tests += [(place, self._orphan(*each)) for place, each in enumerate(self._references(), first)]
        cases += [sql.SQL("when {} then {}").format(test, sql.Literal(place)) for place, test in tests]
        typed = sql.SQL(", ").join(
            sql.SQL("{}::{} as {}").format(self.staged(c), trusted(self._rounded(c)), sql.Identifier(c))
            for c in columns
        )
        inner = sql.SQL("select {}, {}.{} from {}").format(typed, self.s, self.n, self.source(columns))
        case = sql.SQL("case {} end").format(sql.SQL(" ").join(cases)) if cases else sql.SQL("null::int")
        return sql.SQL(
            "select * from (select {}.{}, {} as verdict from ({}) as {}) as v where verdict is not null"
        ).format(self.s, self.n, case, inner, self.s)

    def copy(self) -> sql.Composed:
        """Straight into the table."""
        return sql.SQL("copy {} ({}) from stdin").format(identifier(self.table), self.list(self.columns))

    def _rounded(self, column: str) -> str:
        """The type to judge a value by: as the column rounds it, but never cut to its length."""
        real = self.shape.types[column]
        return real.spelled if column in dict(self._limits()) else real.shown

    def _limits(self) -> Sequence[tuple[str, sql.Literal]]:
        return [
            (name, sql.Literal(self.shape.types[name].modifier - 4))
            for name in self.columns
            if self.shape.types[name].modified and self.shape.types[name].name in ("varchar", "bpchar")
        ]

    def _references(self) -> Sequence[tuple[sql.SQL, Sequence[tuple[str, str]]]]:
        return [
            (trusted(reference.table), list(zip(reference.columns, reference.others, strict=True)))
            for reference in self.shape.references
        ]

    def _orphan(self, table: sql.SQL, pairs: Sequence[tuple[str, str]]) -> sql.Composed:
        """No match, nothing null, and it would be written at all: what is older than the stored row is not tested."""
        other = self._free("other")
        present = [sql.SQL("{}.{} is not null").format(self.s, sql.Identifier(own)) for own, _ in pairs]
        match = [
            sql.SQL("{}.{} = {}.{}").format(other, sql.Identifier(theirs), self.s, sql.Identifier(own))
            for own, theirs in pairs
        ]
        test = sql.SQL("{} and not exists (select 1 from {} as {} where {})").format(
            sql.SQL(" and ").join(present), table, other, sql.SQL(" and ").join(match)
        )
        if self.table.version is None:
            return test
        incoming = sql.SQL("{}.{}").format(self.s, sql.Identifier(self.table.version))
        return sql.SQL("{} and not exists (select 1 from {} as {} where {} and not {})").format(
            test, identifier(self.table), self.t, self.same_key(), self.not_older(incoming)
        )
