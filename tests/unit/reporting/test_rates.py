"""A rate over a window of absolute counts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.reporting.rates import SAMPLES_A_WINDOW, Rate

STEPS = st.lists(
    st.tuples(st.floats(0.001, 2) | st.floats(0.001, 500), st.integers(0, 10_000)), min_size=1, max_size=300
)
"""Seconds since the sample before, items since then."""


def counted(steps: list[tuple[float, int]], start: float = 1_000.0) -> list[tuple[float, int]]:
    """Samples: the time, and what was done by then."""
    ats = itertools.accumulate((seconds for seconds, _ in steps), initial=start)
    dones = itertools.accumulate((items for _, items in steps), initial=0)
    return list(zip(ats, dones, strict=True))


def rate_of(samples: list[tuple[float, int]], window: float = 60.0) -> Rate:
    rate = Rate(window)
    for at, done in samples:
        rate.add(at, done)
    return rate


def test_nothing_is_known_before_two_samples_are_apart() -> None:
    rate = Rate()
    assert (rate.per_second(5.0), rate.seconds_left(5.0, 10)) == (None, None)

    rate.add(5.0, 4)
    assert (rate.per_second(5.0), rate.seconds_left(5.0, 10)) == (None, None)

    rate.add(5.0, 8)  # a clock that stands still
    assert rate.per_second(5.0) is None


def test_what_was_done_before_the_first_sample_says_nothing_of_the_pace() -> None:
    assert rate_of([(0.0, 1_000_000), (10.0, 1_000_100)]).per_second(10.0) == 10.0


def test_a_total_that_is_reached_leaves_no_time_and_one_that_is_unknown_no_answer() -> None:
    rate = rate_of([(0.0, 0), (10.0, 100)])

    assert rate.seconds_left(10.0, 300) == 20.0
    assert rate.seconds_left(10.0, 100) == 0.0
    assert rate.seconds_left(10.0, 90) == 0.0
    assert rate.seconds_left(10.0, None) is None


def test_what_has_stopped_has_no_rate_and_no_end() -> None:
    rate = rate_of([(0.0, 0), (10.0, 100)])

    assert rate.per_second(40.0) == 2.5
    assert rate.per_second(70.0) == 0.0
    assert rate.seconds_left(70.0, 300) is None


def test_what_begins_again_is_measured_anew() -> None:
    rate = rate_of([(0.0, 0), (10.0, 1000), (11.0, 0), (21.0, 10)])

    assert (rate.done, rate.per_second(21.0)) == (10, 1.0)


def test_a_clock_that_goes_back_does_no_harm() -> None:
    assert rate_of([(10.0, 0), (20.0, 100), (15.0, 110)]).per_second(20.0) == 11.0


@given(gaps=st.lists(st.floats(0.001, 500), min_size=1, max_size=300), pace=st.integers(1, 10_000))
def test_an_even_pace_is_told_exactly_however_it_is_sampled(gaps: list[float], pace: int) -> None:
    samples = [(second, round(second * pace)) for second in itertools.accumulate(gaps)]
    rate = rate_of([(0.0, 0), *samples])
    now = samples[-1][0]

    assert rate.per_second(now) == pytest.approx(pace, abs=2 / min(now, 60.0))  # counts are whole: half an item an end


@given(steps=STEPS)
def test_a_rate_lies_between_the_slowest_and_the_fastest_stretch(steps: list[tuple[float, int]]) -> None:
    samples = counted(steps)
    rate = rate_of(samples).per_second(samples[-1][0])
    paces = [items / seconds for seconds, items in steps]

    assert rate is not None
    assert min(paces) * 0.999 - 1e-6 <= rate <= max(paces) * 1.001 + 1e-6


@given(steps=STEPS, rest=st.integers(1, 10**9))
def test_what_is_left_takes_as_long_as_the_rate_says(steps: list[tuple[float, int]], rest: int) -> None:
    samples = counted(steps)
    now, done = samples[-1]
    rate = rate_of(samples)
    seconds = rate.seconds_left(now, done + rest)

    if seconds is None:
        assert not rate.per_second(now)
    else:
        assert seconds * (rate.per_second(now) or 0.0) == pytest.approx(rest)


@given(steps=STEPS)
def test_a_sample_that_comes_twice_changes_nothing(steps: list[tuple[float, int]]) -> None:
    samples = counted(steps)
    now = samples[-1][0] + 1.0
    twice = [sample for sample in samples for _ in range(2)]

    assert rate_of(twice).per_second(now) == pytest.approx(rate_of(samples).per_second(now), rel=1e-3, abs=1e-6)


@given(steps=STEPS)
def test_few_samples_are_kept(steps: list[tuple[float, int]]) -> None:
    assert len(rate_of(counted(steps))._samples) <= 2 * SAMPLES_A_WINDOW + 2
