"""Read the real table from the catalogue: can it hold the rows, and how may a block of them be written?

A table's row order says how much of a block may share a statement and still end as if its rows were written one by one
(docs/decisions/0004-writers.md):

    ANY         no rule looks at another row of the table         any order, any number of rows a statement
    AS_READ     a rule looks at rows that were written before     the order read, consecutive rows a statement
    ONE_BY_ONE  a rule looks at what a statement leaves behind,   one row a statement
                or the catalogue does not tell what it looks at
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.declaration import Column, Table
from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Refusal
from lovelace_streams.writers.postgres.types import TypeInfo, exact_key, holds


class RowOrder(Enum):
    """How the rows of a block may share statements."""

    ANY = "any"
    AS_READ = "as_read"
    ONE_BY_ONE = "one_by_one"


class Check(msgspec.Struct, frozen=True):
    """An enforced CHECK of the table."""

    name: str
    expression: str
    columns: tuple[str, ...] = ()
    """Those that it names."""
    whole_row: bool = False


class Reference(msgspec.Struct, frozen=True):
    """A validated foreign key to another table, whose violations a query can find."""

    name: str
    columns: tuple[str, ...]
    table: str
    """Schema and name, quoted."""
    others: tuple[str, ...]


class ForeignKey(msgspec.Struct, frozen=True):
    """Any foreign key to another table, or to one of its partitions."""

    target: int
    columns: tuple[str, ...]
    others: tuple[str, ...]


class TableSchema(msgspec.Struct, frozen=True):
    """Everything that the writer has to know of the real table."""

    types: dict[str, TypeInfo]
    """Of the columns that rows have, in the order of the first row class."""
    row_order: RowOrder
    may_suppress: bool
    """A BEFORE trigger may return nothing."""
    deferrable: bool = False
    """Some rule or trigger may be deferred to COMMIT."""
    parents: tuple[tuple[str, ...], ...] = ()
    """Columns that refer to the table's own key, in the key's order."""
    names: frozenset[str] = frozenset()
    """All column names of the table."""
    not_null: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    references: tuple[Reference, ...] = ()
    judged_columns: frozenset[str] | None = None
    """Columns of a proposed row that a rule looks at. None if more may look at it: triggers, policies."""
    rules_see_row_only: bool = False
    """Whether CHECK and NOT NULL of a whole row depend on nothing but the row as given."""
    can_copy: bool = False
    """Whether COPY into the table ends as INSERT does."""
    sees_other_tables: bool = False
    """Whether writing a row may look at other tables or change them, by triggers, policies, rules or functions."""
    relations: tuple[int, ...] = ()
    """The table and its partitions."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    has_unchecked_references: bool = False
    """Whether stored rows may break a foreign key (NOT VALID): Postgres tests it of a row that the own transaction made
    even if an update leaves the key alone."""

    def may_omit(self, absent: frozenset[str]) -> bool:
        """Whether one INSERT … ON CONFLICT may leave these columns out.

        It proposes their defaults even if the row exists. That is harmless only if no rule judges a proposed row by
        them (docs/decisions/0004-writers.md).
        """
        return self.judged_columns is not None and not absent & self.judged_columns

    @property
    def rules(self) -> list[Refusal]:
        """The refusal for breaking each rule, in the order in which Postgres tests the rules."""
        return [
            *(Refusal(Reason.NOT_NULL, "23502", column) for column in self.not_null),
            *(Refusal(Reason.CHECK, "23514", check.name) for check in self.checks),
            *(Refusal(Reason.FOREIGN_KEY, "23503", reference.name) for reference in self.references),
        ]


_PART = re.compile(r'(?:"((?:[^"]|"")+)"(?=\.|$)|([^.]+))(?:\.|$)')


def name_parts(name: str) -> tuple[str, ...]:
    """Split a name into schema and table, as they are written, capitals included; quotes hold a part with dots.

    >>> name_parts('Sales."Order"'), name_parts('"v1.orders"')
    (('Sales', 'Order'), ('v1.orders',))
    """
    return tuple(quoted.replace('""', '"') or plain for quoted, plain in _PART.findall(name))


def identifier(table: Table) -> sql.Identifier:
    """Return the quoted name, with its schema if one is given."""
    return sql.Identifier(*name_parts(table.name))


