"""The real table, read from the catalogue: can it hold the rows, and how may a block of them be written?

The *order* of a table says how much of a block may share a statement and still end as if it were written one by one
(docs/decisions/0004-writers.md):

    FREE     rows of different keys do not see each other         any order, as many as there are
    ORDERED  a rule looks at rows written before                  the order read, consecutive rows
    STRANGE  a rule looks at what a statement leaves behind, or   a statement a row
             it cannot be told what it looks at
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


class Order(Enum):
    """How much of a block may share a statement."""

    FREE = "free"
    ORDERED = "ordered"
    STRANGE = "strange"


class Check(msgspec.Struct, frozen=True):
    """An enforced CHECK of the table."""

    name: str
    expression: str
    columns: tuple[str, ...] = ()
    """Those that it names."""
    whole_row: bool = False


class Reference(msgspec.Struct, frozen=True):
    """A foreign key to another table."""

    name: str
    columns: tuple[str, ...]
    table: str
    """Schema and name, quoted."""
    others: tuple[str, ...]


class Link(msgspec.Struct, frozen=True):
    """A foreign key to another table, or one of its partitions, whatever it is like."""

    target: int
    columns: tuple[str, ...]
    others: tuple[str, ...]


class Shape(msgspec.Struct, frozen=True):
    """What the writer has to know of the real table."""

    types: dict[str, TypeInfo]
    """Of the columns that rows have, in the order of the first row class."""
    order: Order
    suppresses: bool
    """A BEFORE trigger may return nothing."""
    deferrable: bool = False
    """Some rule or trigger may be put off to COMMIT."""
    parents: tuple[tuple[str, ...], ...] = ()
    """Columns that refer to the table's own key, in the key's order."""
    names: frozenset[str] = frozenset()
    """All column names of the table."""
    not_null: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    references: tuple[Reference, ...] = ()
    mentioned: frozenset[str] | None = None
    """Columns that a CHECK of a row as proposed looks at; None where more may look at it (triggers, policies)."""
    plain: bool = False
    """Whether CHECK and NOT NULL of a whole row depend on nothing but the row as given."""
    copies: bool = False
    """Whether COPY into the table ends as INSERT does."""
    looks: bool = False
    """Whether writing a row may look at other tables or change them: triggers, policies, rules, a CHECK's functions."""
    relations: tuple[int, ...] = ()
    """The table and its partitions."""
    links: tuple[Link, ...] = ()

    def keeps(self, absent: frozenset[str]) -> bool:
        """Whether one INSERT … ON CONFLICT may leave these columns out.

        It proposes their defaults even where the row exists; that is harmless only if nothing judges a proposed row by
        them (docs/decisions/0004-writers.md).
        """
        return self.mentioned is not None and not absent & self.mentioned

    @property
    def rules(self) -> list[Refusal]:
        """What breaking each rule is called, in the order in which Postgres tests them."""
        return [
            *(Refusal(Reason.NOT_NULL, "23502", column) for column in self.not_null),
            *(Refusal(Reason.CHECK, "23514", check.name) for check in self.checks),
            *(Refusal(Reason.FOREIGN_KEY, "23503", reference.name) for reference in self.references),
        ]


_PART = re.compile(r'(?:"((?:[^"]|"")+)"(?=\.|$)|([^.]+))(?:\.|$)')


def name_parts(name: str) -> tuple[str, ...]:
    """Schema and name as they are written, capitals and all; a part with dots in it stands in double quotes.

    >>> name_parts('Sales."Order"'), name_parts('"v1.orders"')
    (('Sales', 'Order'), ('v1.orders',))
    """
    return tuple(quoted.replace('""', '"') or plain for quoted, plain in _PART.findall(name))


def identifier(table: Table) -> sql.Identifier:
    """The quoted name, with its schema where one is given."""
    return sql.Identifier(*name_parts(table.name))


class Problem(msgspec.Struct, frozen=True):
    """Something in which a real table and its rows differ so that they can't be written."""

    message: str
    missing: str = ""
    """`table` or `column`: it can be added."""
    column: str = ""


def problems_of(connection: psycopg.Connection[Any], table: Table, rows: Sequence[type[Row]]) -> Iterator[Problem]:
    """All in which the real table differs. Raises `psycopg.Error`."""
    return _Inspection(connection, table, rows, "").problems()


def inspect(connection: psycopg.Connection[Any], table: Table, rows: Sequence[type[Row]], way_out: str) -> Shape:
    """Compare the rows with the real table.

    Raises `DeploymentFault`, one line that names both sides and ends with `way_out`.
    """
    return _Inspection(connection, table, rows, way_out).run()


ROUNDED = frozenset({"varchar", "numeric"})
"""Types whose modifier a set's verdict can take into account; char(n) is padded, which a CHECK may see."""


KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}
"""`pg_class.relkind` of what is not written."""


