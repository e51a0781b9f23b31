"""What of the jobs' states is published, and when: the highest version a job, and the final one always."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.records import JobState
from lovelace_streams.reporting.publisher import RETRY_SECONDS, JobProgress, Jobs

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def state(version: int, job: str = "june", status: str = "open", total: int | None = 1000) -> JobState:
    """Each version has one more item."""
    return JobState(job, 1, version, "discord", None, total, version, 0, 0, status)


def publish(jobs: Jobs, now: float, **options: bool) -> list[int]:
    """Publish what is due; the versions."""
    due = jobs.due(now, **options)
    for progress in due:
        jobs.delivered(progress, now)
    return [progress.version for progress in due]


def test_an_older_state_changes_nothing() -> None:
    jobs = Jobs()

    assert [progress.version for progress in jobs.hear([state(2), state(1), state(2)], 0.0, NOON)] == [2]
    assert publish(jobs, 0.0) == [2]


def test_one_message_a_job_in_an_interval_with_the_newest_state() -> None:
    jobs = Jobs(every=1.0)
    jobs.hear([state(1)], 0.0, NOON)
    assert publish(jobs, 0.0) == [1]

    jobs.hear([state(2)], 0.2, NOON)
    jobs.hear([state(3)], 0.4, NOON)

    assert publish(jobs, 0.9) == []
    assert publish(jobs, 1.0) == [3]
    assert publish(jobs, 9.0) == []  # nothing new


def test_a_final_state_does_not_wait_and_is_said_twice() -> None:
    jobs = Jobs(every=1.0)
    jobs.hear([state(1)], 0.0, NOON)
    publish(jobs, 0.0)
    [last] = jobs.hear([state(2, status="completed", total=2)], 0.1, NOON)

    assert (last.done, last.estimated_end) == (2, None)
    assert publish(jobs, 0.1) == [2]
    assert publish(jobs, 2.0) == []
    assert publish(jobs, 2.1) == [2]
    assert publish(jobs, 99.0) == []


def test_a_job_that_is_restarted_is_followed_again() -> None:
    jobs = Jobs()
    jobs.hear([state(5, status="completed")], 0.0, NOON)
    publish(jobs, 0.0)
    publish(jobs, 10.0)
    jobs.hear([JobState("june", 2, 6, "discord", None, 1000, 0, 0, 0, "open")], 20.0, NOON)

    assert publish(jobs, 20.0) == [6]


def test_what_was_refused_goes_again_later_in_its_newest_state() -> None:
    jobs = Jobs(every=1.0)
    jobs.hear([state(1)], 0.0, NOON)
    [first] = jobs.due(0.0)
    assert jobs.due(5.0) == []  # under way
    jobs.refused(first, 5.0)
    jobs.hear([state(2)], 5.1, NOON)

    assert jobs.unpublished
    assert publish(jobs, 5.2) == []
    assert publish(jobs, 5.0 + RETRY_SECONDS) == [2]
    assert not jobs.unpublished


def test_at_the_end_all_that_was_not_published_goes_at_once() -> None:
    jobs = Jobs(every=60.0)
    jobs.hear([state(1)], 0.0, NOON)
    publish(jobs, 0.0)
    jobs.hear([state(2)], 0.1, NOON)

    assert publish(jobs, 0.1, ending=True) == [2]
    assert publish(jobs, 0.1, ending=True) == []


def test_jobs_that_nobody_hears_of_make_room_those_that_are_published_first() -> None:
    jobs = Jobs(every=0.0, jobs_max=2)
    jobs.hear([state(1, "waits"), state(1, "told")], 0.0, NOON)
    told = next(progress for progress in jobs.due(0.0) if progress.job_id == "told")
    jobs.delivered(told, 0.0)
    jobs.hear([state(1, "new")], 1.0, NOON)

    assert [progress.job_id for progress in jobs.due(1.0)] == ["new"]
    jobs.hear([state(2, "waits"), state(2, "told")], 2.0, NOON)
    assert jobs.unpublished


def test_an_end_beyond_all_calendars_is_none() -> None:
    jobs = Jobs()
    jobs.hear([state(1, total=2**53)], 0.0, NOON)
    [progress] = jobs.hear([state(2, total=2**53)], 3600.0, NOON)

    assert progress.items_per_second == 0.0
    assert progress.estimated_end is None


STATES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60)


@given(states=STATES, pace=st.floats(0.01, 2), refuse=st.sets(st.integers(0, 200)))
def test_a_reader_that_keeps_the_highest_version_ends_with_the_last_state(
    states: list[tuple[str, int]], pace: float, refuse: set[int]
) -> None:
    """Whatever the order, the pace and the refusals; and of one job no two messages are under way or too near."""
    jobs = Jobs(every=1.0)
    read: dict[str, list[tuple[float, JobProgress]]] = {}
    tries = 0

    def pass_on(now: float) -> None:
        nonlocal tries
        for progress in jobs.due(now):
            tries += 1
            if tries in refuse:
                jobs.refused(progress, now)
            else:
                jobs.delivered(progress, now)
                read.setdefault(progress.job_id, []).append((now, progress))

    now = 0.0
    for job, version in states:
        now += pace
        jobs.hear([state(version, job, "completed" if version == 30 else "open")], now, NOON)
        pass_on(now)
    for _ in range(400):
        now += 5
        pass_on(now)

    newest = {job: max(version for name, version in states if name == job) for job, _ in states}
    assert {job: max(progress.version for _, progress in found) for job, found in read.items()} == newest
    for found in read.values():
        open_ones = [at for at, progress in found if progress.status == "open"]
        assert all(later - earlier > 0.999 for earlier, later in zip(open_ones, open_ones[1:], strict=False))
    assert not jobs.unpublished
