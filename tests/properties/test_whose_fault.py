"""Law 5 as a simulator: an outage gives no dead letter, a bad record stops nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.dead_letters.fail_fast import FailFast
from lovelace_streams.delivery.retry import BlockRetry, may_be_one_rows_fault
from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.writers import Entry, Refusal, RowOutcome

OUTAGES = ["57014", "53200", "XX000", "08006", "timeout", "53100", "53300", "25006", "55P03", "57P01", "57P03", "40001"]
HARMS = ["57014", "53200", "XX000", "08006", "timeout"]


class Destination:
    """A table that is away during some calls, refuses some rows, and is harmed by others; time is its calls."""

    def __init__(self, outage: range, code: str, harming: dict[int, str], refused: set[int], known_good: bool) -> None:
        self.calls = 0
        self.outage = outage
        self.code = code
        self.harming = harming
        self.refused = refused
        self.written: set[int] = set()
        self.known_good = known_good
        self.patience_left = 300

    @property
    def away(self) -> bool:
        return self.calls in self.outage

    def write(self, block):
        self.calls += 1
        if self.away:
            raise DestinationFault(self.code)
        for entry in block:
            if entry.row in self.harming:
                raise DestinationFault(self.harming[entry.row])
        self.written |= {entry.row for entry in block} - self.refused
        self.known_good = self.known_good or bool(block)
        return [Refusal(Reason.CHECK, "23514") if e.row in self.refused else RowOutcome.WRITTEN for e in block]

    def probe(self, others):
        self.calls += 1
        if self.away:
            return False
        if any(entry.row not in self.harming for entry in others) or self.known_good:
            return True
        return None

    def wait(self, _seconds: float) -> bool:
        self.patience_left -= 1
        return self.patience_left > 0

    def patience(self) -> BlockRetry:
        return BlockRetry(self.write, self.probe, self.wait, Backoff(chance=lambda: 0.5))


blocks = st.integers(1, 12)


@given(
    size=blocks,
    start=st.integers(0, 40),
    length=st.integers(0, 60),
    code=st.sampled_from(OUTAGES),
    refused=st.sets(st.integers(0, 11)),
    harming=st.dictionaries(st.integers(0, 11), st.sampled_from(HARMS), max_size=3),
    known_good=st.booleans(),
)
def test_only_harming_rows_are_dead_lettered_whatever_the_outage(
    size, start, length, code, refused, harming, known_good
) -> None:
    destination = Destination(range(start, start + length), code, harming, refused, known_good)
    block = [Entry(n) for n in range(size)]

    results = destination.patience().write(block)

    innocent = [n for n in range(size) if n not in harming]
    if not innocent and not known_good:
        assert results is None, "with no neighbour that can be written nothing is known against a row"
        return
    assert results is not None, "a bad record stops nobody"
    for n, result in enumerate(results):
        if n in harming:
            assert result == Refusal(Reason.HARMS_DESTINATION, harming[n])
        elif n in refused:
            assert result == Refusal(Reason.CHECK, "23514")
        else:
            assert result is RowOutcome.WRITTEN
            assert n in destination.written


class Unlisted(Destination):
    """Refuses some rows with a code that is not listed: the record's where another row of the table was accepted."""

    def write(self, block):
        results = super().write([entry for entry in block if entry.row not in self.refused])
        suspects = [entry for entry in block if entry.row in self.refused]
        if suspects and not results and not self.known_good:
            raise DestinationFault("MY001", unproven=True)
        written = iter(results)
        return [Refusal(Reason.REFUSED, "MY001") if e.row in self.refused else next(written) for e in block]

    def probe(self, others):
        return super().probe([entry for entry in others if entry.row not in self.refused])


@given(
    size=blocks,
    start=st.integers(0, 40),
    length=st.integers(0, 20),
    code=st.sampled_from(OUTAGES),
    refused=st.sets(st.integers(0, 11)),
    known_good=st.booleans(),
    neighbour=st.booleans(),
)
def test_a_code_that_is_not_listed_is_the_records_only_if_another_row_passes(
    size, start, length, code, refused, known_good, neighbour
) -> None:
    destination = Unlisted(range(start, start + length), code, {}, refused, known_good)
    block = [Entry(n) for n in range(size)]
    retry = destination.patience()

    results = retry.write(block, [Entry(99)] if neighbour else [])

    if refused.issuperset(range(size)) and not known_good and not neighbour:
        assert results is None, "with no neighbour that can be written nothing is known against a row"
        return
    assert results is not None
    for n, result in enumerate(results):
        assert result == (Refusal(Reason.REFUSED, "MY001") if n in refused else RowOutcome.WRITTEN)
    assert destination.written == set(range(size)) - refused


@pytest.mark.parametrize("code", OUTAGES)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_an_outage_without_end_gives_no_verdict(code: str, size: int) -> None:
    destination = Destination(range(10**9), code, {}, set(), known_good=True)

    assert destination.patience().write([Entry(n) for n in range(size)]) is None


