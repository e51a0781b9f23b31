"""Find the refused items of a block, while all others are written, and tell the record's fault from the deployment's.

`Isolation` calls `writers.isolation.isolate_refused` with the ways that Postgres has. `ViolationFinder` asks the
database which rows break rules that the catalogue tells. `Subtransactions` tries rows within the server. Halving takes
what these leave over. At last `Probe` decides whose fault the refusals are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import psycopg

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.writers import Entry, Refusal, RowOutcome, RowResult
from lovelace_streams.writers.isolation import Refused, isolate_refused
from lovelace_streams.writers.postgres import subtransactions
from lovelace_streams.writers.postgres.catalog import RowOrder
from lovelace_streams.writers.postgres.connection import PostgresConnection
from lovelace_streams.writers.postgres.faults import (
    DEPENDS_ON_OTHER_ROWS,
    ENCODE_ERROR,
    FOREIGN_KEY_VIOLATION,
    NO_SUBTRANSACTIONS,
    NUMBER_OUT_OF_RANGE,
    QUERYABLE,
    TOLERATED_IN_SUBTRANSACTIONS,
    fault_of,
    not_encodable,
    refused_by,
)
from lovelace_streams.writers.postgres.grouping import TableRows, Tables, TargetTable, UniformRows
from lovelace_streams.writers.postgres.input_check import InputCheck
from lovelace_streams.writers.postgres.sql import EncodeError, Plan
from lovelace_streams.writers.postgres.transaction import Transactions, UnexplainedCount
from lovelace_streams.writers.postgres.trip import Query

PRECHECKED_BLOCKS = 16
"""After a block with rule violations, the next 16 blocks are checked against the rules before they are written."""
SUBTRANSACTION_ROWS = 4096
"""After a refusal that only a subtransaction found, the next 4,096 rows go through subtransactions at once."""

Item = Sequence[Entry]
ItemOutcome = list[RowOutcome] | Refused
"""The outcome of each of an item's rows, or why all of them were refused."""


class Attempt(Protocol):
    """Writes all items in one transaction, or none of them."""

    def __call__(self, items: Sequence[Item], *, commit: bool = True) -> list[list[RowOutcome]] | Refused: ...


class Isolation:
    """Writes items as far as each can be written."""

    def __init__(
        self,
        tables: Tables,
        connection: PostgresConnection,
        transactions: Transactions,
        attempt: Attempt,
        *,
        one_by_one: bool,
    ) -> None:
        self.violations = ViolationFinder(tables, transactions)
        self.subtransactions = Subtransactions(tables, transactions)
        self.input_check = InputCheck(tables, transactions)
        self.probe = Probe(tables, connection, transactions, attempt)
        self._attempt = attempt
        self._one_by_one = one_by_one

    @property
    def expects_refusals(self) -> bool:
        """Whether recent blocks held rows that were refused: then a block is checked before it is written."""
        return self.violations.prechecks

    def write(self, items: Sequence[Item], refused: Refused | None = None) -> list[ItemOutcome]:
        """Write the items; `refused` is the outcome of an attempt to write all of them, if there was one.

        Raises `DestinationFault` or `DeploymentFault`.
        """
        if self._one_by_one:
            outcomes = [isolate_refused([item], self._attempt)[0] for item in items]
        else:
            outcomes = isolate_refused(
                items,
                self._attempt,
                self.violations.find_violations,
                write_singly=self.subtransactions.try_in_subtransactions,
                refused=refused or self.subtransactions.expected_refusal(len(items)),
                single_items_max=subtransactions.CALL_ROWS,
            )
        return self._judged(items, outcomes)

    def _judged(self, items: Sequence[Item], outcomes: Sequence[ItemOutcome]) -> list[ItemOutcome]:
        """Return the outcomes, with values that their types refuse named as such; the others are judged by a probe."""
        judged = list(outcomes)
        suspects = [index for index, outcome in enumerate(outcomes) if _is_suspect(outcome)]
        for index, refusal in self.refused_values([items[index] for index in suspects]).items():
            judged[suspects[index]] = Refused(refusal)
        self.probe.judge(items, judged)
        return judged

    def refused_values(self, items: Sequence[Item]) -> dict[int, Refusal]:
        """Name items with a value that its column's type refuses though it takes others. Raises `DestinationFault`."""
        item_of = [index for index, item in enumerate(items) for _ in item]
        found = self.input_check.find([entry for item in items for entry in item])
        return {item_of[index]: refusal for index, refusal in sorted(found.items(), reverse=True)}


