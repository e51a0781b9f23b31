"""Workers that crash at each arrow, against the ledger: each item of the current attempt counts once, jobs end once.

    read ─▶ row commit, letter ack ─▶ settled ─▶ report ─▶ answer ─▶ group offset
       ✕                          ✕           ✕         ✕         ✕

What is expected is kept here the naive way, offset by offset: the first accepted report of an offset decides.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lovelace_streams.api.ledger import ConflictError, Ledger
from lovelace_streams.api.models import InputReceived, OpenJob, ProgressRequest, Status
from lovelace_streams.runtime.ranges import Range, sums_of
from tests.examples import examples

JOBS = ("a", "b")
PIPELINES = ("flow", "shadow")
RAW, REPLAY = "raw", "replay"
PARTITIONS = ((RAW, 0), (RAW, 1), (REPLAY, 0))
OUTCOMES = ("succeeded", "failed", "skipped")
ENDS = (["succeeded"] * 3, ["failed"] * 3, ["failed", "succeeded", "skipped"], ["skipped", "failed", "succeeded"])
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Message:
    """What lies in the topic: the job's items, or (a replayed letter) the origin and its items."""

    def __init__(self, job, attempt, items, pipeline=None, origin=None, again=()):
        self.job, self.attempt, self.items = job, attempt, items
        self.pipeline, self.origin, self.again = pipeline, origin, again


class Worker:
    """What a crash takes: where it reads, what it settled, what the API answered."""

    def __init__(self, pipeline, committed):
        self.pipeline = pipeline
        self.position = dict(committed)
        self.written = {}  # read, its good items are committed, its letter is not acknowledged yet
        self.settled = {}
        self.accepted = {}  # (topic, partition) → offsets


