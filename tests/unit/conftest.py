"""What tests without servers share."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Undo what `capture_logs` leaves: it configures structlog, and examples then log to standard output."""
    yield
    structlog.reset_defaults()
