"""Traces of a real worker, as a real collector gets them: OTLP over HTTP, taken apart again."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.faults.conftest import FAILED, SKIPPED, Job
from tests.faults.harness import eventually, send

TOTAL = 600
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Keeps what it is sent; while it is `mute` it takes requests and never answers them."""

    def __init__(self) -> None:
        self.spans: list = []
        self.services: set[str] = set()
        self.requests = 0
        self.mute = False
        self.speaks = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests += 1
                if collector.mute:
                    collector.speaks.wait()
                    return
                collector.take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, request: ExportTraceServiceRequest) -> None:
        assert path == "/v1/traces"
        for resource in request.resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list:
        return [span for span in self.spans if span.name == name]


def attributes(span) -> dict[str, object]:
    kinds = ("string_value", "int_value")
    return {
        a.key: [v.string_value for v in a.value.array_value.values]
        if a.value.HasField("array_value")
        else next(getattr(a.value, kind) for kind in kinds if a.value.HasField(kind))
        for a in span.attributes
    }


def total(collector: Collector, job: Job, what: str) -> int:
    """Of all windows that have ended."""
    return sum(int(attributes(span)[f"lovelace.{what}"]) for span in collector.named(f"process {job.topic}"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.speaks.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


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


def test_a_refused_write_is_seen_in_its_trace(job: Job, collector: Collector, postgres_server) -> None:
    worker = job.fleet.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200")
    eventually(lambda: bool(worker.events("assigned")))
    job.open(20)
    job.submit(20, bad=False)
    eventually(job.done)
    job.service.stop()
    postgres_server.freeze()
    try:
        job.submit(20, bad=False)
        eventually(lambda: bool(worker.events("waiting for the destination")))
    finally:
        postgres_server.thaw()

    def faults() -> list[str]:
        return [
            attribute.value.string_value
            for span in collector.named("write")
            for event in span.events
            for attribute in event.attributes
        ]

    eventually(lambda: "timeout" in faults())


def test_a_collector_that_never_answers_costs_nothing(job: Job, collector: Collector) -> None:
    collector.mute = True
    job.open(TOTAL)
    worker = job.fleet.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200")
    job.submit(TOTAL)
    eventually(job.done)
    eventually(lambda: collector.requests > 0)
    code, _ = worker.terminate()

    assert code == 0
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