class Ledgers(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ledger = Ledger()
        self.now = NOW
        self.topics = {at: [] for at in PARTITIONS}
        self.committed = {pipeline: dict.fromkeys(PARTITIONS, 0) for pipeline in PIPELINES}
        self.rows = set()
        self.letters = {}  # origin → the items that ever failed
        self.decided = {}  # (pipeline, topic, partition, offset) → outcomes by item, as first accepted
        self.resolved = set()
        self.first = {}  # (job, attempt) → the pipeline that reported first
        self.covers = {}
        self.seen = {}
        self.completions = Counter()

    @initialize()
    def start(self):
        self.ledger.open(OpenJob(job_id="a", source="s", workflow_id="w"), None, self.tick())
        # Two workers of one group, both owning everything: a frozen one and the one that took over.
        self.workers = [Worker(pipeline, self.committed[pipeline]) for pipeline in ("flow", "flow", "shadow")]

    workers_ = st.integers(0, 2)

    @rule(
        job=st.sampled_from(("a", *JOBS, None)),
        partition=st.integers(0, 1),
        items=st.sampled_from((1, 1, 0, 3)),
        times=st.integers(1, 3),
        old=st.sampled_from((False, False, False, True)),
    )
    def submit(self, job, partition, items, times, old):
        """Messages for the current attempt, or late, for the one before."""
        current = self.ledger.jobs[job].attempt if job in self.ledger.jobs else 1
        attempt = max(1, current - 1) if old else current
        self.topics[RAW, partition].extend(Message(job, attempt, items) for _ in range(times))

    @rule(
        job=st.sampled_from(JOBS),
        total=st.none() | st.integers(0, 8),
        named=st.booleans(),
        restart=st.sampled_from((False, False, False, True)),
        key=st.none() | st.sampled_from(("k1", "k2")),
    )
    def open(self, job, total, named, restart, key):
        """Opened early or late, once or again, with the total now, later or changed."""
        before = self.ledger.jobs.get(job)
        keyed = self.ledger.keys.get((job, key))
        pipelines = ["flow"] if named and (before is None or before.pipelines) else None
        wanted = OpenJob(
            job_id=job, source="s", workflow_id="w", total_items=total, pipelines=pipelines, restart=restart
        )
        try:
            after, is_new = self.ledger.open(wanted, key, self.tick())
        except ConflictError:
            assert self.ledger.jobs[job] == before, "a refused request changes nothing"
            return
        assert is_new == (before is None or (restart and keyed is None))
        assert after.attempt == (1 if before is None else before.attempt + is_new)
        assert keyed in (None, after.attempt), "the same key, the same attempt"

    @precondition(lambda self: self.unread())
    @rule(data=st.data(), outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=3, max_size=3))
    def read_and_write(self, data, outcomes):
        """The good items are committed. The outcome of an item may be another than when it was last read."""
        self.read(*data.draw(st.sampled_from(self.unread())), outcomes)

    def read(self, at, where, outcomes):
        worker = self.workers[at]
        offset = worker.position[where]
        worker.position[where] += 1
        message = self.topics[where][offset]
        ends = dict(zip(message.again or range(message.items), outcomes, strict=False))
        if message.pipeline not in (None, worker.pipeline):
            ends = {}
        origin = message.origin or (where, offset)
        self.rows |= {(worker.pipeline, origin, item) for item, end in ends.items() if end == "succeeded"}
        worker.written[where, offset] = ends

    @precondition(lambda self: any(worker.written for worker in self.workers))
    @rule(data=st.data())
    def acknowledge_letter(self, data):
        self.acknowledge(*data.draw(st.sampled_from(self.unacknowledged())))

    def acknowledge(self, at, where, offset):
        worker = self.workers[at]
        ends = worker.written.pop((where, offset))
        failed = {item for item, end in ends.items() if end == "failed"}
        if failed:
            origin = self.topics[where][offset].origin or (where, offset)
            self.letters.setdefault((worker.pipeline, origin), set()).update(failed)
        worker.settled[where, offset] = ends

    @rule(
        at=workers_,
        outcomes=st.sampled_from(ENDS),
        lost=st.booleans(),
    )
    def work(self, at, outcomes, lost):
        """All the way to the end of the topics, so that few steps reach far: a replay of a replay."""
        while mine := [unread for unread in self.unread() if unread[0] == at]:
            self.read(*mine[0], outcomes)
            outcomes = outcomes[1:] + outcomes[:1]
        for waiting in self.unacknowledged():
            if waiting[0] == at:
                self.acknowledge(*waiting)
        if self.workers[at].settled:
            self.report(at, lost)

    @precondition(lambda self: any(worker.settled for worker in self.workers))
    @rule(data=st.data(), lost=st.booleans(), short=st.booleans())
    def report_settled(self, data, lost, short):
        """All that is settled goes in one request; its answer may be lost, then it goes again with the next."""
        self.report(data.draw(st.sampled_from([at for at in range(3) if self.workers[at].settled])), lost, short)

    def report(self, at, lost, short=False):
        """In ranges, or in short: sums, and where they overlap ranges, unless that answer is lost, too."""
        worker = self.workers[at]
        reports = []
        for where in PARTITIONS:
            mine = sorted((offset, ends) for (w, offset), ends in worker.settled.items() if w == where)
            ranges = joined([self._range(where, offset, ends) for offset, ends in mine])
            if ranges:
                reports.append({"topic": where[0], "topic_id": where[0], "partition": where[1], "ranges": ranges})
        settled = sorted(worker.settled.items())
        answer = self._told(worker, [in_short(each) for each in reports] if short else reports)
        found, again = answer.known, {(overlap.topic_id, overlap.partition) for overlap in answer.overlaps}
        if lost:
            settled = [each for each in settled if each[0][0] not in again]
        else:
            reports = [each for each in reports if (each["topic_id"], each["partition"]) in again]
            found += self._told(worker, reports).known
        assert found == sum((worker.pipeline, *where, offset) in self.decided for (where, offset), _ in settled)
        for (where, offset), ends in settled:
            self._decide(worker.pipeline, where, offset, ends)
        if not lost:
            for where, offset in worker.settled:
                worker.accepted.setdefault(where, set()).add(offset)
            worker.settled.clear()

    def _told(self, worker, reports):
        body = {"pipeline": worker.pipeline, "reports": reports}
        return self.ledger.report(ProgressRequest.model_validate(body), self.tick())

    @rule(at=workers_, where=st.sampled_from(PARTITIONS))
    def commit(self, at, where):
        """Only the end of the unbroken range that was accepted."""
        worker = self.workers[at]
        offset = self.committed[worker.pipeline][where]
        while offset in worker.accepted.get(where, ()):
            offset += 1
        self.committed[worker.pipeline][where] = offset

    @rule(at=workers_)
    def crash(self, at):
        pipeline = self.workers[at].pipeline
        self.workers[at] = Worker(pipeline, self.committed[pipeline])

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def replay_letter(self, data):
        """Any letter, as often as anybody likes, orphans (acknowledged, then crashed before the report) included."""
        (pipeline, origin), items = data.draw(st.sampled_from(sorted(self.letters.items(), key=repr)))
        replayed = Message(None, 1, 0, pipeline, origin, tuple(sorted(items)))
        self.topics[REPLAY, 0].append(replayed)

    @rule(job=st.sampled_from(JOBS))
    def stall(self, job):
        self.ledger.stall(self.tick())

    @invariant()
    def each_item_of_the_attempt_counts_once(self):
        for job in self.ledger.jobs.values():
            pipelines = job.pipelines or [self.first.get((job.job_id, job.attempt))]
            expected = Counter()
            for (pipeline, topic, partition, offset), ends in self.decided.items():
                message = self.topics[topic, partition][offset]
                if (message.job, message.attempt) == (job.job_id, job.attempt) and pipeline in pipelines:
                    for item, end in ends.items():
                        mended = (pipeline, ((topic, partition), offset), item) in self.resolved
                        expected["succeeded" if mended else end] += 1
            assert (job.succeeded, job.failed, job.skipped) == tuple(expected[end] for end in OUTCOMES)

    @invariant()
    def a_job_ends_once_and_signals_once(self):
        for job in self.ledger.jobs.values():
            complete = job.total_items is not None and job.processed >= job.total_items
            assert (job.status is Status.COMPLETED) == complete
            assert ((job.job_id, job.attempt) in self.ledger.signals) == complete
            before = self.seen.get(job.job_id)
            if before is not None:
                assert job.version >= before.version
                assert job.version > before.version or job == before
                if before.attempt == job.attempt:
                    assert job.processed >= before.processed
                    assert job.succeeded >= before.succeeded
                    assert job.skipped >= before.skipped
                    assert job.succeeded - before.succeeded >= before.failed - job.failed
                    assert not before.status.ended or (job.status, job.completed_at) == (
                        before.status,
                        before.completed_at,
                    )
                else:
                    assert job.attempt == before.attempt + 1
            self.seen[job.job_id] = job

    @invariant()
    def the_cover_grows(self):
        for key, cover in self.ledger.covers.items():
            offsets = {offset for first, last in cover for offset in range(first, last + 1)}
            assert offsets >= self.covers.get(key, set())
            assert offsets == {d[3] for d in self.decided if d[:3] == tuple(key)}
            self.covers[key] = offsets

    @invariant()
    def what_is_committed_is_counted_and_what_is_counted_is_durable(self):
        for pipeline, offsets in self.committed.items():
            for (topic, partition), end in offsets.items():
                assert all((pipeline, topic, partition, offset) in self.decided for offset in range(end))
        for item, failed in self.ledger.failed_items.items():
            origin = ((item.topic_id, item.partition), item.offset)
            assert item.item in self.letters[item.pipeline, origin]
            assert not failed.resolved or (item.pipeline, origin, item.item) in self.rows

    def teardown(self):
        """When all workers came to the end of their topics, all of every job is counted."""
        if not hasattr(self, "workers"):
            return
        while self.unread():
            self.read(*self.unread()[0], ["succeeded"] * 3)
        for waiting in self.unacknowledged():
            self.acknowledge(*waiting)
        for at in range(3):
            self.report(at, lost=False)
            for where in PARTITIONS:
                self.commit(at, where)
        self.each_item_of_the_attempt_counts_once()
        self.a_job_ends_once_and_signals_once()
        self.the_cover_grows()
        self.what_is_committed_is_counted_and_what_is_counted_is_durable()
        for job in self.ledger.jobs.values():
            submitted = [
                m
                for messages in self.topics.values()
                for m in messages
                if (m.job, m.attempt) == (job.job_id, job.attempt)
            ]
            assert job.processed == sum(message.items for message in submitted)

    def unread(self):
        return [
            (at, where)
            for at, worker in enumerate(self.workers)
            for where in PARTITIONS
            if worker.position[where] < len(self.topics[where])
        ]

    def unacknowledged(self):
        return [(at, *key) for at, worker in enumerate(self.workers) for key in sorted(worker.written)]

    def tick(self):
        self.now += timedelta(seconds=1)
        return self.now

    def _range(self, where, offset, ends):
        message = self.topics[where][offset]
        if message.origin is not None:
            (topic, partition), at = message.origin
            done = [item for item, end in ends.items() if end == "succeeded"]
            resolves = [{"topic_id": topic, "partition": partition, "offset": at, "item": item} for item in done]
            return {"first": offset, "last": offset, **dict.fromkeys(OUTCOMES, 0), "resolves": resolves}
        counts = Counter(ends.values())
        failed = [{"first": item, "last": item, "reason": "check"} for item, end in ends.items() if end == "failed"]
        return {
            "job_id": message.job,
            "attempt": message.attempt,
            "first": offset,
            "last": offset,
            **{end: counts[end] for end in OUTCOMES},
            "failed_items": failed,
        }

    def _decide(self, pipeline, where, offset, ends):
        message = self.topics[where][offset]
        if (pipeline, *where, offset) not in self.decided:
            self.decided[pipeline, *where, offset] = {} if message.origin else ends
            if message.job is not None:
                self.first.setdefault((message.job, message.attempt), pipeline)
        if message.origin:
            (origin, at) = message.origin
            first = self.decided.get((pipeline, *origin, at), {})
            self.resolved |= {
                (pipeline, message.origin, item)
                for item, end in ends.items()
                if end == "succeeded" and first.get(item) == "failed"
            }


