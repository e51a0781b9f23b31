"""The reporter against a service that answers oddly: what is settled is accepted in the end, or the worker says why."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource
from structlog.testing import capture_logs

from lovelace_streams.operators.progress import commit, progress
from lovelace_streams.records import Envelope, Outcome, Record, Settled
from lovelace_streams.reporting.reporter import REQUEST_INTERVAL_SECONDS, Reporter
from lovelace_streams.reporting.status import StatusReporter
from lovelace_streams.runtime.gauges import PartitionStatus
from lovelace_streams.settings import KafkaSettings, ProgressSettings
from lovelace_streams.sources.kafka import KafkaSource

Answer = tuple[int, bytes]
ACCEPTED: Answer = (200, b'{"jobs": [], "known": 0}')


class Oddly:
    """A service on a real socket: each request is answered by `answer(ranges)`."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, int]]] = []
        self.short: list[bool] = []
        """Whether a request had sums."""
        self.answer: Callable[[list[tuple[int, int]]], Answer] = lambda _ranges: ACCEPTED
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                ranges = [(r["first"], r["last"]) for each in body["reports"] for r in each.get("ranges", ())]
                status, text = service.answer(ranges)
                service.asked.append(ranges)
                service.short.append(any("sums" in each for each in body["reports"]))
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Oddly]:
    started = Oddly()
    yield started
    started.stop()


@pytest.fixture
def source() -> KafkaSource:
    made = KafkaSource(KafkaSettings("127.0.0.1:1"), ["t"])
    made.pipeline = "p"
    made.in_flight.assign("t", "id", 0, 0)
    return made


@pytest.fixture
def reporter(service: Oddly, source: KafkaSource) -> Iterator[Reporter]:
    made = Reporter(source, ProgressSettings(service.url, "token"))
    yield made
    made.close()


def settle(source: KafkaSource, offsets: range, jobs: int = 1000, partition: int = 0) -> list[Settled]:
    """Items of these offsets, each of another job than the one before, so that each is a range."""
    assignment = source.in_flight.of("t", partition)
    assert assignment is not None
    envelopes = []
    for offset in offsets:
        record = Record(
            "t",
            partition,
            offset,
            assignment.next,
            assignment.number,
            None,
            b"",
            [],
            -1,
            job=f"j{offset % jobs}",
            items=1,
        )
        source.in_flight.read(record)
        envelopes.append(Envelope(record, 0, None))
    return [Settled(Outcome.WRITTEN, envelopes)]