class Problem(msgspec.Struct, frozen=True):
    """A difference between a real table and its rows because of which they can't be written."""

    message: str
    missing: str = ""
    """`table` or `column`: it can be added."""
    column: str = ""


def problems_of(connection: psycopg.Connection[Any], table: Table, rows: Sequence[type[Row]]) -> Iterator[Problem]:
    """Yield all differences of the real table. Raises `psycopg.Error`."""
    return _Inspection(connection, table, rows, "").problems()


def inspect(connection: psycopg.Connection[Any], table: Table, rows: Sequence[type[Row]], advice: str) -> TableSchema:
    """Compare the rows with the real table.

    Raises `DeploymentFault`, one line that names both sides and ends with `advice`.
    """
    return _Inspection(connection, table, rows, advice).schema()


CHECKED_MODIFIERS = frozenset({"varchar", "numeric", "timestamptz"})
"""Types whose modifier a query for violations can take into account. A CHECK may see the padding of char(n)."""

KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}
"""`pg_class.relkind` of relations that the writer can't write."""


class _Inspection:
    """One table's rows in the catalogue, and what follows from them: a property for each question."""

    relation: Any
    oid: int
    columns: dict[str, Any]
    relations: list[int]
    uniques: Sequence[Any]
    triggers: Sequence[Any]
    constraints: Sequence[Any]
    types: dict[str, TypeInfo]

    def __init__(
        self, connection: psycopg.Connection[Any], table: Table, rows: Sequence[type[Row]], advice: str
    ) -> None:
        self.connection = connection
        self.table = table
        self.rows = rows
        self.advice = advice
        self.fields = {column.name: column for column in table.columns}

    def schema(self) -> TableSchema:
        """Read all of the catalogue that matters. Raises `DeploymentFault` if the rows can't be written."""
        for problem in self.problems():
            raise self._fault(problem)
        self.types = {name: _type_info(self.columns[name]) for name in self._declared()}
        self.triggers = self._fetch(TRIGGERS, [self.relations])
        self.constraints = self._fetch(CONSTRAINTS, [self.relations])
        row_order = self.row_order
        return TableSchema(
            types=self.types,
            row_order=row_order,
            may_suppress=any(trigger.before for trigger in self.triggers),
            deferrable=bool(self._fetch(DEFERRABLE, [self.relations])),
            parents=() if row_order is RowOrder.ONE_BY_ONE else self.parents,
            names=frozenset(self.columns),
            not_null=self.not_null,
            checks=self.enforced_checks,
            references=self.references,
            judged_columns=self.judged_columns,
            can_copy=row_order is RowOrder.ANY and not self.has_policies,
            sees_other_tables=self.sees_other_tables,
            relations=tuple(self.relations),
            foreign_keys=self.foreign_keys,
            rules_see_row_only=self.rules_see_row_only,
            has_unchecked_references=any(rule.unchecked for rule in self.constraints),
        )

    def problems(self) -> Iterator[Problem]:
        """Yield the reasons why the rows can't be written."""
        found = self._fetch(RELATION, [identifier(self.table).as_string(self.connection)])
        if not found:
            yield Problem("there is no such table", "table")
            return
        self.relation = found[0]
        self.oid = self.relation.oid
        if self.relation.relkind not in ("r", "p"):
            yield Problem(f"it is not a table but {KINDS.get(self.relation.relkind, 'something else')}")
            return
        self.columns = {column.name: column for column in self._fetch(COLUMNS, [self.oid, self.oid])}
        self.relations = [row.relid for row in self._fetch(RELATIONS, [self.oid, self.oid])]
        self.uniques = self._fetch(UNIQUES, [self.relations])
        yield from self._problems_of_columns()
        yield from self._problems_of_key()

    def _fetch(self, query: sql.SQL, parameters: list[Any]) -> list[Any]:
        cursor = self.connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(query, parameters, prepare=False).fetchall()

    def _fault(self, problem: Problem) -> DeploymentFault:
        advice = f"`lovelace ddl FLOW --apply` adds it, or {self.advice}" if problem.missing else self.advice
        return DeploymentFault(f"{self.rows[0].__name__} ↔ table {self.table.name}: {problem.message}; {advice}")

    # -- can the table hold the rows? --------------------------------------------------------------------------------

    def _declared(self) -> dict[str, list[Column]]:
        """Return for each field the declarations of all row classes."""
        declared: dict[str, list[Column]] = {}
        for row in self.rows:
            for column in row.__table__.columns:
                declared.setdefault(column.name, []).append(column)
        return declared

    def _problems_of_columns(self) -> Iterator[Problem]:
        declared = self._declared()
        for name, fields in declared.items():
            real = self.columns.get(name)
            if real is None:
                yield Problem(f"the table has no column {name}", "column", name)
            elif real.generated or real.always:
                yield Problem(f"column {name} is generated and can't be written")
            else:
                for field in fields:
                    yield from self._problems_of_field(field, real)
        for name, real in self.columns.items():
            if name not in declared and real.not_null and not real.filled:
                yield Problem(f"column {name} is NOT NULL without a default, and the row has no such field")

    @staticmethod
    def _problems_of_field(field: Column, real: Any) -> Iterator[Problem]:
        if not holds(field.type, _type_info(real)):
            kind = getattr(field.type, "__name__", str(field.type))
            yield Problem(f"column {field.name} is {real.shown} and can't hold {kind}")
        scale = _type_info(real).scale
        if field.scale is not None and scale is not None and field.scale.digits > scale:
            digits = field.scale.digits
            yield Problem(
                f"{field.name} may have {digits} digits after the point (Scale), but the column is {real.shown}"
            )
        may_be_absent = field.nullable and field.default is msgspec.NODEFAULT
        if may_be_absent and real.not_null and not real.filled:
            yield Problem(
                f"{field.name} may be absent (T | None), but the column is NOT NULL without a default: a new row fails"
            )

    def _problems_of_key(self) -> Iterator[Problem]:
        key = set(self.table.key)
        backing = [u for u in self.uniques if u.relation == self.oid and u.whole and set(u.columns) == key]
        columns = ", ".join(self.table.key)
        if not backing:
            yield Problem(f"no primary key or unique index on ({columns}), so a replay would write rows twice")
        elif not any(unique.immediate for unique in backing):
            yield Problem(f"the key on ({columns}) is deferrable, which ON CONFLICT can't use")

    # -- what is there? ----------------------------------------------------------------------------------------------

    @property
    def has_rewrite_rules(self) -> bool:
        """Whether a `CREATE RULE` rewrites what is written."""
        return bool(self.relation.relhasrules)

    @property
    def has_policies(self) -> bool:
        """Whether row security judges rows."""
        return bool(self.relation.relrowsecurity)

    @property
    def check_constraints(self) -> list[Any]:
        return [rule for rule in self.constraints if rule.kind == "c"]

    @property
    def keys_to_self(self) -> list[dict[str, str]]:
        """Foreign keys to the table itself: column referred to → column that refers."""
        return [dict(zip(rule.others, rule.columns, strict=True)) for rule in self.constraints if rule.kind == "s"]

    @property
    def keys_to_others(self) -> list[Any]:
        return [rule for rule in self.constraints if rule.kind == "f"]

    @property
    def keys_from_others(self) -> list[Any]:
        return [rule for rule in self.constraints if rule.kind == "r"]

    @property
    def not_null(self) -> tuple[str, ...]:
        return tuple(name for name, real in self.columns.items() if real.not_null and name in self.types)

    @property
    def enforced_checks(self) -> tuple[Check, ...]:
        return tuple(
            Check(rule.name, rule.expression, tuple(rule.columns), rule.whole_row)
            for rule in self.check_constraints
            if rule.enforced
        )

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(
            Reference(rule.name, tuple(rule.columns), rule.other, tuple(rule.others))
            for rule in self.keys_to_others
            if rule.checkable
        )

    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        return tuple(ForeignKey(rule.target, tuple(rule.columns), tuple(rule.others)) for rule in self.keys_to_others)

    @property
    def parents(self) -> tuple[tuple[str, ...], ...]:
        """Columns that refer to the table's own key, in the key's order."""
        return tuple(tuple(pairs[name] for name in self.table.key) for pairs in self.keys_to_self)

    # -- how may a block be written? ---------------------------------------------------------------------------------

    @property
    def row_order(self) -> RowOrder:
        """How the rows of a block may share statements."""
        if self.has_rewrite_rules or self.a_rule_sees_whole_statements:
            return RowOrder.ONE_BY_ONE
        return RowOrder.AS_READ if self.a_rule_sees_earlier_rows else RowOrder.ANY

    @property
    def a_rule_sees_earlier_rows(self) -> bool:
        """Whether a rule looks at rows of the table that were written before."""
        return bool(self.triggers or self.keys_to_self) or len(self.uniques) > 1

    @property
    def a_rule_sees_whole_statements(self) -> bool:
        """Whether a rule looks at what a statement leaves behind, or at something that the catalogue does not tell."""
        return (
            not self.key_is_exact
            or any(trigger.sees_whole_statements for trigger in self.triggers)
            or any(not unique.immediate for unique in self.uniques)
            or any(rule.sees_other_rows for rule in self.check_constraints)
            or self.others_refer_past_the_key
            or not all(self._refers_to_key(pairs) for pairs in self.keys_to_self)
        )

    @property
    def key_is_exact(self) -> bool:
        """Whether keys that differ here differ in the table too: not so of citext, char(n), numeric(p, s)."""
        return all(exact_key(self.fields[name].type, self.types[name]) for name in self.table.key)

    @property
    def others_refer_past_the_key(self) -> bool:
        """Whether another table refers to more than the key.

        Its NO ACTION looks at what the statement leaves behind.
        """
        return any(not set(rule.others) <= set(self.table.key) for rule in self.keys_from_others)

    def _refers_to_key(self, pairs: dict[str, str]) -> bool:
        """Whether a foreign key to the table itself refers to its key by values that are compared here as there."""
        fields = self.fields
        return set(pairs) == set(self.table.key) and all(
            column in fields
            and fields[column].type == fields[name].type
            and exact_key(fields[column].type, self.types[column])
            for name, column in pairs.items()
        )

    @property
    def sees_other_tables(self) -> bool:
        """Whether writing a row may look at other tables or change them."""
        return (
            bool(self.triggers)
            or self.has_policies
            or self.has_rewrite_rules
            or any(rule.sees_other_rows for rule in self.check_constraints)
        )

    @property
    def judged_columns(self) -> frozenset[str] | None:
        """Columns of a proposed row that a rule looks at. None if more may look at it."""
        more_may_look = (
            self.triggers
            or self.has_policies
            or any(real.domain or real.generated for real in self.columns.values())
            or any(rule.whole_row for rule in self.check_constraints)
        )
        if more_may_look:
            return None
        checked = {column for rule in self.check_constraints for column in rule.columns}
        return frozenset(checked | {name for name, real in self.columns.items() if real.not_null and not real.filled})

    @property
    def rules_see_row_only(self) -> bool:
        """Whether CHECK and NOT NULL of a whole row depend on nothing but the row as given."""
        return not (
            self.triggers
            or self.has_policies
            or self.relations != [self.oid]
            or any(self.columns[name].domain or not self.columns[name].collates for name in self.types)
            or any(real.modified and real.name not in CHECKED_MODIFIERS for real in self.types.values())
            or any(rule.calls_functions for rule in self.check_constraints)
        )