class ViolationFinder:
    """Asks the database which rows break rules that the catalogue tells: all of a rule's rows by one query."""

    def __init__(self, tables: Tables, transactions: Transactions) -> None:
        self._tables = tables
        self._transactions = transactions
        self._precheck_blocks_left = 0

    @property
    def prechecks(self) -> bool:
        """Whether the next block is checked against the rules before it is written."""
        return self._precheck_blocks_left > 0

    def find_violations(self, items: Sequence[Item], refused: Refused) -> Mapping[int, Refusal]:
        """Name items that would be refused alone as well, whatever is written before them.

        Only items of one row are checked: which of several rows is refused first depends on the rows that each meets.
        """
        single = [index for index, item in enumerate(items) if len(item) == 1]
        named: dict[int, Refusal] = {}
        for table in self._tables.tables_of([items[index][0] for index in single]):
            indexes = [index for index in single if self._tables.table_of(items[index][0]) is table]
            found = self._find_in_table(table, [items[index][0] for index in indexes], refused.refusal.code)
            named |= {indexes[n]: refusal for n, refusal in found.items()}
        return named

    def _find_in_table(self, table: TargetTable, entries: Sequence[Entry], code: str) -> dict[int, Refusal]:
        """Name the rows of one table that break rules of the kind that `code` says was broken."""
        if code in (ENCODE_ERROR, NUMBER_OUT_OF_RANGE):
            return _not_encodable(table, entries)
        schema, references = table.schema, code == FOREIGN_KEY_VIOLATION
        # else the row that is referred to may be in the block itself
        parents_are_stored = schema.row_order is RowOrder.ANY and len(self._tables.declared) == 1
        if not schema.rules_see_row_only or code not in QUERYABLE or (references and not parents_are_stored):
            return {}
        rules, named = schema.rules, dict[int, Refusal]()
        for plan, indexes in _checkable(table, entries, references=references).items():
            rows = [entries[index].row for index in indexes]
            try:
                parameters = plan.encode(rows, None if references else plan.checked_columns)
            except EncodeError:  # rows that can't even be sent are refused first
                return {}
            query = plan.reference_violations if references else plan.violations
            for ordinal, rule in self._fetch(Query(query, parameters, prepare=True)):
                if references or plan.violation_is_certain(rows[ordinal - 1]):
                    named[indexes[ordinal - 1]] = rules[rule]
        if named and not references:
            self._precheck_blocks_left = PRECHECKED_BLOCKS
        return named

    def precheck(self, groups: Sequence[UniformRows]) -> dict[int, Refusal]:
        """Name the rows of a block that break a rule, by their indexes, while recent blocks held such rows.

        Then the query costs less than a refused block would, and COPY may still take the other rows.
        """
        rows, *others = groups
        plan, schema = rows.plan, rows.table.schema
        if not (self._precheck_blocks_left and plan.is_checkable and schema.rules_see_row_only) or others:
            return {}
        self._precheck_blocks_left -= 1
        try:
            _ = rows.encoded  # every value can be sent
            parameters = rows.literals(plan.checked_columns)
        except EncodeError:
            return {}
        rules = schema.rules
        found = {
            ordinal - 1: rules[rule] for ordinal, rule in self._fetch(Query(plan.violations, parameters, prepare=True))
        }
        named = {
            row: refusal
            for row, refusal in found.items()
            if plan.violation_of_encodable_is_certain(partial(rows.value, row=row))
        }
        if named:
            self._precheck_blocks_left = PRECHECKED_BLOCKS
        return named

    def _fetch(self, query: Query) -> list[tuple[int, int]]:
        """Fetch ordinal and rule of the rows that break one; none if the server can't evaluate an expression."""
        try:
            return self._transactions.fetch(query)
        except psycopg.Error as error:
            self._transactions.undo(self._transactions.driver, error)
            return []


def _checkable(table: TargetTable, entries: Sequence[Entry], *, references: bool) -> dict[Plan, list[int]]:
    """Return the indexes of rows that a query can check, by plan.

    Postgres tests a foreign key only of a row that it writes, so a row that another one may supersede is left out.
    """
    indexes: dict[Plan, list[int]] = {}
    plans = table.plans_of(entries)
    if not references:
        for index, plan in enumerate(plans):
            if plan.is_checkable:
                indexes.setdefault(plan, []).append(index)
        return indexes
    keys = [table.identity(entry.row) for entry in entries]
    rows_of_key = Counter(keys)
    for index, (key, plan) in enumerate(zip(keys, plans, strict=True)):
        if plan.whole and not plan.only_new and (table.table.version is None or rows_of_key[key] == 1):
            indexes.setdefault(plan, []).append(index)
    return indexes