def until(reporter: Reporter, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        reporter.serve(idle=True, between_windows=True)
        time.sleep(0.01)


def test_a_page_in_place_of_an_answer_is_tried_again(service: Oddly, source: KafkaSource, reporter: Reporter) -> None:
    pages: list[Answer] = [(200, b"<html>welcome</html>"), (200, b'{"no": "jobs"}'), (503, b"")]
    service.answer = lambda _ranges: pages.pop(0) if pages else ACCEPTED
    reporter.take(settle(source, range(3)))

    until(reporter, lambda: source.in_flight.unaccepted == 0)

    assert len(service.asked) == 4
    assert source.fault is None


def test_what_settles_between_two_requests_goes_together(
    service: Oddly, source: KafkaSource, reporter: Reporter
) -> None:
    began, offset = time.monotonic(), 0
    while len(service.asked) < 4:
        reporter.take(settle(source, range(offset, offset + 1)))
        offset += 1
        time.sleep(0.001)  # so that there is more than one to go together
    until(reporter, lambda: source.in_flight.unaccepted == 0)

    assert len(service.asked) - 1 <= (time.monotonic() - began) / REQUEST_INTERVAL_SECONDS
    assert [offset for ranges in service.asked for offset, _ in ranges] == list(range(offset))


@pytest.mark.parametrize("hurries", ["revoke", "drain"])
def test_a_worker_that_ends_waits_for_no_interval(
    service: Oddly, source: KafkaSource, hurries: str, request: pytest.FixtureRequest
) -> None:
    reporter = Reporter(source, ProgressSettings(service.url, "token"), interval=3600.0)
    request.addfinalizer(reporter.close)
    reporter.take(settle(source, range(1)))
    until(reporter, lambda: source.in_flight.unaccepted == 0)
    reporter.take(settle(source, range(1, 2)))

    if hurries == "revoke":
        reporter.revoke(60)
    else:
        source.drain()
        until(reporter, lambda: not reporter.unfinished())

    assert source.in_flight.unaccepted == 0
    assert service.asked == [[(0, 0)], [(1, 1)]]


def test_what_is_too_large_is_sent_in_halves(service: Oddly, source: KafkaSource, reporter: Reporter) -> None:
    service.answer = lambda ranges: ACCEPTED if len(ranges) <= 2 else (413, b"")
    reporter.take(settle(source, range(7)))

    until(reporter, lambda: source.in_flight.unaccepted == 0)

    accepted = [offset for ranges in service.asked if len(ranges) <= 2 for offset, _ in ranges]
    assert accepted == list(range(7))
    assert not reporter.unfinished()


def overlap(*partitions: int) -> bytes:
    overlaps = [{"topic_id": "id", "partition": partition} for partition in partitions]
    return json.dumps({"jobs": [], "known": 0, "overlaps": overlaps}).encode()


def test_interleaved_jobs_are_told_in_sums(service: Oddly, source: KafkaSource, reporter: Reporter) -> None:
    reporter.take(settle(source, range(100), jobs=10))
    until(reporter, lambda: source.in_flight.unaccepted == 0)

    assert (service.asked, service.short) == ([[]], [True])


def test_of_what_overlaps_the_ranges_are_sent_and_ranges_only_while_something_is_known(
    service: Oddly, source: KafkaSource, reporter: Reporter
) -> None:
    source.in_flight.assign("t", "id", 1, 0)
    other = source.in_flight.of("t", 1)
    assert other is not None
    answers: list[Answer] = [
        (200, overlap(0)),
        (200, b'{"jobs": [], "known": 100}'),
        (200, b'{"jobs": [], "known": 1}'),
    ]
    service.answer = lambda _ranges: answers.pop(0) if answers else ACCEPTED

    reporter.take(settle(source, range(100), jobs=10) + settle(source, range(100), jobs=10, partition=1))
    until(reporter, lambda: source.in_flight.unaccepted == 0)

    assert service.short == [True, False]
    assert service.asked[1] == [(offset, offset) for offset in range(100)], "those of the other were accepted"
    for at, expected in ((100, False), (200, False), (300, True)):
        reporter.take(settle(source, range(at, at + 100), jobs=10))
        until(reporter, lambda: source.in_flight.unaccepted == 0)
        assert service.short[-1] is expected, at


def test_nothing_that_overlaps_is_taken_for_accepted(service: Oddly, source: KafkaSource, reporter: Reporter) -> None:
    service.answer = lambda ranges: (503, b"") if ranges else (200, overlap(0))
    reporter.take(settle(source, range(100), jobs=10))

    until(reporter, lambda: len(service.asked) >= 3)

    assert service.short[:3] == [True, False, False]
    assert source.in_flight.unaccepted == 100


def test_a_service_that_takes_no_sums_gets_ranges(service: Oddly, source: KafkaSource, reporter: Reporter) -> None:
    service.answer = lambda ranges: ACCEPTED if ranges else (422, b"{}")
    for at in (0, 100):
        reporter.take(settle(source, range(at, at + 100), jobs=10))
        until(reporter, lambda: source.in_flight.unaccepted == 0)

    assert service.short == [True, False, False]
    assert source.fault is None


def test_a_refused_report_stops_the_worker_with_the_range_named(
    service: Oddly, source: KafkaSource, reporter: Reporter
) -> None:
    service.answer = lambda _ranges: (422, b"{}")
    reporter.take(settle(source, range(5, 8)))

    until(reporter, lambda: source.fault is not None)

    assert "t-0:0…7" in str(source.fault)


def test_no_token_is_the_deployments_fault(service: Oddly, source: KafkaSource) -> None:
    reporter = Reporter(source, ProgressSettings(service.url, ""))
    reporter.serve(idle=False, between_windows=True)

    assert "PROGRESS_API_TOKEN" in str(source.fault)
    reporter.close()


class Reading(KafkaSource):
    """A source that has read something."""

    partition_statuses = [PartitionStatus("t", "id", 0, position=3, end=5, pending=0, oldest_unsettled_ms=0)]


@pytest.fixture
def status_reporter(service: Oddly, source: KafkaSource) -> Iterator[StatusReporter]:
    source.__class__ = Reading
    made = StatusReporter(source, ProgressSettings(service.url, "token"), interval=0.01)
    made.serve(idle=True, between_windows=True)
    yield made
    made.close()


def join(status_reporter: StatusReporter) -> None:
    """Wait for the thread to end by itself."""
    assert status_reporter.thread is not None
    status_reporter.thread.join(10)
    assert not status_reporter.thread.is_alive()


def test_where_it_stands_is_told_again_and_again_while_the_service_is_away(
    service: Oddly, status_reporter: StatusReporter
) -> None:
    service.answer = lambda _ranges: (503, b"")
    end = time.monotonic() + 60
    while len(service.asked) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)

    status_reporter.close()

    join(status_reporter)
    assert not status_reporter.unfinished()


