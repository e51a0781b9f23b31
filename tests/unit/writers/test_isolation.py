"""Isolation finds exactly the refused items, writes the others in order, and costs what its docstring says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.writers import Refusal
from lovelace_streams.writers.isolation import Refused, isolate_refused

NO = Refused(Refusal(Reason.CHECK, "23514"))


class Table:
    """Accepts a run without bad items; remembers which runs it was given and what it wrote."""

    def __init__(self, bad=(), outcome=NO):
        self.bad = set(bad)
        self.outcome = outcome
        self.written = []
        self.asked = []

    def attempt(self, run):
        self.asked.append(list(run))
        if self.bad & set(run):
            return self.outcome
        self.written += run
        return [item * 10 for item in run]


@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0))))))
def test_every_good_item_is_written_in_order_and_every_bad_one_is_named(case):
    count, bad = case
    table = Table(bad)
    results = isolate_refused(range(count), table.attempt)

    assert table.written == [item for item in range(count) if item not in bad]
    assert results == [NO if item in bad else item * 10 for item in range(count)]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_a_verdict_that_depends_on_earlier_items_is_that_of_writing_singly(shy, keys):
    """Item n is refused unless all of `keys` below n are written; shy items are always refused."""

    def attempts(stored):
        def attempt(run):
            now = set(stored)
            for item in run:
                if item in shy or any(key < item and key not in now for key in keys):
                    return NO
                now.add(item)
            stored.update(run)
            return list(run)

        return attempt

    together, singly = set(), set()
    results = isolate_refused(range(10), attempts(together))
    one_by_one = [isolate_refused([item], attempts(singly))[0] for item in range(10)]

    assert results == one_by_one
    assert together == singly


@given(st.integers(1, 60), st.integers(1, 60))
def test_items_that_are_too_many_are_cut_until_they_fit(count, most):
    written, attempts = [], []

    def attempt(run):
        attempts.append(len(run))
        if len(run) > most:
            return Refused(Refusal(Reason.REFUSED, "252"), limit=True)
        written.extend(run)
        return list(run)

    assert isolate_refused(range(count), attempt, lambda *_: pytest.fail("a limit names no item")) == written
    assert written == list(range(count))
    assert len(attempts) <= 4 * count // most + 1


@pytest.mark.parametrize("bad", [0, 1, 499, 500, 777, 999])
def test_one_bad_item_in_a_thousand_costs_about_two_attempts_a_halving(bad):
    table = Table([bad])
    isolate_refused(range(1000), table.attempt)

    assert len(table.asked) <= 2 * math.ceil(math.log2(1000)) + 1


def test_nothing_is_attempted_for_no_items():
    table = Table()

    assert isolate_refused([], table.attempt) == []
    assert table.asked == []


def test_a_verdict_that_depends_on_other_rows_is_believed_after_one_more_attempt():
    """A parent that another writer committed in between."""
    table = Table([3], Refused(Refusal(Reason.FOREIGN_KEY, "23503"), again=True))

    def attempt(run):
        outcome = table.attempt(run)
        if list(run) == [3]:
            table.bad.clear()
        return outcome

    assert isolate_refused(range(6), attempt) == [0, 10, 20, 30, 40, 50]


def test_a_fault_while_halving_is_raised_at_once():
    """The destination is down: the halves after it are not attempted."""
    table = Table([1])

    def attempt(run):
        if list(run) == [1]:
            raise DestinationFault("57P01")
        return table.attempt(run)

    with pytest.raises(DestinationFault):
        isolate_refused(range(8), attempt)
    assert table.written == [0]


def test_items_named_as_violations_are_refused_and_the_others_are_written_whole():
    table = Table([2, 5, 7])
    results = isolate_refused(
        range(100), table.attempt, lambda run, _: {run.index(item): NO.refusal for item in table.bad if item in run}
    )

    assert [item for item, result in enumerate(results) if result == NO] == [2, 5, 7]
    assert len(table.asked) == 2


def test_searches_for_violations_are_bounded_and_halving_takes_over():
    table = Table([7])
    named = []

    def find_violations(run, _):
        named.append(run[0])
        return {0: NO.refusal} if run[0] != 7 and len(named) < 100 else {}

    isolate_refused(range(20), table.attempt, find_violations, searches_max=3)
    assert len(named) == 3


def test_writing_singly_goes_on_where_it_stopped_and_halving_takes_over_when_it_can_not():
    """It writes twenty items, then ten, then it can't."""
    table = Table({3, 25, 77})
    sizes = []

    def write_singly(run):
        sizes.append(len(run))
        done = run[: 20 // len(sizes)]
        return [NO if item in table.bad else item * 10 for item in done] if len(sizes) < 3 else []

    results = isolate_refused(range(100), table.attempt, write_singly=write_singly, single_items_max=64)

    assert results == [NO if item in table.bad else item * 10 for item in range(100)]
    assert sizes[:3] == [64, 25, 12]
    assert table.written == [item for item in range(30, 100) if item != 77]
