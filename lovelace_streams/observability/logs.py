"""Structured logs: an event a list or a state change, never a record; JSON where nobody looks, else colours."""

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor

from lovelace_streams.observability import metrics, tracing
from lovelace_streams.settings import Settings


def observe() -> None:
    """What a process shows of itself, as the environment says: log, metrics (unless METRICS_PORT is 0), traces."""
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    if settings.metrics_port:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    tracing.begin(settings)


class StandardError:
    """Standard error as it is at the time: whoever puts another in its place gets what is written from then on."""

    def write(self, text: str) -> int:
        """Write to it."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Have it written."""
        sys.stderr.flush()


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Set up all logs of a worker or the API: `form` is `json`, `console`, or `auto` (console on a terminal).

    What libraries log (librdkafka, uvicorn) has the same form; of theirs, warnings and what is worse.
    """
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    renderer = structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer()
    described: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*described, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", StandardError())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *described],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
