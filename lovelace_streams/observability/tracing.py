"""OpenTelemetry spans: one a window, from source to settlement, with a child a step and list; never one a record.

    process <pipeline> ─┬─ gather ─ decode ─ normalize ─ write, write, … ─ dead_letter
                        └─ report (from its own thread, after the settlement that it reports)

Off unless OpenTelemetry's own variables name a collector (docs/tracing.md); off, a step pays for one call a list. A
window is found by a record: `step("decode", record)` is a child of the window that the record was read in, so the span
of a letter or a block that waits belongs to the right window. Attributes say where and how many, never what (law 10).
An exporter that fails, is slow or is not installed costs spans and nothing else.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import structlog

from lovelace_streams.records import Envelope, Record
from lovelace_streams.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

log = structlog.get_logger(__name__)

LINKS_MAX = 32
"""Traces that one span is linked to: the first distinct ones of a window's records."""
WINDOWS_MAX = 1000
"""Windows that wait for their settlement; if there are more, the oldest span ends unsettled."""
ENDED_MAX = 100
"""Windows that can be found after their end: a report may come later."""
FLUSH_SECONDS = 2.0
"""How long a worker waits for its last spans when it ends."""
LOST_SPANS_LOG_SECONDS = 60.0
"""The log says at most this often that spans are lost."""


class SpanHandle:
    """A handle of an open span, to be used as a context manager or ended by `end`; this base class does nothing."""

    def set(self, **attributes: int | str) -> None:
        """Add attributes."""

    def event(self, name: str, **attributes: int | str) -> None:
        """Add an event."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that continue the trace in a request."""
        return {}

    def end(self) -> None:
        """End the span."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


OFF = SpanHandle()
_on: "Tracing | None" = None


def begin(settings: Settings) -> None:
    """Start tracing if OpenTelemetry's variables name a collector; raises nothing: if it can't start, it stays off."""
    global _on  # noqa: PLW0603 - a process is one worker
    endpoint = endpoint_of(settings)
    if endpoint is None:
        return
    try:
        _on = Tracing(*_provider(endpoint))
    except ImportError:
        log.warning("no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra lovelace-streams[otel] is missing")
    except Exception as error:  # noqa: BLE001 - records do not depend on traces, whatever is wrong with them
        log.warning("no traces: OpenTelemetry does not start", error=type(error).__name__)


def endpoint_of(settings: Settings) -> str | None:
    """Return the URL that traces are sent to; None if they are off.

    >>> endpoint_of(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:4318/", _env_file=None))
    'http://127.0.0.1:4318/v1/traces'
    """
    if settings.otel_sdk_disabled or settings.otel_traces_exporter != "otlp":
        return None
    if settings.otel_exporter_otlp_traces_endpoint:
        return settings.otel_exporter_otlp_traces_endpoint
    if settings.otel_exporter_otlp_endpoint:
        return f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    return None


def window(pipeline: str | None, envelopes: Sequence[Envelope[Any]]) -> None:
    """Open the span of a window that was gathered."""
    if _on is not None and envelopes:
        _on.window(pipeline, [envelope.record for envelope in envelopes])


def settled(holds: Callable[[Record], bool]) -> None:
    """End windows of which no record is held any more; called when a window has been through every step."""
    if _on is not None:
        _on.settled(holds)


def is_on() -> bool:
    """Whether spans are recorded."""
    return _on is not None


def step(name: str, of: "_OfRecord", **attributes: int | str) -> SpanHandle:
    """Open a child of the span of the window that an item, or a slice, was read in."""
    return _on.step(name, of.record, attributes) if _on is not None else OFF


def context(assignment: int, offset: int) -> "SpanContext | None":
    """Return the span of the window that an offset was read in, for use in another thread; None without one."""
    return _on.context(assignment, offset) if _on is not None else None


def request(name: str, contexts: "Iterable[SpanContext | None]", **attributes: int | str) -> SpanHandle:
    """Open the span of a request for these windows: a child of the first, linked to the others."""
    return _on.request(name, contexts, attributes) if _on is not None else OFF


def close() -> None:
    """End all spans and send them, for at most `FLUSH_SECONDS`."""
    global _on
    ending, _on = _on, None
    if ending is not None:
        ending.close()


class _OfRecord(Protocol):
    """What was read as a record: an item, or several."""

    @property
    def record(self) -> Record:
        """Its record; it may be made now."""


class _RecordedSpan(SpanHandle):
    """A span that is recorded and sent."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def set(self, **attributes: int | str) -> None:
        self._span.set_attributes(_prefixed(attributes))

    def event(self, name: str, **attributes: int | str) -> None:
        self._span.add_event(name, _prefixed(attributes))

    @property
    def headers(self) -> dict[str, str]:
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._span))
        return carrier

    def end(self) -> None:
        self._span.end()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, kind.__name__)  # the error's text may quote a row
        self.end()


class _Window:
    """A window and its open span. `held` are the records that are not settled yet."""

    def __init__(self, span: "Span", records: list[Record]) -> None:
        self.span = span
        self.records = records
        self.held = records
        self.offsets: dict[int, tuple[str, int, int, int]] = {}
        """Assignment → topic, partition, first and last offset; records of one assignment are consecutive."""
        for r in records:
            first = self.offsets.get(r.assignment, (r.topic, r.partition, r.offset, r.offset))[2]
            self.offsets[r.assignment] = (r.topic, r.partition, first, r.offset)

    def end(self) -> None:
        """End the span with the counts of its items."""
        counts = {
            "items": sum(r.items for r in self.records),
            "succeeded": sum(r.succeeded for r in self.records),
            "failed": sum(r.failed for r in self.records),
            "skipped": sum(r.skipped for r in self.records),
        }
        self.span.set_attributes(_prefixed(counts))
        self.span.end()
        self.records, self.held = [], []


