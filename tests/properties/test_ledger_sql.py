"""The ledger in Postgres equals the ledger as plain Python, for any sequence of requests."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row

from lovelace_streams.api import ApiSettings
from lovelace_streams.api.app import ProgressService
from lovelace_streams.api.ledger import ConflictError, Ledger, UnknownJobError
from lovelace_streams.api.models import InputReceived, JobState, OpenJob, ProgressRequest
from lovelace_streams.runtime.ranges import Range, sums_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = {"created_at", "completed_at", "signalled_at", "changed_at"}
JOBS = st.sampled_from(("a", "b", "c"))
COUNT = st.integers(0, 2)
REASONS = st.sampled_from(("check", "missing", "not_json"))


@st.composite
def failed_ranges(draw, first):
    cuts = sorted(draw(st.sets(st.integers(0, 9), min_size=2, max_size=6)))
    items = [{"first": low, "last": high - 1, "reason": draw(REASONS)} for low, high in pairwise(cuts)]
    items = draw(st.permutations(items))[: draw(st.integers(1, len(items)))]
    failed = sum(item["last"] - item["first"] + 1 for item in items)
    return {"first": first, "last": first, "failed": failed, "failed_items": items}


@st.composite
def ranges(draw):
    cuts = sorted(draw(st.sets(st.integers(0, 24), min_size=2, max_size=9)))
    found = []
    for first, end in pairwise(cuts):
        kind = draw(st.sampled_from(("counts", "counts", "failed", "resolves", "hole")))
        belongs = {"job_id": draw(st.none() | JOBS), "attempt": draw(st.sampled_from((1, 1, 2)))}
        if kind == "counts":
            found.append({**belongs, "first": first, "last": end - 1, "succeeded": draw(COUNT), "skipped": draw(COUNT)})
        elif kind == "failed":
            found.append({**belongs, **draw(failed_ranges(first)), "succeeded": draw(COUNT)})
        elif kind == "resolves":
            found.append({"first": first, "last": end - 1, "resolves": draw(st.lists(RESOLVED, max_size=6))})
    return found


@st.composite
def either_form(draw):
    """As a worker says it: in ranges, or in sums of them."""
    found = draw(ranges())
    zeros = {"succeeded": 0, "failed": 0, "skipped": 0}
    sums = sums_of(msgspec.convert([zeros | each for each in found], list[Range])) if draw(st.booleans()) else None
    return {"ranges": found} if sums is None else msgspec.to_builtins(sums)


RESOLVED = st.fixed_dictionaries(
    {
        "topic_id": st.sampled_from(("T", "U", "V")),
        "partition": st.integers(0, 1),
        "offset": st.integers(0, 12),
        "item": st.integers(0, 9),
    }
)


@st.composite
def reports(draw):
    partitions = draw(st.lists(st.tuples(st.sampled_from(("T", "U")), st.integers(0, 1)), unique=True, max_size=3))
    found = [
        {"topic": "raw", "topic_id": topic_id, "partition": partition, **draw(either_form())}
        for topic_id, partition in partitions
    ]
    return ProgressRequest.model_validate({"pipeline": draw(st.sampled_from(("p", "p", "q"))), "reports": found})


openings = st.builds(
    OpenJob,
    job_id=JOBS,
    source=st.sampled_from(("s", "s", "s", "t")),
    workflow_id=st.none() | st.sampled_from(("w", "w", "v")),
    total_items=st.none() | st.integers(0, 60),
    pipelines=st.sampled_from((None, None, ["p"], ["q"], ["p", "q"])),
    restart=st.sampled_from((False, False, True)),
)
received = st.builds(InputReceived, input_id=st.sampled_from(("x", "y")), succeeded=COUNT, failed=COUNT, skipped=COUNT)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("report"), reports()),
        st.tuples(st.just("report"), reports()),
        st.tuples(st.just("report"), reports()),
        st.tuples(st.just("open"), openings, st.none() | st.sampled_from(("k1", "k2"))),
        st.tuples(st.just("open"), openings, st.none()),
        st.tuples(st.just("receive"), JOBS, received),
        st.tuples(st.just("close"), JOBS, st.just("by hand")),
        st.tuples(st.just("stall")),
    ),
    min_size=1,
    max_size=12,
)


class Sql:
    """The store on a real server, one event loop, tables emptied for each example."""

    def __init__(self, dsn):
        self.runner = asyncio.Runner()
        self.service = ProgressService(ApiSettings(dsn=dsn, token="t", job_stall_seconds=-10), None)
        self.store = self.service.store
        self.conn = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        self.runner.run(self._open())

    async def _open(self):
        await self.service.pool.open(wait=True)
        await self.service._migrate()

    def close(self):
        self.runner.run(self.service.pool.close())
        self.runner.close()
        self.conn.close()

    def empty(self):
        self.conn.execute("truncate lovelace.heard, lovelace.settled_offsets, lovelace.failed_items cascade")

    def state(self):
        """All tables, in the model's words."""
        table = {
            name: self.conn.execute(f"select * from lovelace.{name}").fetchall()
            for name in (
                "settled_offsets",
                "counters",
                "failed_items",
                "game_onboarding_progress",
                "outbox",
                "inputs",
                "idempotency_keys",
            )
        }
        return {
            "covers": {
                (row["pipeline"], row["topic_id"], row["partition"]): [(r.lower, r.upper - 1) for r in row["offsets"]]
                for row in table["settled_offsets"]
                if row["offsets"]
            },
            "counters": {
                (row["job_id"], row["attempt"], row["pipeline"]): (row["succeeded"], row["failed"], row["skipped"])
                for row in table["counters"]
            },
            "failed_items": {
                (row["pipeline"], row["topic_id"], row["partition"], row["offset"], item): (
                    row["job_id"],
                    row["attempt"],
                    row["reason"],
                    any(item in piece for piece in row["resolved"]),
                )
                for row in table["failed_items"]
                for item in range(row["first_item"], row["last_item"] + 1)
            },
            "jobs": {row["job_id"]: timeless(row) for row in table["game_onboarding_progress"]},
            "signals": {(row["job_id"], row["attempt"]): row["payload"] for row in table["outbox"]},
            "inputs": {(row["job_id"], row["attempt"], row["input_id"]) for row in table["inputs"]},
            "keys": {(row["job_id"], row["key"]): row["attempt"] for row in table["idempotency_keys"]},
        }