class _Inspection:
    relation: Any
    oid: int
    columns: dict[str, Any]
    relations: list[int]
    uniques: Sequence[Any]

    def __init__(
        self, connection: psycopg.Connection[Any], table: Table, rows: Sequence[type[Row]], way_out: str
    ) -> None:
        self.connection = connection
        self.table = table
        self.rows = rows
        self.way_out = way_out

    def run(self) -> Shape:
        for problem in self.problems():
            raise self._fault(problem)
        oid, rules, security = self.oid, self.relation.relhasrules, self.relation.relrowsecurity
        columns, relations, uniques = self.columns, self.relations, self.uniques
        types = {name: _type_info(columns[name]) for name in self._declared()}
        triggers = self._ask(TRIGGERS, [relations])
        constraints = self._ask(CONSTRAINTS, [relations])
        order, parents = self._order(types, uniques, constraints, triggers)
        return Shape(
            types=types,
            order=Order.STRANGE if rules else order,
            suppresses=any(trigger.before for trigger in triggers),
            deferrable=bool(self._ask(DEFERRABLE, [relations])),
            parents=parents,
            names=frozenset(columns),
            not_null=tuple(name for name, column in columns.items() if column.not_null and name in types),
            checks=tuple(
                Check(rule.name, rule.expression, tuple(rule.columns), rule.whole_row)
                for rule in constraints
                if rule.kind == "c" and rule.enforced
            ),
            references=tuple(
                Reference(rule.name, tuple(rule.columns), rule.other, tuple(rule.others))
                for rule in constraints
                if rule.kind == "f" and rule.askable
            ),
            mentioned=None
            if triggers
            or security
            or any(real.domain or real.generated for real in columns.values())
            or any(rule.kind == "c" and rule.whole_row for rule in constraints)
            else frozenset(column for rule in constraints if rule.kind == "c" for column in rule.columns)
            | {name for name, real in columns.items() if real.not_null and not real.filled},
            copies=not rules and not security and order is Order.FREE,
            looks=bool(triggers)
            or security
            or rules
            or any(rule.kind == "c" and rule.looks_around for rule in constraints),
            relations=tuple(relations),
            links=tuple(
                Link(rule.target, tuple(rule.columns), tuple(rule.others)) for rule in constraints if rule.kind == "f"
            ),
            plain=not triggers
            and not security
            and relations == [oid]
            and not any(columns[name].domain or not columns[name].collates for name in types)
            and all(not real.modified or real.name in ROUNDED for real in types.values())
            and not any(rule.kind == "c" and rule.functions for rule in constraints),
        )

    def _ask(self, query: sql.SQL, parameters: list[Any]) -> list[Any]:
        cursor = self.connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(query, parameters, prepare=False).fetchall()

    def _fault(self, problem: Problem) -> DeploymentFault:
        way_out = f"`lovelace ddl FLOW --apply` adds it, or {self.way_out}" if problem.missing else self.way_out
        return DeploymentFault(f"{self.rows[0].__name__} ↔ table {self.table.name}: {problem.message}; {way_out}")

    def problems(self) -> Iterator[Problem]:
        """Why the rows can't be written, the first one first."""
        found = self._ask(RELATION, [identifier(self.table).as_string(self.connection)])
        if not found:
            yield Problem("there is no such table", "table")
            return
        self.relation = found[0]
        self.oid = self.relation.oid
        if self.relation.relkind not in ("r", "p"):
            yield Problem(f"it is not a table but {KINDS.get(self.relation.relkind, 'something else')}")
            return
        self.columns = {column.name: column for column in self._ask(COLUMNS, [self.oid, self.oid])}
        self.relations = [row.relid for row in self._ask(RELATIONS, [self.oid, self.oid])]
        self.uniques = self._ask(UNIQUES, [self.relations])
        yield from self._columns(self.columns)
        yield from self._arbiter(self.oid, self.uniques)

    def _declared(self) -> dict[str, list[Column]]:
        """Field → how each row class declares it."""
        declared: dict[str, list[Column]] = {}
        for row in self.rows:
            for column in row.__table__.columns:
                declared.setdefault(column.name, []).append(column)
        return declared

    def _columns(self, columns: dict[str, Any]) -> Iterator[Problem]:
        declared = self._declared()
        for name, fields in declared.items():
            real = columns.get(name)
            if real is None:
                yield Problem(f"the table has no column {name}", "column", name)
            elif real.generated or real.always:
                yield Problem(f"column {name} is generated and can't be written")
            else:
                for field in fields:
                    yield from self._holds(field, real)
        for name, real in columns.items():
            if name not in declared and real.not_null and not real.filled:
                yield Problem(f"column {name} is NOT NULL without a default, and the row has no such field")

    @staticmethod
    def _holds(field: Column, real: Any) -> Iterator[Problem]:
        if not holds(field.type, _type_info(real)):
            kind = getattr(field.type, "__name__", str(field.type))
            yield Problem(f"column {field.name} is {real.shown} and can't hold {kind}")
        may_be_absent = field.nullable and field.default is msgspec.NODEFAULT
        if may_be_absent and real.not_null and not real.filled:
            yield Problem(
                f"{field.name} may be absent (T | None), but the column is NOT NULL without a default: a new row fails"
            )

    def _arbiter(self, oid: int, uniques: Sequence[Any]) -> Iterator[Problem]:
        key = set(self.table.key)
        backing = [u for u in uniques if u.relation == oid and u.whole and set(u.columns) == key]
        columns = ", ".join(self.table.key)
        if not backing:
            yield Problem(f"no primary key or unique index on ({columns}), so a replay would write rows twice")
        elif not any(unique.immediate for unique in backing):
            yield Problem(f"the key on ({columns}) is deferrable, which ON CONFLICT can't use")

    def _order(
        self, types: dict[str, TypeInfo], uniques: Sequence[Any], constraints: Sequence[Any], triggers: Sequence[Any]
    ) -> tuple[Order, tuple[tuple[str, ...], ...]]:
        """How a block may be written, and which columns refer to the table's own key."""
        fields = {column.name: column for column in self.table.columns}
        to_self = [dict(zip(rule.others, rule.columns, strict=True)) for rule in constraints if rule.kind == "s"]
        strange = (
            # keys that differ here may be equal there: citext, char(n), numeric(p, s)
            not all(exact_key(fields[name].type, types[name]) for name in self.table.key)
            or any(trigger.strange for trigger in triggers)
            or any(not unique.immediate for unique in uniques)
            or any(rule.kind == "c" and rule.looks_around for rule in constraints)
            # another table's NO ACTION looks at what the statement leaves behind, unless the key alone is referred to
            or any(rule.kind == "r" and not set(rule.others) <= set(self.table.key) for rule in constraints)
            or not all(self._to_key(pairs, fields) for pairs in to_self)
        )
        if strange:
            return Order.STRANGE, ()
        parents = tuple(tuple(pairs[name] for name in self.table.key) for pairs in to_self)
        return Order.ORDERED if triggers or parents or len(uniques) > 1 else Order.FREE, parents

    def _to_key(self, pairs: dict[str, str], fields: dict[str, Column]) -> bool:
        """Whether a foreign key to the table itself refers to its key by columns of the same Python types."""
        return set(pairs) == set(self.table.key) and all(
            column in fields and fields[column].type == fields[name].type for name, column in pairs.items()
        )


