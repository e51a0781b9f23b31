"""Which statements a block becomes, so that its items end as if each had been written alone, one after the other.

The rows of one table are cut as its rules allow (`Order`, docs/decisions/0004-writers.md). Where a writer has several
tables, an item's rows go table by table, and the tables stand to each other in one of three ways
(docs/decisions/0011-several-tables.md):

    APART    nothing in one looks at another                    each table's rows by themselves
    LINKED   foreign keys from one to the key of another        in phases: a new one before a row that an earlier item
                                                                refers to
    STRANGE  triggers, policies, rules, or keys that can't be   a statement a row, item by item
             compared here
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from itertools import compress
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from lovelace_streams.errors import DestinationFault
from lovelace_streams.rows.declaration import Column
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers import Entry
from lovelace_streams.writers.postgres.catalog import Link, Order, Shape
from lovelace_streams.writers.postgres.sql import Plan, Unfit, identity_of, plain_identity
from lovelace_streams.writers.postgres.types import Spelled, exact_key, lines

Fresh = Callable[[Plan, Sequence[Entry]], list[bool]]
"""Whether the keys of these rows are new to their table."""

NOTHING: frozenset[str] = frozenset()
ONE_SPELLING: frozenset[Any] = frozenset({int, str, UUID, date, datetime})
"""Types whose values are equal here exactly where they are equal in the database; of a float NaN is not."""


class Segment:
    """Rows of a block that share a statement (or a pair), by their places in it."""

    __slots__ = ("keys", "places", "plan", "table")

    def __init__(self, table: "OneTable", plan: Plan, places: list[int], keys: list[Any]) -> None:
        self.table = table
        self.plan = plan
        self.places = places
        self.keys = keys


class Alike:
    """Rows that one statement can write: of one class, lacking the same columns, of a table where order is free.

    What is worked out of them needs no connection, so it may be done while another block is being written; it serves
    the COPY and, should that be refused, the merge.
    """

    def __init__(
        self,
        table: "OneTable",
        plan: Plan,
        columns: Mapping[str, Sequence[Any]],
        keys: Sequence[Any] | None = None,
    ) -> None:
        self.table = table
        self.shape = table.shape
        self.plan = plan
        self.keys = table.keys_of(columns) if keys is None else keys
        self._columns = columns
        self._spelled: dict[str, Spelled] | None = None
        self._lines: list[str] | None = None
        self._order: Sequence[int] | None = None
        self._chosen: tuple[Alike, Sequence[bool]] | None = None
        """Where these are some of others: of which, and which."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_current(self) -> bool:
        """Whether the table is still the one that was looked at: a writer that opens again looks again."""
        return self.shape is self.table.shape

    @property
    def spelled(self) -> dict[str, Spelled]:
        """Every column as texts. Raises `Unfit`."""
        if self._spelled is None:
            if self._chosen is not None:
                others, chosen = self._chosen
                self._spelled = {name: column.only(chosen) for name, column in others.spelled.items()}
            else:
                self._spelled = self.plan.spell(self._columns)
        return self._spelled

    @property
    def lines(self) -> list[str]:
        """The lines of a COPY, in the order of their keys. Raises `Unfit`."""
        if self._lines is None:
            self._lines = lines([column.ordered(self.order) for column in self.spelled.values()])
        return self._lines

    def text(self) -> bytes:
        """What a COPY reads. Raises `Unfit`."""
        return ("\n".join(self.lines) + "\n").encode()

    @property
    def order(self) -> Sequence[int]:
        """The rows by their keys: two writers that meet the same keys in one order do not deadlock."""
        if self._order is None:
            self._order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        return self._order

    def literals(self, names: Sequence[str], order: Sequence[int] | None = None) -> list[str]:
        """An array literal a column, the rows in this order. Raises `Unfit`."""
        columns = {name: self.spelled[name] for name in names}
        if order is not None:
            columns = {name: column.ordered(order) for name, column in columns.items()}
        return [column.literal() for column in columns.values()]

    def only(self, chosen: Sequence[bool]) -> "Alike":
        """Some of the rows; nothing is worked out anew that the others know."""
        some = Alike(self.table, self.plan, self._columns, list(compress(self.keys, chosen)))
        some._chosen = self, chosen
        if self._lines is not None:
            some._lines = list(compress(self._lines, map(chosen.__getitem__, self.order)))
        return some

    def segment(self) -> tuple[Segment, list[str]] | None:
        """One statement for all, in the order of their keys; None where a key comes twice."""
        if len(set(self.keys)) < len(self.keys):
            return None
        keys = [self.keys[place] for place in self.order]
        return Segment(self.table, self.plan, list(self.order), keys), self.literals(self.plan.names, self.order)


