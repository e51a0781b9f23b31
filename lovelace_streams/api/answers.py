"""What operations answer besides their result, for the OpenAPI document; a test compares it with the real answers."""

from typing import Any, TypeAlias

from lovelace_streams.api.models import Faults, Problem

Answers: TypeAlias = dict[int | str, dict[str, Any]]
"""Status → what FastAPI writes of it into the document."""

RETRY_AFTER = "2"
_RETRY = {"Retry-After": {"description": "Seconds until another try", "schema": {"type": "integer"}}}

UNREADABLE: Answers = {
    400: {"model": Problem, "description": "The body can't be read as text, or is nested too deeply"}
}
"""FastAPI's own answer. A body that is text and no JSON gets 422."""
UNAUTHORIZED: Answers = {401: {"model": Problem}}
NOT_FOUND: Answers = {404: {"model": Problem}}
CONFLICT: Answers = {409: {"model": Problem}}
TOO_LARGE: Answers = {413: {"model": Problem}}
INVALID: Answers = {422: {"model": Faults}}
AWAY: Answers = {503: {"model": Problem, "headers": _RETRY}}
NOT_LIVE: Answers = {503: {"model": dict[str, str]}}
NOT_READY: Answers = {503: {"model": dict[str, str], "headers": _RETRY}}


def _text(media_type: str, description: str) -> Answers:
    """Declare a result that is no JSON. The class of the response may say no type: it would be the errors' as well."""
    return {200: {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}}


METRICS = _text("text/plain", "Prometheus' text format")
STREAM = _text("text/event-stream", "Server-sent events")
"""`response_class=EventSourceResponse` would say it too, but FastAPI takes every route with it for one that yields."""