def _type_info(real: Any) -> TypeInfo:
    return TypeInfo(
        name=real.base,
        category=real.category,
        spelled=real.spelled,
        modified=real.modifier >= 0,
        modifier=real.modifier,
        exact=real.deterministic and not real.domain,
        shown=real.shown,
    )


RELATION = sql.SQL("""
select c.oid, c.relkind::text, c.relrowsecurity,
       exists (select 1 from pg_rewrite r where r.ev_class = c.oid and r.ev_type in ('2', '3')) as relhasrules
from pg_class c where c.oid = to_regclass(%s)
""")

RELATIONS = sql.SQL("""
select %s::oid as relid union select relid from pg_partition_tree(%s::oid::regclass) order by relid
""")
"""The table, and its partitions: those have rules of their own."""

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
       a.attcollation in (0, 'pg_catalog."default"'::regcollation) as collates,
       b.modifier, b.domain, coalesce(l.collisdeterministic, true) as deterministic,
       a.attnotnull or b.not_null as not_null,
       a.atthasdef or a.attidentity <> '' or b.filled as filled,
       a.attidentity = 'a' as always, a.attgenerated <> '' as generated
from base b join pg_type t on t.oid = b.type and t.typtype <> 'd'
join pg_attribute a on a.attrelid = %s and a.attnum = b.attnum
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
       t.tgtype & 3 <> 3 or p.provolatile <> 'v' as strange  -- a volatile BEFORE ROW trigger sees earlier rows only
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
               and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)) as functions,
       exists (select 1 from pg_depend d join pg_proc p on p.oid = d.refobjid
               where d.classid = 'pg_constraint'::regclass and d.objid = r.oid
               and d.refclassid = 'pg_proc'::regclass and p.provolatile <> 'i') as looks_around,
       coalesce(0 = any(r.conkey), false) as whole_row,
       array(select a.attname::text from unnest(r.conkey) with ordinality k(n, o)
             join pg_attribute a on a.attrelid = r.conrelid and a.attnum = k.n order by k.o) as columns,
       array(select a.attname::text from unnest(r.confkey) with ordinality k(n, o)
             join pg_attribute a on a.attrelid = r.confrelid and a.attnum = k.n order by k.o) as others,
       r.confrelid::regclass::text as other, r.confrelid::int8 as target,
       r.confmatchtype = 's' and r.convalidated and not coalesce((to_jsonb(r) ->> 'conperiod')::bool, false)
         and not (select o.relrowsecurity from pg_class o where o.oid = r.confrelid) as askable
from pg_constraint r, mine
where r.contype in ('c', 'f') and (r.conrelid = any(oids) or r.confrelid = any(oids))
order by r.conname
""")