def _not_encodable(table: TargetTable, entries: Sequence[Entry]) -> dict[int, Refusal]:
    """Name the rows with a value that can't be sent."""
    named = {}
    for index, (entry, plan) in enumerate(zip(entries, table.plans_of(entries), strict=True)):
        try:
            plan.encode([entry.row])
        except EncodeError as error:
            named[index] = not_encodable(error.column, error.code)
    return named


class Subtransactions:
    """Tries rows within the server, as if one by one, if the server has PL/pgSQL and lets us use it."""

    def __init__(self, tables: Tables, transactions: Transactions) -> None:
        self._tables = tables
        self._transactions = transactions
        self.are_available = True
        self._last_refusal: Refused | None = None
        self._rows_left = 0

    def expected_refusal(self, items: int) -> Refused | None:
        """Return the likely outcome of an attempt to write these items whole; None if it may succeed.

        While recent rows were refused here, the attempt would only cost time.
        """
        if self._rows_left <= 0 or not self.are_available:
            return None
        self._rows_left -= items
        return self._last_refusal

    def try_in_subtransactions(self, items: Sequence[Item]) -> list[ItemOutcome]:
        """Write rows of one plan as if one by one; return the outcomes of those that the call came to.

        It returns none if the rows have several plans, or the server has no subtransactions for us.
        """
        entries = [entry for item in items for entry in item]
        if not self.are_available or len(entries) > len(items) or len(self._tables.tables_of(entries)) > 1:
            return []
        table = self._tables.table_of(entries[0])
        [*plans] = set(table.plans_of(entries))
        if len(plans) > 1:
            return []
        try:
            outcomes = self._call(table, plans[0], entries)
        except (EncodeError, TypeError):  # a value that can't be sent, or a key of the wrong type
            return []
        except psycopg.Error as error:
            self._transactions.undo(self._transactions.driver, error)  # raises if it is the destination's fault
            self.are_available = self.are_available and error.sqlstate not in NO_SUBTRANSACTIONS
            return []
        if not table.schema.may_suppress and any(outcome.is_suppressed for outcome in outcomes):
            raise UnexplainedCount(self._transactions.destination)
        results = list(map(_item_outcome, outcomes))
        self._note_refusal(results)
        return results

    def _call(self, table: TargetTable, plan: Plan, entries: Sequence[Entry]) -> list[subtransactions.Outcome]:
        """Run the script over these rows. Raises `EncodeError`, `TypeError` or `psycopg.Error`."""
        columns = plan.encode([entry.row for entry in entries])
        runs = TableRows(table, range(len(entries)), entries, self._transactions.keys_are_new).run_lengths()
        script = plan.subtransaction_script(TOLERATED_IN_SUBTRANSACTIONS, sorted(DEPENDS_ON_OTHER_ROWS))
        [(text,)] = self._transactions.fetch(
            Query(subtransactions.set_parameters(len(columns)), [*columns, subtransactions.run_ends(runs)]),
            Query(script),
            Query(subtransactions.FETCH_OUTCOMES),
        )
        return subtransactions.OUTCOMES_DECODER.decode(text)

    def _note_refusal(self, results: Sequence[ItemOutcome]) -> None:
        refusal = next((result for result in results if isinstance(result, Refused)), None)
        if refusal is not None:
            self._last_refusal, self._rows_left = refusal, SUBTRANSACTION_ROWS


def _item_outcome(outcome: subtransactions.Outcome) -> ItemOutcome:
    if outcome.code:
        return refused_by(outcome.code, outcome.rule)
    if outcome.is_suppressed:
        return [RowOutcome.SUPPRESSED]
    return [RowOutcome.SUPERSEDED if outcome.held_off else RowOutcome.WRITTEN]