class Tracing:
    """Open windows, oldest first, and the tracer. For one thread; only `request` may be called from another."""

    def __init__(self, tracer: "Tracer", shutdown: Callable[[], None]) -> None:
        self._tracer = tracer
        self._shutdown = shutdown
        self._windows: list[_Window] = []
        self._ended: deque[_Window] = deque(maxlen=ENDED_MAX)
        """A window is reported when its topic's id is confirmed, which may be after its end."""
        self._began = time.time_ns()

    def window(self, pipeline: str | None, records: list[Record]) -> None:
        """Open a window's span; it begins with the window's gathering."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        span = self._tracer.start_span(
            f"process {pipeline}",
            Context(),
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.consumer.group.name": str(pipeline),
                "messaging.batch.message_count": len(records),
                "lovelace.pipeline": str(pipeline),
            },
            _links(records),
            start_time=self._began,
        )
        opened = _Window(span, records)
        span.set_attribute(
            "lovelace.partitions", [f"{t}-{p}:{first}-{last}" for t, p, first, last in opened.offsets.values()]
        )
        self._windows.append(opened)
        self._child(opened.span, "gather", {}, self._began).end()
        for late in self._windows[:-WINDOWS_MAX]:
            self._end(late)
        del self._windows[:-WINDOWS_MAX]

    def settled(self, holds: Callable[[Record], bool]) -> None:
        """End the windows that are settled or given up; the next window's gathering begins."""
        for window in self._windows:
            window.held = [record for record in window.held if holds(record)]
            if not window.held:
                self._end(window)
        self._windows = [window for window in self._windows if window.held]
        self._began = time.time_ns()

    def step(self, name: str, record: Record, attributes: dict[str, int | str]) -> SpanHandle:
        """Open a child of the record's window; `OFF` if the window ended long ago."""
        if (window := self._find(record.assignment, record.offset)) is None:
            return OFF
        return _RecordedSpan(self._child(window.span, name, attributes))

    def context(self, assignment: int, offset: int) -> "SpanContext | None":
        """Return the span of the window that holds this offset."""
        window = self._find(assignment, offset)
        return window.span.get_span_context() if window is not None else None

    def request(
        self, name: str, contexts: "Iterable[SpanContext | None]", attributes: dict[str, int | str]
    ) -> SpanHandle:
        """Open the span of a client's request."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

        first, *others = {each.span_id: each for each in contexts if each is not None}.values() or [None]
        parent = set_span_in_context(NonRecordingSpan(first), Context()) if first is not None else Context()
        links = [Link(each) for each in others[:LINKS_MAX] if each is not None]
        return _RecordedSpan(self._tracer.start_span(name, parent, SpanKind.CLIENT, _prefixed(attributes), links))

    def close(self) -> None:
        """End open windows and send their spans. A daemon thread sends: it is abandoned after `FLUSH_SECONDS`."""
        for window in self._windows:
            window.end()
        sending = threading.Thread(target=self._shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)

    def _end(self, window: _Window) -> None:
        window.end()
        self._ended.append(window)

    def _find(self, assignment: int, offset: int) -> _Window | None:
        for window in (*reversed(self._windows), *reversed(self._ended)):
            if (read := window.offsets.get(assignment)) and read[2] <= offset <= read[3]:
                return window
        return None

    def _child(self, parent: "Span", name: str, attributes: dict[str, int | str], start: int | None = None) -> "Span":
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        within = set_span_in_context(parent, Context())
        return self._tracer.start_span(name, within, attributes=_prefixed(attributes), start_time=start)


def _prefixed(attributes: dict[str, int] | dict[str, int | str]) -> dict[str, int | str]:
    return {f"lovelace.{name}": value for name, value in attributes.items()}


def _links(records: Iterable[Record]) -> "list[Link]":
    """Return links to the traces that records were sent in (W3C's `traceparent` header), each once."""
    from opentelemetry.trace import Link, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    texts: dict[bytes, None] = {}
    for record in records:
        for name, value in record.headers:
            if name == "traceparent" and value is not None:
                texts[value] = None
        if len(texts) >= LINKS_MAX:
            break
    links = []
    for text in texts:
        sent = TraceContextTextMapPropagator().extract({"traceparent": text.decode("ascii", "replace")})
        if (found := get_current_span(sent).get_span_context()).is_valid:
            links.append(Link(found))
    return links


def _provider(endpoint: str) -> "tuple[Tracer, Callable[[], None]]":
    """Set up OpenTelemetry's SDK by its own variables (sampler, headers, sizes, resource). Raises `ImportError`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    sdk_log = logging.getLogger("opentelemetry")
    sdk_log.handlers, sdk_log.propagate = [_SdkWarnings()], False
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "lovelace-worker"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider.get_tracer("lovelace_streams"), provider.shutdown


class _SdkWarnings(logging.Handler):
    """Logs that the SDK warned, at most once in `LOST_SPANS_LOG_SECONDS`; not its text: a URL may hold a password."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Log that spans are lost."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + LOST_SPANS_LOG_SECONDS
            log.warning("traces are not taken; records go on without them", said_by=record.name)
