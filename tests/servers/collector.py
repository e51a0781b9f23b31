"""A collector of traces: takes what a worker sends, OTLP over HTTP, and takes it apart again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


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

    def events(self, name: str) -> list[str]:
        """What the events of these spans say."""
        told = [attribute for span in self.named(name) for event in span.events for attribute in event.attributes]
        return [attribute.value.string_value for attribute in told]


def attributes(span) -> dict[str, object]:
    kinds = ("string_value", "int_value")
    return {
        a.key: [v.string_value for v in a.value.array_value.values]
        if a.value.HasField("array_value")
        else next(getattr(a.value, kind) for kind in kinds if a.value.HasField(kind))
        for a in span.attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.speaks.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()
