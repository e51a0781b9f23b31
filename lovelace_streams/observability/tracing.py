"""OpenTelemetry spans, one a window from source to settlement, with a child a step and list; never one a record.

    process <pipeline> ─┬─ gather ─ decode ─ normalize ─ write, write, … ─ dead_letter
                        └─ report (from its own thread, after the settlement that it tells of)

Off unless OpenTelemetry's own variables name a collector (docs/tracing.md); off, a step pays for one call a list. What
is on its way is found by its record: `step("decode", record)` is a child of the window that this record was read in, so
that what is held back belongs where it came from. Attributes say where and how many, never what (law 10).
An exporter that fails, is slow or is not installed costs spans and nothing else.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog

from lovelace_streams.records import Envelope, Record
from lovelace_streams.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

log = structlog.get_logger(__name__)

LINKS_MAX = 32
"""Traces that one span is linked to: of a window's records, the first that are told apart."""
WINDOWS_MAX = 1000
"""Windows that wait for their settlement; past it the oldest span ends as it is."""
ENDED_MAX = 100
"""Windows that are remembered after their end."""
FLUSH_SECONDS = 2.0
"""How long a worker that ends waits for its last spans."""
COMPLAIN_SECONDS = 60.0
"""How often the log says that spans are lost."""


class Step:
    """A span on its way, to be used as a context manager or ended by hand; this one is none, and does nothing."""

    def set(self, **attributes: int | str) -> None:
        """Say more."""

    def event(self, name: str, **attributes: int | str) -> None:
        """Something happened meanwhile."""

    @property
    def headers(self) -> dict[str, str]:
        """What carries the trace on in a request."""
        return {}

    def end(self) -> None:
        """It is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


OFF = Step()
_on: "Tracing | None" = None


def begin(settings: Settings) -> None:
    """Trace from now on, if OpenTelemetry's variables name a collector; else, or where that can't be, stay off."""
    global _on  # noqa: PLW0603 - a process is one worker
    endpoint = endpoint_of(settings)
    if endpoint is None:
        return
    try:
        _on = Tracing(*_provider(endpoint))
    except ImportError:
        log.warning("no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra lovelace-streams[otel] is missing")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, records do not depend on it
        log.warning("no traces: OpenTelemetry does not start", error=type(error).__name__)


def endpoint_of(settings: Settings) -> str | None:
    """Where traces go; None where they are off.

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
    """A window was gathered and goes on its way."""
    if _on is not None and envelopes:
        _on.window(pipeline, [envelope.record for envelope in envelopes])


def settled(holds: Callable[[Record], bool]) -> None:
    """A window has been through every step: end the spans of those of which nothing is held any more."""
    if _on is not None:
        _on.settled(holds)


def step(name: str, record: Record, **attributes: int | str) -> Step:
    """A child of the window that the record was read in."""
    return _on.step(name, record, attributes) if _on is not None else OFF


def context(assignment: int, offset: int) -> "SpanContext | None":
    """The window that an offset was read in, to be handed to another thread."""
    return _on.context(assignment, offset) if _on is not None else None


def request(name: str, contexts: "Iterable[SpanContext | None]", **attributes: int | str) -> Step:
    """A request on behalf of these windows: child of the first, linked to the others."""
    return _on.request(name, contexts, attributes) if _on is not None else OFF


def close() -> None:
    """Send what is left, for at most `FLUSH_SECONDS`."""
    global _on
    ending, _on = _on, None
    if ending is not None:
        ending.close()


class _Live(Step):
    """A span that is recorded."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def set(self, **attributes: int | str) -> None:
        self._span.set_attributes(_named(attributes))

    def event(self, name: str, **attributes: int | str) -> None:
        self._span.add_event(name, _named(attributes))

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

            self._span.set_status(StatusCode.ERROR, kind.__name__)  # its text may quote a row
        self.end()


class _Window:
    """A window whose records are not all settled yet."""

    def __init__(self, span: "Span", records: list[Record]) -> None:
        self.span = span
        self.records = records
        self.held = records
        self.places: dict[int, tuple[str, int, int, int]] = {}
        """Assignment → topic, partition, first and last offset; a window's records of one are consecutive."""
        for r in records:
            first = self.places.get(r.assignment, (r.topic, r.partition, r.offset, r.offset))[2]
            self.places[r.assignment] = (r.topic, r.partition, first, r.offset)

    def end(self) -> None:
        """Say what became of its items."""
        counts = {
            "items": sum(r.items for r in self.records),
            "succeeded": sum(r.succeeded for r in self.records),
            "failed": sum(r.failed for r in self.records),
            "skipped": sum(r.skipped for r in self.records),
        }
        self.span.set_attributes(_named(counts))
        self.span.end()
        self.records, self.held = [], []