def model_state(ledger):
    return {
        "covers": {tuple(key): list(cover) for key, cover in ledger.covers.items() if list(cover)},
        "counters": {tuple(key): tuple(counts) for key, counts in ledger.counters.items()},
        "failed_items": {
            tuple(key): (item.job_id, item.attempt, item.reason, item.resolved)
            for key, item in ledger.failed_items.items()
        },
        "jobs": {job_id: timeless(job.model_dump(mode="json")) for job_id, job in ledger.jobs.items()},
        "signals": ledger.signals,
        "inputs": ledger.inputs,
        "keys": ledger.keys,
    }


def timeless(job):
    return {name: value if name not in TIMES else value is not None for name, value in job.items()}


def plain(answer):
    """An answer without its times."""
    if isinstance(answer, tuple):
        return plain(answer[0]), answer[1]
    if isinstance(answer, JobState):
        return timeless(answer.model_dump(mode="json"))
    if isinstance(answer, list):
        return sorted(answer)
    return [plain(job) for job in answer.jobs], answer.known, list(answer.overlaps)


@pytest.fixture
def sql(database):
    sql = Sql(database)
    yield sql
    sql.close()


@given(requests=operations)
def test_the_sql_equals_the_model(sql, requests):
    sql.empty()
    ledger = Ledger()
    for at, (name, *arguments) in enumerate(requests):
        now = NOW + timedelta(seconds=at)
        expected = outcome(lambda: getattr(ledger, name)(*arguments, now if name != "stall" else now + timedelta(1)))  # noqa: B023
        found = outcome(lambda: sql.runner.run(getattr(sql.store, name)(*arguments)))  # noqa: B023
        assert found == expected, (name, arguments)
    assert sql.state() == model_state(ledger)
    for pipeline in ("p", "q"):
        for topic_id in ("T", "U"):
            cover = sql.runner.run(sql.store.cover(pipeline, topic_id)).partitions
            kept = ledger.cover(pipeline, topic_id).partitions
            assert {at: pieces for at, pieces in cover.items() if pieces} == {
                at: pieces for at, pieces in kept.items() if pieces
            }


def outcome(call):
    try:
        return plain(call())
    except (ConflictError, UnknownJobError) as refused:
        return type(refused), str(refused)


def test_a_long_range_of_zeros_and_the_last_offset(sql):
    last = 2**63 - 2
    request = ProgressRequest.model_validate(
        {
            "pipeline": "p",
            "reports": [
                {
                    "topic": "raw",
                    "topic_id": "T",
                    "partition": 0,
                    "ranges": [{"first": 0, "last": last - 1}, {"first": last, "last": last, "succeeded": 1}],
                }
            ],
        }
    )
    for known in (0, last + 1):
        assert sql.runner.run(sql.store.report(request)).known == known
    assert sql.runner.run(sql.store.cover("p", "T")).partitions == {"0": [(0, last)]}


def test_pruning_forgets_unknown_jobs_and_old_failures_and_never_the_cover(sql):
    ranges = [
        {
            "job_id": job,
            "first": at,
            "last": at,
            "failed": 1,
            "failed_items": [{"first": 0, "last": 0, "reason": "check"}],
        }
        for at, job in enumerate("ab")
    ]
    request = ProgressRequest.model_validate(
        {"pipeline": "p", "reports": [{"topic": "raw", "topic_id": "T", "partition": 0, "ranges": ranges}]}
    )
    sql.runner.run(sql.store.report(request))
    sql.runner.run(sql.store.open(OpenJob(job_id="a", source="s", total_items=2), None))

    sql.runner.run(sql.store.query("prune_unknown", {"seconds": 100}))
    assert len(sql.state()["counters"]) == 2, "young ones stay"

    sql.runner.run(sql.store.query("prune_unknown", {"seconds": -1}))
    sql.runner.run(sql.store.query("prune_failed_items", {"seconds": -1}))
    state = sql.state()
    assert set(state["counters"]) == {("a", 1, "p")}
    assert [item[0] for item in state["failed_items"].values()] == ["a"], "the job is open: it may be replayed"

    sql.runner.run(sql.store.close("a", "enough"))
    sql.runner.run(sql.store.query("prune_failed_items", {"seconds": -1}))
    state = sql.state()
    assert state["failed_items"] == {}
    assert state["covers"] == {("p", "T", 0): [(0, 1)]}