@pytest.mark.parametrize("code", [code for code in OUTAGES if not may_be_one_rows_fault(code)])
def test_codes_of_the_destination_alone_never_isolate(code: str) -> None:
    destination = Destination(range(0), "", {0: code}, set(), known_good=True)

    assert destination.patience().write([Entry(0), Entry(1)]) is None
    assert destination.written == set()


@given(begins=st.integers(0, 40), code=st.sampled_from(OUTAGES))
def test_an_outage_in_mid_halving_accuses_nobody(begins: int, code: str) -> None:
    destination = Destination(range(begins, 10**9), code, {3: "57014"}, set(), known_good=True)

    results = destination.patience().write([Entry(n) for n in range(8)])

    assert results is None or [r for n, r in enumerate(results) if isinstance(r, Refusal) and n != 3] == []


def test_deadlocks_are_tried_again_at_once_and_do_not_wait() -> None:
    destination = Destination(range(1, 4), "40P01", {}, set(), known_good=False)

    assert destination.patience().write([Entry(1)]) == [RowOutcome.WRITTEN]
    assert destination.patience_left == 300


# -- fail fast ---------------------------------------------------------------------------------------------------


def office(*accepted: str) -> FailFast[int]:
    return FailFast(frozenset({"upsert"}), frozenset(accepted))


def refuse(fail_fast: FailFast[int], n: int, step: str = "upsert", job: str | None = "j", cause=("check", "", "c")):
    return fail_fast.refused(n, step=step, cause=cause, message=n, job=job, items=1, size=10)


def test_a_thousand_refusals_in_a_row_trip_with_nothing_released() -> None:
    fail_fast = office()

    tripped = [refuse(fail_fast, n) for n in range(1000)]

    assert tripped[:-1] == [None] * 999
    assert tripped[-1] == ("upsert", "check", "", "c")
    assert fail_fast.take() == []


def test_an_item_that_passes_releases_what_was_refused_before_it() -> None:
    fail_fast = office()
    refuse(fail_fast, 1)

    assert fail_fast.take() == []
    fail_fast.passed("upsert")

    assert fail_fast.take() == [1]


def test_a_silent_topic_releases_the_last_letter() -> None:
    fail_fast = office()
    refuse(fail_fast, 1)

    fail_fast.release_all()

    assert fail_fast.take() == [1]


def test_one_job_that_decode_refuses_throughout_is_dead_lettered() -> None:
    fail_fast = office()

    assert [refuse(fail_fast, n, step="decode") for n in range(3000)] == [None] * 3000
    fail_fast.release_all()

    assert fail_fast.take() == list(range(3000))


def test_two_jobs_that_normalize_refuses_trip() -> None:
    fail_fast = office()

    assert any(refuse(fail_fast, n, step="normalize", job=f"job{n % 2}") for n in range(1000))


def test_one_chunk_of_a_thousand_does_not_trip() -> None:
    fail_fast = office()

    tripped = fail_fast.refused(
        1, step="upsert", cause=("foreign_key", "23503", "g"), message=1, job="j", items=1000, size=1
    )

    assert tripped is None


def test_accepted_refusals_are_dead_lettered() -> None:
    fail_fast = office("check")

    assert [refuse(fail_fast, n) for n in range(1001)] == [None] * 1001
    assert len(fail_fast.take()) == 1001


@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=6), data=st.data())
def test_an_item_of_several_rows_is_given_up_as_a_whole(sizes, data) -> None:
    harmful_item = data.draw(st.integers(0, len(sizes) - 1))
    block = [Entry(number, same_item=at > 0) for number, size in enumerate(sizes) for at in range(size)]
    destination = Destination(range(0), "", {harmful_item: "XX000"}, set(), known_good=True)
    calls = []
    write = destination.write
    destination.write = lambda part: calls.append(list(part)) or write(part)

    results = destination.patience().write(block)

    assert [isinstance(end, Refusal) for end in results] == [entry.row == harmful_item for entry in block]
    assert all(not part[0].same_item for part in calls), "an item was cut"


@given(size=blocks, harming=st.sets(st.integers(0, 11), max_size=4), stored=st.sets(st.integers(0, 11)))
def test_what_fails_each_time_and_is_stored_is_written(size: int, harming: set[int], stored: set[int]) -> None:
    """A timeout after the insert: the row is there, and what comes after it (a view) fails."""
    destination = Destination(range(0), "", dict.fromkeys(harming, "159"), set(), known_good=True)
    retry = BlockRetry(
        destination.write,
        destination.probe,
        destination.wait,
        Backoff(chance=lambda: 0.5),
        stored=lambda item: all(entry.row in stored for entry in item),
    )

    results = retry.write([Entry(n) for n in range(size)])

    assert results is not None
    for n, result in enumerate(results):
        is_lost = n in harming and n not in stored
        assert result == (Refusal(Reason.HARMS_DESTINATION, "159") if is_lost else RowOutcome.WRITTEN)