class Probe:
    """Tries rows again that were written before: if one is still accepted, the deployment is sound."""

    def __init__(
        self, tables: Tables, connection: PostgresConnection, transactions: Transactions, attempt: Attempt
    ) -> None:
        self._tables = tables
        self._connection = connection
        self._transactions = transactions
        self._attempt = attempt
        self._last_tried: set[TargetTable] = set(tables.declared)
        self._last_written: dict[TargetTable, Item] = {}

    def note_tried(self, block: Sequence[Entry]) -> None:
        """Remember which tables the last block goes to."""
        self._last_tried = self._tables.tables_of(block) or self._last_tried

    def remember_written(self, items: Sequence[Item], outcomes: Sequence[ItemOutcome]) -> None:
        """Remember items that were written, one of each table that was tried last."""
        for item, outcome in zip(items, outcomes, strict=True):
            if not isinstance(outcome, Refused) and RowOutcome.WRITTEN in outcome:
                self._remember_written(item)
                if self._last_written.keys() >= self._last_tried:
                    break

    def remember_written_row(self, block: Sequence[Entry], results: Sequence[RowResult]) -> None:
        """Remember a row that was written, of a block whose items are single rows."""
        if RowOutcome.WRITTEN in results:
            index = results.index(RowOutcome.WRITTEN)
            self._remember_written(block[index : index + 1])  # of a block of columns no row is made before it is tried

    def _remember_written(self, item: Item) -> None:
        self._last_written |= dict.fromkeys(self._tables.tables_of(item), item)

    def accepts(self, others: Sequence[Item]) -> bool | None:
        """Whether each table that was tried last accepts a row now; None if there is no row to try.

        A table is tried with the row that was last written to it, or with the first of the others that go to it.
        Another table that accepts rows proves nothing. Raises `DestinationFault`.
        """
        return self._all_accept(self._last_tried, others)

    def _all_accept(self, tables: Iterable[TargetTable], others: Sequence[Item] = ()) -> bool | None:
        for table in tables:
            likely = [item for item in others if table in self._tables.tables_of(item)][:2]
            candidates = [*([self._last_written[table]] if table in self._last_written else []), *likely]
            if not candidates:
                return None
            if not any(map(self._accepts, candidates)):
                return False
        return True

    def _accepts(self, item: Item) -> bool:
        try:
            return not isinstance(self._attempt([item], commit=False), Refused)
        except DeploymentFault:
            return False

    def judge(self, items: Sequence[Item], outcomes: Sequence[ItemOutcome]) -> None:
        """Raise the fault of a refusal that is not the record's: `DeploymentFault` or `DestinationFault`.

        A statement that the server does not even plan is the deployment's fault, whatever else was written. Else a code
        that may be the deployment's, or that is not listed, is the record's if the same tables accepted another item of
        the block, or accept a probe. If they do not, an unlisted code is the destination's; without an item to probe
        with it is nobody's yet (`unproven`).
        """
        suspects = [
            (item, outcome.refusal.code)
            for item, outcome in zip(items, outcomes, strict=True)
            if isinstance(outcome, Refused) and _is_suspect(outcome)
        ]
        if not suspects:
            return
        self._explain(suspects)
        accepted = [item for item, outcome in zip(items, outcomes, strict=True) if not isinstance(outcome, Refused)]
        sound = {table for item in accepted for table in self._tables.tables_of(item)}
        for item, code in suspects:
            doubtful = self._tables.tables_of(item) - sound
            if doubtful and not (accepts := self._all_accept(doubtful)):
                raise self._fault(code, proven=accepts is not None)
            sound |= doubtful

    def _fault(self, code: str, *, proven: bool) -> DeploymentFault | DestinationFault:
        if fault_of(code) == "deployment":
            return self._connection.deployment_fault(code)
        return DestinationFault(
            code, f"from {self._connection.settings.name}, a code that is not listed", unproven=not proven
        )

    def _explain(self, suspects: Sequence[tuple[Item, str]]) -> None:
        """Let the server plan the statements of refused rows. Raises `DeploymentFault` if it refuses one."""
        entries = [entry for item, _ in suspects for entry in item]
        for table in self._tables.tables_of(entries):
            for plan in set(table.plans_of([entry for entry in entries if self._tables.table_of(entry) is table])):
                queries = [Query(b"explain " + statement, ["{}"] * len(plan.names)) for statement in plan.statements]
                try:
                    self._transactions.fetch(*queries)
                except psycopg.Error as error:
                    code = self._transactions.roll_back(self._transactions.driver, error)
                    if fault_of(code) == "deployment":
                        raise self._connection.deployment_fault(code) from None


def _is_suspect(outcome: ItemOutcome) -> bool:
    """Whether a refusal may be another's fault than the record's."""
    return isinstance(outcome, Refused) and outcome.suspect