class Tracing:
    """Windows on their way, oldest first, and what makes spans. One thread, but for `request`."""

    def __init__(self, tracer: "Tracer", shutdown: Callable[[], None]) -> None:
        self._tracer = tracer
        self._shutdown = shutdown
        self._windows: list[_Window] = []
        self._ended: deque[_Window] = deque(maxlen=ENDED_MAX)
        """Reports tell of a window when its topic's id is confirmed, which may be after its end."""
        self._began = time.time_ns()

    def window(self, pipeline: str | None, records: list[Record]) -> None:
        """Open a window's span, from when its gathering began."""
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
            "lovelace.partitions", [f"{t}-{p}:{first}-{last}" for t, p, first, last in opened.places.values()]
        )
        self._windows.append(opened)
        self._child(opened.span, "gather", {}, self._began).end()
        for late in self._windows[:-WINDOWS_MAX]:
            self._end(late)
        del self._windows[:-WINDOWS_MAX]

    def settled(self, holds: Callable[[Record], bool]) -> None:
        """End what is settled (or was given up); the next window's gathering begins."""
        for window in self._windows:
            window.held = [record for record in window.held if holds(record)]
            if not window.held:
                self._end(window)
        self._windows = [window for window in self._windows if window.held]
        self._began = time.time_ns()

    def step(self, name: str, record: Record, attributes: dict[str, int | str]) -> Step:
        """A child of the record's window; none where that ended long ago."""
        if (window := self._find(record.assignment, record.offset)) is None:
            return OFF
        return _Live(self._child(window.span, name, attributes))

    def context(self, assignment: int, offset: int) -> "SpanContext | None":
        """Of the window that holds this offset."""
        window = self._find(assignment, offset)
        return window.span.get_span_context() if window is not None else None

    def request(self, name: str, contexts: "Iterable[SpanContext | None]", attributes: dict[str, int | str]) -> Step:
        """A client's span."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

        first, *others = {each.span_id: each for each in contexts if each is not None}.values() or [None]
        parent = set_span_in_context(NonRecordingSpan(first), Context()) if first is not None else Context()
        links = [Link(each) for each in others[:LINKS_MAX] if each is not None]
        return _Live(self._tracer.start_span(name, parent, SpanKind.CLIENT, _named(attributes), links))

    def close(self) -> None:
        """End what is open, send what is left; the thread that does is left behind where that takes too long."""
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
            if (place := window.places.get(assignment)) and place[2] <= offset <= place[3]:
                return window
        return None

    def _child(self, parent: "Span", name: str, attributes: dict[str, int | str], start: int | None = None) -> "Span":
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        within = set_span_in_context(parent, Context())
        return self._tracer.start_span(name, within, attributes=_named(attributes), start_time=start)


def _named(attributes: dict[str, int] | dict[str, int | str]) -> dict[str, int | str]:
    return {f"lovelace.{name}": value for name, value in attributes.items()}


def _links(records: Iterable[Record]) -> "list[Link]":
    """The traces that records were sent in (W3C's `traceparent` header), each once."""
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
    """OpenTelemetry's SDK, as its own variables say (sampler, headers, sizes, resource). Raises `ImportError`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    complaints = logging.getLogger("opentelemetry")
    complaints.handlers, complaints.propagate = [_Complaints()], False
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "lovelace-worker"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider.get_tracer("lovelace_streams"), provider.shutdown


class _Complaints(logging.Handler):
    """What the SDK complains of, without its text (a URL may hold a password), and not more often than it helps."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Say that spans are lost."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + COMPLAIN_SECONDS
            log.warning("traces are not taken; records go on without them", said_by=record.name)
