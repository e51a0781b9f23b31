"""Structured logs: an event a list or a state change, never a record; JSON where nobody looks, else colours."""

import logging
import sys

import structlog

from lovelace_streams import metrics, tracing
from lovelace_streams.settings import Settings


def observe() -> None:
    """What a process shows of itself, as the environment says: log, metrics (unless METRICS_PORT is 0), traces."""
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    if settings.metrics_port:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    tracing.begin(settings)


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Set up structlog for a worker or the API: `form` is `json`, `console`, or `auto` (console on a terminal)."""
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    renderer = structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