def _type_info(real: Any) -> TypeInfo:
    return TypeInfo(
        name=real.base,
        category=real.category,
        cast_name=real.spelled,
        modified=real.modifier >= 0,
        modifier=real.modifier,
        exact=real.deterministic and not real.domain,
        display_name=real.shown,
        coercion=real.coercion,
        coercion_is_told=real.coercion_is_told,
    )


RELATION = sql.SQL("""
select c.oid, c.relkind::text, c.relrowsecurity,
       exists (select 1 from pg_rewrite r where r.ev_class = c.oid and r.ev_type in ('2', '3')) as relhasrules
from pg_class c where c.oid = to_regclass(%s)
""")

RELATIONS = sql.SQL("""
select %s::oid as relid union select relid from pg_partition_tree(%s::oid::regclass) order by relid
""")
"""The table and its partitions, which have rules of their own."""

COLUMNS = sql.SQL("""
with recursive base as (
  select a.attnum, a.atttypid as type, a.atttypmod as modifier, false as domain, false as not_null, false as filled
  from pg_attribute a where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
  union all
  select b.attnum, t.typbasetype, case when b.modifier < 0 then t.typtypmod else b.modifier end, true,
         b.not_null or t.typnotnull, b.filled or t.typdefault is not null
  from base b join pg_type t on t.oid = b.type where t.typtype = 'd'
)
select a.attname as name, t.typname as base, t.typcategory::text as category,
       format_type(t.oid, -1) as spelled,  -- not NULL: that spells bpchar as character, which is character(1)
       format_type(a.atttypid, a.atttypmod) as shown,
       coalesce(quote_ident(f.namespace) || '.' || quote_ident(f.name), '') as coercion,
       coalesce(f.arguments, 0) = 3 as coercion_is_told,
       a.attcollation in (0, 'pg_catalog."default"'::regcollation) as collates,
       b.modifier, b.domain, coalesce(l.collisdeterministic, true) as deterministic,
       a.attnotnull or b.not_null as not_null,
       a.atthasdef or a.attidentity <> '' or b.filled as filled,
       a.attidentity = 'a' as always, a.attgenerated <> '' as generated
from base b join pg_type t on t.oid = b.type and t.typtype <> 'd'
join pg_attribute a on a.attrelid = %s and a.attnum = b.attnum
left join lateral (
  select n.nspname as namespace, p.proname as name, p.pronargs as arguments
  from pg_cast c join pg_proc p on p.oid = c.castfunc join pg_namespace n on n.oid = p.pronamespace
  where c.castsource = t.oid and c.casttarget = t.oid
) f on true
left join pg_collation l on l.oid = a.attcollation
order by a.attnum
""")