def joined(ranges):
    """Consecutive offsets of one outcome are one range."""
    found = []
    for part in ranges:
        same = {**part, "first": 0, "last": 0}
        before = found[-1] if found else None
        joins = before and before["last"] == part["first"] - 1 and not (part.get("failed") or part.get("resolves"))
        if joins and same == {**before, "first": 0, "last": 0}:
            before["last"] = part["last"]
            continue
        found.append(part)
    return found


def in_short(report):
    """As sums, where they can say it."""
    sums = sums_of(msgspec.convert(report["ranges"], list[Range]))
    where = {name: report[name] for name in ("topic", "topic_id", "partition")}
    return report if sums is None else where | msgspec.to_builtins(sums)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(max_examples=examples(150), stateful_step_count=60)


def open_job(ledger, **fields):
    return ledger.open(OpenJob(job_id="a", **{"source": "s", "workflow_id": "w", **fields}), None, NOW)[0]


def report(ledger, *ranges, topic_id="T"):
    body = {"topic": "raw", "topic_id": topic_id, "partition": 0, "ranges": list(ranges)}
    return ledger.report(ProgressRequest.model_validate({"pipeline": "flow", "reports": [body]}), NOW)


def test_of_a_range_known_in_part_the_rest_counts():
    ledger = Ledger()
    open_job(ledger, total_items=5)
    report(ledger, {"job_id": "a", "first": 0, "last": 2, "succeeded": 1})
    answer = report(ledger, {"job_id": "a", "first": 1, "last": 4, "succeeded": 1})
    assert (answer.known, answer.jobs[0].succeeded, answer.jobs[0].status) == (2, 5, Status.COMPLETED)