def test_a_service_that_takes_no_partitions_is_left_alone(
    service: Oddly, source: KafkaSource, request: pytest.FixtureRequest
) -> None:
    service.answer = lambda _ranges: (422, b"{}")

    join(request.getfixturevalue("status_reporter"))

    assert service.asked == [[]]
    assert source.fault is None


# What is said of a service that is not there.


def away(service: Oddly) -> None:
    service.answer = lambda _ranges: (503, b"")


def something_else(service: Oddly) -> None:
    service.answer = lambda _ranges: (204, b"")


@pytest.mark.parametrize(("missing", "why"), [(away, "is not ready"), (something_else, "it answers 204")])
def test_a_service_that_is_not_there_is_said_once_a_minute_and_when_it_is_back(
    service: Oddly, source: KafkaSource, reporter: Reporter, missing: Callable[[Oddly], None], why: str
) -> None:
    missing(service)
    with capture_logs() as lines:
        reporter.take(settle(source, range(3)))
        until(reporter, lambda: len(service.asked) >= 5)
        service.answer = lambda _ranges: ACCEPTED
        until(reporter, lambda: source.in_flight.unaccepted == 0)

    said = [(line["event"], line.get("fault", "")) for line in lines if line["log_level"] != "debug"]
    assert [event for event, _ in said] == ["waiting for the progress service", "back"]
    assert why in said[0][1]


def test_a_flow_that_would_report_says_once_a_minute_that_it_has_no_service(source: KafkaSource) -> None:
    flow = Dataflow("p")
    settled = op.input("settled", flow, TestingSource([]))
    progress("progress", source, ProgressSettings(None, ""), settled)
    with capture_logs() as lines:
        for _ in range(50):
            for each in source.services:
                each.serve(idle=True, between_windows=True)

    [line] = [line for line in lines if line["log_level"] != "debug"]
    assert line["event"] == "no progress service, so no job is counted"
    assert "PROGRESS_API_URL is not set" in line["fault"]
    assert "lovelace up --api" in line["fault"]


def test_a_flow_that_ends_in_commit_says_nothing(source: KafkaSource) -> None:
    settled = op.input("settled", Dataflow("p"), TestingSource([]))
    commit("commit", source, settled)
    with capture_logs() as lines:
        for each in source.services:
            each.serve(idle=True, between_windows=True)

    assert lines == []
