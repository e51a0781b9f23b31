"""Structured logs: an event for a list or a change of state, never for a record; colours on a terminal, else JSON."""

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor

from lovelace_streams.observability import metrics, tracing
from lovelace_streams.observability.multiprocess import make_metrics_folder
from lovelace_streams.settings import Settings, unread_variables

log = structlog.get_logger(__name__)


def observe() -> None:
    """Set up logs, metrics (unless METRICS_PORT is 0) and traces from the environment's settings."""
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    for line in unread_variables():
        log.warning(line)
    make_metrics_folder()
    if settings.metrics_port:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    tracing.begin(settings)


class CurrentStderr:
    """The current `sys.stderr`: code that replaces it (a test, a terminal) gets what is logged from then on."""

    def write(self, text: str) -> int:
        """Write a text."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush what was written."""
        sys.stderr.flush()


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Set up all logs of a worker or the API: `form` is `json`, `console`, or `auto` (console on a terminal).

    Logs of libraries (librdkafka, uvicorn) get the same form, from level WARNING on.
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
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", CurrentStderr())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(CurrentStderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *described],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