def test_a_replayed_letter_moves_its_job_at_once_and_once():
    ledger = Ledger()
    open_job(ledger, total_items=1)
    failed = {"first": 0, "last": 0, "reason": "check"}
    report(ledger, {"job_id": "a", "first": 7, "last": 7, "failed": 1, "failed_items": [failed]})
    for offset in (0, 1):
        resolves = [{"topic_id": "T", "partition": 0, "offset": 7, "item": 0}]
        [job] = report(ledger, {"first": offset, "last": offset, "resolves": resolves}, topic_id="replay").jobs
        assert (job.succeeded, job.failed, job.version) == (1, 0, 3)
    assert len(ledger.signals) == 1


def test_a_total_of_zero_completes_at_once():
    ledger = Ledger()
    assert open_job(ledger, total_items=0).status is Status.COMPLETED
    assert [signal["signal_id"] for signal in ledger.signals.values()] == ["a#1"]


def test_what_contradicts_a_completed_job_is_refused():
    ledger = Ledger()
    open_job(ledger, total_items=0)
    assert open_job(ledger, total_items=0).version == open_job(ledger).version
    for contradiction in ({"total_items": 1}, {"workflow_id": "other"}, {"source": "other"}, {"pipelines": ["p"]}):
        with pytest.raises(ConflictError, match=next(iter(contradiction))):
            open_job(ledger, **contradiction)


def test_an_input_without_a_total_is_all_and_counts_once():
    ledger = Ledger()
    open_job(ledger, pipelines=["flow"])
    received = InputReceived(input_id="form", succeeded=2, failed=1)
    job = ledger.receive("a", received, NOW)
    assert (job.status, job.total_items, job.succeeded, job.failed) == (Status.COMPLETED, 3, 2, 1)
    assert ledger.receive("a", received, NOW) == job
    assert len(ledger.signals) == 1


def test_inputs_count_up_to_a_total():
    ledger = Ledger()
    open_job(ledger, total_items=2)
    assert ledger.receive("a", InputReceived(input_id="one"), NOW).status is Status.OPEN
    assert ledger.receive("a", InputReceived(input_id="two"), NOW).status is Status.COMPLETED


def test_closing_signals_and_ends():
    ledger = Ledger()
    open_job(ledger, total_items=5)
    assert ledger.close("a", "gone", NOW).status is Status.CLOSED
    assert ledger.close("a", "again", NOW).closed_reason == "gone"
    assert len(ledger.signals) == 1
    ledger.receive("a", InputReceived(succeeded=9), NOW)
    assert (ledger.jobs["a"].status, ledger.jobs["a"].succeeded) == (Status.CLOSED, 9)


def test_any_change_ends_a_stall():
    ledger = Ledger()
    open_job(ledger, total_items=5)
    assert ledger.stall(NOW + timedelta(1)) == ["a"]
    assert open_job(ledger, total_items=5).status is Status.STALLED
    assert open_job(ledger, total_items=6).status is Status.OPEN
    ledger.stall(NOW + timedelta(1))
    assert ledger.receive("a", InputReceived(), NOW).status is Status.OPEN