UNIQUES = sql.SQL("""
select i.indrelid as relation, i.indimmediate as immediate,
       i.indpred is null and i.indexprs is null and i.indisvalid and not i.indisexclusion as whole,
       array(select a.attname::text from unnest(i.indkey) with ordinality k(n, o)
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n where k.o <= i.indnkeyatts) as columns
from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = any(%s) and (i.indisunique or i.indisexclusion) and not c.relispartition
order by i.indisprimary desc
""")

TRIGGERS = sql.SQL("""
select t.tgtype & 2 > 0 as before,
       -- a volatile BEFORE ROW trigger sees earlier rows only
       t.tgtype & 3 <> 3 or p.provolatile <> 'v' as sees_whole_statements
from pg_trigger t join pg_proc p on p.oid = t.tgfoid
where t.tgrelid = any(%s) and not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 20 > 0
""")

DEFERRABLE = sql.SQL("select from pg_trigger where tgdeferrable and tgrelid = any(%s) limit 1")

CONSTRAINTS = sql.SQL("""
with mine as (select %s::oid[] as oids)
select r.conname as name,
       case when r.contype = 'c' then 'c'
            when r.conrelid = any(oids) and r.confrelid = any(oids) then 's'
            when r.conrelid = any(oids) then 'f'
            else 'r' end as kind,
       pg_get_expr(r.conbin, r.conrelid) as expression,
       coalesce((to_jsonb(r) ->> 'conenforced')::bool, true) as enforced,
       exists (select 1 from pg_depend d where d.classid = 'pg_constraint'::regclass and d.objid = r.oid
               and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)) as calls_functions,
       exists (select 1 from pg_depend d join pg_proc p on p.oid = d.refobjid
               where d.classid = 'pg_constraint'::regclass and d.objid = r.oid
               and d.refclassid = 'pg_proc'::regclass and p.provolatile <> 'i') as sees_other_rows,
       coalesce(0 = any(r.conkey), false) as whole_row,
       array(select a.attname::text from unnest(r.conkey) with ordinality k(n, o)
             join pg_attribute a on a.attrelid = r.conrelid and a.attnum = k.n order by k.o) as columns,
       array(select a.attname::text from unnest(r.confkey) with ordinality k(n, o)
             join pg_attribute a on a.attrelid = r.confrelid and a.attnum = k.n order by k.o) as others,
       r.contype = 'f' and not r.convalidated and r.conrelid = any(oids) as unchecked,
       r.confrelid::regclass::text as other, r.confrelid::int8 as target,
       r.confmatchtype = 's' and r.convalidated and not coalesce((to_jsonb(r) ->> 'conperiod')::bool, false)
         and not (select o.relrowsecurity from pg_class o where o.oid = r.confrelid) as checkable
from pg_constraint r, mine
where r.contype in ('c', 'f') and (r.conrelid = any(oids) or r.confrelid = any(oids))
order by r.conname
""")
