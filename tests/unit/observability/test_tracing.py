"""Spans as OpenTelemetry's own SDK records them: their parents and links, and none when tracing is off."""

import builtins
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lovelace_streams.observability import tracing
from lovelace_streams.observability.tracing import ENDED_MAX, LINKS_MAX, OFF, WINDOWS_MAX, Tracing
from lovelace_streams.records import Envelope, Record
from lovelace_streams.settings import Settings


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_on", Tracing(provider.get_tracer("test"), provider.shutdown))
    yield exporter
    tracing.close()


def window(first: int, count: int = 2, assignment: int = 1, **headers: bytes) -> list[Envelope[Any]]:
    return [
        Envelope(Record("raw", 0, offset, offset, assignment, None, b"", list(headers.items()), -1, items=1), 0, None)
        for offset in range(first, first + count)
    ]


def named(exported: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exported.get_finished_spans() if span.name == name]


def keep_none(_: Record) -> bool:
    return False


def test_a_letter_belongs_to_the_window_its_record_was_read_in(exported: InMemorySpanExporter) -> None:
    held, later = window(0), window(2)
    tracing.window("p", held)
    tracing.settled(lambda record: record.offset == 1)
    tracing.window("p", later)
    with tracing.step("dead_letter", held[1], letters=1):
        pass
    tracing.settled(keep_none)

    [letter] = named(exported, "dead_letter")
    first, second = sorted(named(exported, "process p"), key=lambda span: span.start_time)
    assert letter.parent is not None
    assert letter.parent.span_id == first.context.span_id != second.context.span_id
    assert letter.attributes == {"lovelace.letters": 1}


def test_a_report_that_comes_after_the_end_still_finds_its_windows(exported: InMemorySpanExporter) -> None:
    for first in (0, 2):
        tracing.window("p", window(first))
        tracing.settled(keep_none)
    with tracing.request("report", [tracing.context(1, 1), tracing.context(1, 2), tracing.context(1, 1)]) as asked:
        assert asked.headers.keys() == {"traceparent"}

    [report] = named(exported, "report")
    first, second = named(exported, "process p")
    assert report.parent is not None
    assert report.parent.span_id == first.context.span_id
    assert [link.context.span_id for link in report.links] == [second.context.span_id]


def test_a_record_of_no_known_window_has_no_span(exported: InMemorySpanExporter) -> None:
    for first in range(0, 2 * (ENDED_MAX + 1), 2):
        tracing.window("p", window(first))
        tracing.settled(keep_none)

    assert tracing.step("write", window(0)[0]) is OFF
    assert tracing.step("write", window(2, assignment=2)[0]) is OFF
    assert tracing.context(1, 2) is not None


def test_windows_that_are_never_settled_do_not_pile_up(exported: InMemorySpanExporter) -> None:
    for first in range(0, 2 * (WINDOWS_MAX + 3), 2):
        tracing.window("p", window(first))
        tracing.settled(lambda _: True)

    assert len(named(exported, "process p")) == 3


def test_links_are_distinct_bounded_and_valid(exported: InMemorySpanExporter) -> None:
    traces = [f"00-{n + 1:032x}-{n + 1:016x}-01".encode() for n in range(LINKS_MAX + 10)]
    many = [each for n in traces for each in window(0, traceparent=n)]
    for offset, envelope in enumerate(many):
        envelope.record.offset = offset
    for first, envelopes in enumerate((many, window(200, traceparent=traces[0]), window(300, traceparent=b"\xff00-x"))):
        tracing.window(f"p{first}", envelopes)
    tracing.settled(keep_none)

    links = [len(span.links) for n in range(3) for span in named(exported, f"process p{n}")]
    assert links == [LINKS_MAX, 1, 0]


def test_a_failed_span_has_the_error_s_class_and_not_its_text(exported: InMemorySpanExporter) -> None:
    read = window(0)
    tracing.window("p", read)
    with pytest.raises(ValueError, match="secret"), tracing.step("write", read[0]):
        raise ValueError("secret")

    [span] = named(exported, "write")
    assert span.status.description == "ValueError"
    assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"otel_exporter_otlp_endpoint": ""},
        {"otel_exporter_otlp_endpoint": "http://127.0.0.1:4318", "otel_sdk_disabled": True},
        {"otel_exporter_otlp_endpoint": "http://127.0.0.1:4318", "otel_traces_exporter": "none"},
    ],
)
def test_tracing_is_off_unless_a_collector_is_named(settings: dict[str, Any]) -> None:
    tracing.begin(Settings(**settings, _env_file=None))

    read = window(0)
    tracing.window("p", read)
    assert tracing.step("decode", read[0].record) is OFF
    assert OFF.headers == {}


def test_without_the_extra_there_are_no_traces_and_no_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    tracing.begin(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:4318", _env_file=None))

    assert tracing.step("decode", window(0)[0].record) is OFF
    shown = capsys.readouterr()
    assert "lovelace-streams[otel]" in shown.out + shown.err