class OneTable:
    """One table of a writer: its row classes, its real shape once it was opened, and plans for its rows."""

    def __init__(self, rows: Sequence[type[Row]]) -> None:
        self.rows = tuple(rows)
        self.table = rows[0].__table__
        for row in rows[1:]:
            other = row.__table__
            if (other.name, other.key, other.version) != (self.table.name, self.table.key, self.table.version):
                raise TypeError(f"{row.__name__} and {rows[0].__name__} differ in table, primary key or version")
        self.identity: Callable[[Row], Any] = attrgetter(*self.table.key)
        self._plain = True
        self._key_types = {c.name: scalar(c.type) for c in self.table.columns if c.name in self.table.key}
        self._optional = {row: _optional(row) for row in rows}
        self._getters = {row: _getters(row) for row in rows}
        self._shape: Shape | None = None
        self._plans: dict[tuple[type[Row], frozenset[str], bool], Plan] = {}

    @property
    def shape(self) -> Shape:
        """What the real table is like. Raises `DestinationFault` before it was found."""
        if self._shape is None:
            raise DestinationFault("08003", f"table {self.table.name} was not opened")
        return self._shape

    def found(self, shape: Shape) -> None:
        """Take what the real table is like now."""
        self._shape = shape
        self._plans.clear()
        self.identity = identity_of(self.table, shape.types)
        self._plain = plain_identity(self.table, shape.types)

    def keys_of(self, columns: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
        """The keys of rows by their columns, as `identity` gives them."""
        if len(self.table.key) == 1:
            return columns[self.table.key[0]]
        return list(zip(*[columns[name] for name in self.table.key], strict=True))

    def alike(self, entries: Sequence[Entry]) -> Alike | None:
        """These rows as one, where one statement may write them."""
        if self.shape.order is not Order.FREE or not self._plain:
            return None
        rows = [entry.row for entry in entries]
        kinds = set(map(type, rows))
        if len(kinds) > 1 or any([entry.only_new or entry.same_item for entry in entries]):  # noqa: C419 - twice as quick
            return None
        [kind] = kinds
        columns: dict[str, list[Any]] = {}
        absent = set()
        for name, get, may_be_absent in self._getters[kind]:
            column = list(map(get, rows))
            if may_be_absent and UnsetType in (types := set(map(type, column))):
                if len(types) > 1:
                    return None
                absent.add(name)
            else:
                columns[name] = column
        plan = self.plan(kind, frozenset(absent))
        return Alike(self, plan, columns) if plan.single else None

    @property
    def apart(self) -> bool:
        """Whether rows of different keys may be written beside each other, in transactions of their own.

        A policy or a domain may call a function that looks at rows which another transaction has not committed yet.
        """
        shape = self.shape
        seen = shape.looks or not all(real.exact for real in shape.types.values())
        comparable = ONE_SPELLING.issuperset(self._key_types.values())
        return shape.order is Order.FREE and self._plain and comparable and not seen

    def keys_apart(self, entries: Sequence[Entry]) -> list[Hashable] | None:
        """The keys of rows of a table that is `apart`; None where one is of another type than declared."""
        if any([entry.same_item for entry in entries]):  # noqa: C419 - twice as quick
            return None
        rows = [entry.row for entry in entries]
        for name, kind in self._key_types.items():
            if set(map(type, map(attrgetter(name), rows))) != {kind}:
                return None
        return list(map(self.identity, rows))

    def plan(self, kind: type[Row], absent: frozenset[str] = NOTHING, *, only_new: bool = False) -> Plan:
        """How rows of a class that lack these columns are written."""
        plan = self._plans.get((kind, absent, only_new))
        if plan is None:
            columns = [column for column in kind.__table__.columns if column.name not in absent]
            plan = self._plans[kind, absent, only_new] = Plan(self.table, self.shape, columns, only_new=only_new)
        return plan

    def plans_of(self, entries: Sequence[Entry]) -> list[Plan]:
        """The plan of each row."""
        plans = []
        usual = self.plan(self.rows[0])
        for entry in entries:
            row = entry.row
            kind = type(row)
            names, get = self._optional[kind]
            absent = NOTHING
            if names and UNSET in get(row):
                absent = frozenset(name for name, value in zip(names, get(row), strict=False) if value is UNSET)
            if absent or entry.only_new or kind is not self.rows[0]:
                plans.append(self.plan(kind, absent, only_new=entry.only_new))
            else:
                plans.append(usual)
        return plans


class Staged:
    """The rows of a block that go to one table, with all that decides which of them may share a statement."""

    def __init__(self, table: OneTable, places: Sequence[int], entries: Sequence[Entry], fresh: Fresh) -> None:
        self.table = table
        self.places = places
        self.entries = entries
        self.plans = table.plans_of(entries)
        self.keys = [table.identity(entry.row) for entry in entries]
        self.order = table.shape.order
        self.joins: list[bool] = []
        self.parents: list[list[Any]] = []
        if self.order is Order.ORDERED and len(entries) > 1:
            self.joins = self._joins(fresh)
            self.parents = self._parents()

    def segments(self, chosen: Sequence[int]) -> list[Segment]:
        """In which statements these rows go (numbers within this table's), so that they end as if each had its own."""
        if self.order is Order.STRANGE or len(chosen) == 1:
            return [self._segment(self.plans[n], [n]) for n in chosen]
        if self.order is Order.FREE:
            return self._rounds(chosen)
        return self._runs(chosen)

    def runs(self) -> list[int]:
        """How many consecutive rows may share a statement, in the order given; all are of one plan."""
        if self.order is Order.STRANGE or len(self.entries) == 1:
            return [1] * len(self.entries)
        if self.order is Order.FREE:
            self.joins, self.parents = [True] * len(self.entries), [[]] * len(self.entries)
        return [len(segment.places) for segment in self._runs(range(len(self.entries)))]

    def _segment(self, plan: Plan, chosen: Sequence[int]) -> Segment:
        return Segment(self.table, plan, [self.places[n] for n in chosen], [self.keys[n] for n in chosen])

    def _rounds(self, chosen: Sequence[int]) -> list[Segment]:
        """The n-th row of a key goes into the n-th round; within a round the order is that of the keys (deadlocks)."""
        keys, plans = self.keys, self.plans
        if len({keys[n] for n in chosen}) == len(chosen) and len({plans[n] for n in chosen}) == 1:
            return [self._segment(plans[chosen[0]], sorted(chosen, key=keys.__getitem__))]
        rounds: dict[tuple[int, Plan], list[int]] = {}
        nth: dict[Any, int] = {}
        for n in chosen:
            number = nth[keys[n]] = nth.get(keys[n], -1) + 1
            rounds.setdefault((number, plans[n]), []).append(n)
        return [
            self._segment(plan, sorted(alike, key=keys.__getitem__))
            for (_, plan), alike in sorted(rounds.items(), key=lambda item: item[0][0])
        ]

    def _runs(self, chosen: Sequence[int]) -> list[Segment]:
        """Consecutive rows of distinct keys that one statement writes; cut before one that an earlier row refers to."""
        runs: list[list[int]] = []
        taken: set[Any] = set()
        referred: set[Any] = set()
        for n in chosen:
            key, last = self.keys[n], runs[-1][-1] if runs else n
            alike = runs and self.plans[last] is self.plans[n] and self.joins[n] and self.joins[last]
            if not alike or key in taken or key in referred:
                runs.append([])
                taken, referred = set(), set()
            runs[-1].append(n)
            taken.add(key)
            referred.update(self.parents[n])
        return [self._segment(self.plans[run[0]], run) for run in runs]

    def _joins(self, fresh: Fresh) -> list[bool]:
        """Whether each row may share a statement: one writes it, or its key is new to table and block."""
        joins = [plan.single for plan in self.plans]
        if all(joins):
            return joins
        new = fresh(self.plans[0], self.entries)
        first = {key: n for n, key in reversed(list(enumerate(self.keys)))}  # or the block itself makes it
        return [single or (new[n] and first[self.keys[n]] == n) for n, single in enumerate(joins)]

    def _parents(self) -> list[list[Any]]:
        """The keys that each row refers to, of a table with a foreign key to itself; UNSET refers to nobody."""
        columns = self.table.shape.parents
        if not columns:
            return [[]] * len(self.entries)
        return [[_refers(entry.row, each) for each in columns] for entry in self.entries]


class Together(Enum):
    """How the tables of a writer stand to each other."""

    APART = "apart"
    LINKED = "linked"
    STRANGE = "strange"


class Tables:
    """All tables of a writer, the referred-to before those that refer to them."""

    def __init__(self, rows: Sequence[type[Row]]) -> None:
        classes: dict[str, list[type[Row]]] = {}
        for row in rows:
            classes.setdefault(row.__table__.name, []).append(row)
        self.declared = [OneTable(each) for each in classes.values()]
        self.ranked = self.declared
        self.together = Together.APART
        self._of = {row: table for table in self.declared for row in table.rows}
        self._links: dict[OneTable, list[tuple[OneTable, tuple[str, ...]]]] = {}

    def of(self, entry: Entry) -> OneTable:
        """The table that a row goes to."""
        return self._of[type(entry.row)]

    def touched(self, entries: Sequence[Entry]) -> set[OneTable]:
        """The tables that these rows go to."""
        return {self.of(entry) for entry in entries} if len(self.declared) > 1 else set(self.declared)

    def alike(self, entries: Sequence[Entry]) -> Alike | None:
        """These rows as one, where one statement may write them; None where there is more to think of."""
        return self.declared[0].alike(entries) if len(self.declared) == 1 and entries else None

    @property
    def apart(self) -> bool:
        """Whether rows of different keys may be written beside each other; see `OneTable.apart`."""
        return len(self.declared) == 1 and self.declared[0].apart

    def identities(self, entries: Sequence[Entry]) -> Sequence[Hashable]:
        """The table and key of each row."""
        if len(self.declared) == 1:
            identity = self.declared[0].identity
            return [identity(entry.row) for entry in entries]
        return [(id(table), table.identity(entry.row)) for entry in entries for table in (self.of(entry),)]

    def found(self, shapes: Sequence[Shape]) -> None:
        """Take what the real tables are like now, in the order declared."""
        for table, shape in zip(self.declared, shapes, strict=True):
            table.found(shape)
        self.together, self.ranked, self._links = Together.APART, self.declared, {}
        if len(self.declared) == 1:
            return
        links = [
            (table, other, link)
            for table in self.declared
            for link in table.shape.links
            for other in self.declared
            if other is not table and link.target in other.shape.relations
        ]
        self.ranked, acyclic = _ranked(self.declared, [(table, other) for table, other, _ in links])
        comparable = all(_comparable(table, other, link) for table, other, link in links)
        if any(table.shape.looks for table in self.declared) or not (acyclic and comparable):
            self.together = Together.STRANGE
        elif links:
            self.together = Together.LINKED
            strange = any(table.shape.order is Order.STRANGE for pair in links for table in pair[:2])
            self.together = Together.STRANGE if strange else self.together
            for table, other, link in links:
                columns = dict(zip(link.others, link.columns, strict=True))
                self._links.setdefault(table, []).append((other, tuple(columns[name] for name in other.table.key)))

    def segments(self, items: Sequence[Sequence[Entry]], fresh: Fresh) -> list[Segment]:
        """In which statements the rows of these items go. Raises `Unfit` where keys can't be compared."""
        entries = [entry for item in items for entry in item]
        try:
            if len(self.declared) == 1:
                return Staged(self.declared[0], range(len(entries)), entries, fresh).segments(range(len(entries)))
            return self._segments(items, entries, fresh)
        except TypeError:  # a key of the wrong kind can't be compared with the others
            raise Unfit(self.declared[0].table.key[0]) from None

    def _segments(self, items: Sequence[Sequence[Entry]], entries: list[Entry], fresh: Fresh) -> list[Segment]:
        order = list(self._in_order(items))
        staged: dict[OneTable, Staged] = {}
        number: dict[int, int] = {}
        for table in self.ranked:
            places = [place for place in order if self.of(entries[place]) is table]
            number |= {place: n for n, place in enumerate(places)}
            staged[table] = Staged(table, places, [entries[place] for place in places], fresh)
        segments = []
        for phase in self._phases(entries, order):
            for table in self.ranked:
                chosen = [number[place] for place in phase if self.of(entries[place]) is table]
                if chosen:
                    segments += staged[table].segments(chosen)
        return segments

    def _in_order(self, items: Sequence[Sequence[Entry]]) -> Iterator[int]:
        """Places of the rows in the order in which they would be written one item after the other."""
        begin = 0
        for item in items:
            for table in self.ranked:
                for at, entry in enumerate(item, begin):
                    if self.of(entry) is table:
                        yield at
            begin += len(item)

    def _phases(self, entries: Sequence[Entry], order: list[int]) -> list[list[int]]:
        """Runs of rows within which the order between tables does not matter."""
        if self.together is Together.APART:
            return [order]
        if self.together is Together.STRANGE:
            return [[place] for place in order]
        phases: list[list[int]] = []
        taken: set[Any] = set()
        referred: set[Any] = set()
        everything: set[OneTable] = set()
        for place in order:
            table, row = self.of(entries[place]), entries[place].row
            key = (table, table.identity(row))
            if not phases or (key not in taken and (key in referred or table in everything)):
                phases.append([])
                taken, referred, everything = set(), set(), set()
            phases[-1].append(place)
            taken.add(key)
            for other, columns in self._links.get(table, ()):
                values = _refers(row, columns)
                if values is UNSET or (isinstance(values, tuple) and UNSET in values):
                    everything.add(other)  # what is stored, or a default: it may refer to any key
                referred.add((other, values))
        return phases


def _refers(row: Row, columns: Sequence[str]) -> Any:
    values = tuple(getattr(row, column, UNSET) for column in columns)
    return values if len(values) > 1 else values[0]


def _ranked(tables: list[OneTable], links: list[tuple[OneTable, OneTable]]) -> tuple[list[OneTable], bool]:
    """Referred-to tables first, else as declared; whether that is possible."""
    left, ranked = list(tables), []
    while left:
        waiting = {table for table, other in links if other in left}
        ready = next((table for table in left if table not in waiting), None)
        if ready is None:
            return list(tables), False
        left.remove(ready)
        ranked.append(ready)
    return ranked, True


def _comparable(table: OneTable, other: OneTable, link: Link) -> bool:
    """Whether a foreign key refers to the other's whole key, by values that are equal here where they are there."""
    own = {column.name: column.type for row in table.rows for column in row.__table__.columns}
    theirs = {column.name: column.type for column in other.table.columns}
    types = table.shape.types
    return (
        set(link.others) == set(other.table.key)
        and plain_identity(other.table, other.shape.types)
        and all(
            column in own
            and own[column] == theirs[name]
            and exact_key(own[column], types[column])
            and not types[column].modified
            and exact_key(theirs[name], other.shape.types[name])
            for column, name in zip(link.columns, link.others, strict=True)
        )
    )


def _optional(row: type[Row]) -> tuple[tuple[str, ...], Callable[[Row], Any]]:
    """Fields that may be absent, and how to get them all as a tuple."""
    names = tuple(column.name for column in row.__table__.columns if _may_be_absent(column))
    return names, attrgetter(*(names * 2 if len(names) == 1 else names or ("__class__", "__class__")))


def _getters(row: type[Row]) -> list[tuple[str, Callable[[Row], Any], bool]]:
    """Of each column its name, how to get it, and whether it may be absent."""
    return [(column.name, attrgetter(column.name), _may_be_absent(column)) for column in row.__table__.columns]


def _may_be_absent(column: Column) -> bool:
    return column.nullable and column.default is msgspec.NODEFAULT
