"""Traces of a real worker, as a real collector gets them: OTLP over HTTP, taken apart again."""

from collections.abc import Iterator

import pytest

from tests.faults.conftest import FAILED, SKIPPED, Job
from tests.faults.harness import eventually, send
from tests.servers.collector import Collector, attributes, collecting

TOTAL = 600
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def total(collector: Collector, job: Job, what: str) -> int:
    """Of all windows that have ended."""
    return sum(int(attributes(span)[f"lovelace.{what}"]) for span in collector.named(f"process {job.topic}"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_a_window_is_one_trace_from_source_to_settlement(job: Job, collector: Collector) -> None:
    job.open(TOTAL)
    worker = job.fleet.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200")
    job.submit(TOTAL)
    eventually(job.done)
    headers = [("traceparent", f"00-{TRACE}-{SPAN}-01".encode()), ("secret", b"do not tell")]
    send(job.brokers, job.topic, [(b"k", b'{"secret": "do not tell"}')] * 3, headers)
    eventually(lambda: total(collector, job, "items") == TOTAL + 3)
    code, _ = worker.terminate()

    assert code == 0
    assert collector.services == {"lovelace-worker"}
    windows = {span.span_id: span for span in collector.named(f"process {job.topic}")}
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert {span.span_id for span in roots} == windows.keys(), "every other span belongs to a window"
    assert {span.parent_span_id for span in collector.spans if span.parent_span_id} <= windows.keys()
    assert {span.name for span in collector.spans} == {
        f"process {job.topic}", "gather", "decode", "normalize", "write", "dead_letter", "report",
    }  # fmt: skip

    assert total(collector, job, "succeeded") == TOTAL - FAILED - SKIPPED
    assert total(collector, job, "failed") == FAILED
    assert total(collector, job, "skipped") == SKIPPED + 3  # an event that nobody asks for
    places = [place for span in windows.values() for place in attributes(span)["lovelace.partitions"]]
    assert all(place.startswith(f"{job.topic}-") for place in places)
    for child in collector.spans:
        if child.parent_span_id:
            window = windows[child.parent_span_id]
            assert window.start_time_unix_nano <= child.start_time_unix_nano
            if child.name not in {"dead_letter", "report"}:  # they may be of several windows
                assert child.end_time_unix_nano <= window.end_time_unix_nano, child.name
    assert sum(int(attributes(span)["lovelace.refused"]) for span in collector.named("write")) > 0
    assert {attributes(span)["lovelace.status"] for span in collector.named("report")} == {200}

    links = [link for span in windows.values() for link in span.links]
    assert {(link.trace_id.hex(), link.span_id.hex()) for link in links} == {(TRACE, SPAN)}
    assert b"do not tell" not in b"".join(span.SerializeToString() for span in collector.spans)


def test_a_collector_that_never_answers_costs_nothing(job: Job, collector: Collector) -> None:
    collector.mute = True
    job.open(TOTAL)
    patient = {"OTEL_EXPORTER_OTLP_TIMEOUT": "60", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    worker = job.fleet.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **patient)
    job.submit(TOTAL)
    eventually(job.done)
    eventually(lambda: collector.requests > 0)
    code, _ = worker.terminate()

    assert code == 0
    assert not worker.events("lost"), "it waited for its spans until the group threw it out"
    job.check(TOTAL, FAILED, SKIPPED)
    assert "Traceback" not in worker.log.read_text()


def test_a_collector_that_is_not_there_costs_nothing(job: Job) -> None:
    job.open(TOTAL)
    worker = job.fleet.start(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://user:password@127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="50"
    )
    job.submit(TOTAL)
    eventually(job.done)
    eventually(lambda: bool(worker.events("traces are not taken; records go on without them")))
    code, _ = worker.terminate()

    assert code == 0
    job.check(TOTAL, FAILED, SKIPPED)
    assert "password" not in worker.log.read_text()
