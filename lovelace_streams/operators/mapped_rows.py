"""Which row classes reach a writer, as far as the flow's own steps tell when it is built."""

from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

from bytewax.dataflow import Stream

from lovelace_streams.formats.decoder import SupportsTargets
from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Writer


def foreign_rows(up: Stream[Any], writer: Writer) -> list[str]:
    """Name the row classes that `normalize` makes for a stream of batches, and that the writer was not given.

    It looks at `decode`, `normalize` and `batch`, where they follow each other. A function tells its classes by the
    annotation of what it returns; a base class there may stand for any class of it.
    """
    decode, normalize = _steps_before(up)
    if normalize is None:
        return []
    decoder = None if decode is None else decode.decoder
    targets = decoder.targets if isinstance(decoder, SupportsTargets) else None
    if callable(normalize.target) and not isinstance(normalize.target, type):
        whats = [normalize.target]
    elif targets is not None:
        whats = [target.row or target.function for target in targets.values()]
    else:
        whats = [] if not isinstance(normalize.target, type) else [normalize.target]
    foreign = [what for what in whats if isinstance(what, type) and what not in writer.rows]
    for what in whats:
        if not isinstance(what, type):
            foreign += [row for row in _returned(what) if not any(issubclass(own, row) for own in writer.rows)]
    return list(dict.fromkeys(row.__name__ for row in foreign))


def _steps_before(up: Stream[Any]) -> tuple[Any, Any]:
    """Return the steps `decode` and `normalize` before a stream of batches; None for one that is not there."""
    made_by = {
        stream: step
        for step in up.flow().substeps
        for port in step.dwn_names
        for stream in getattr(step, port).stream_ids.values()
    }
    found: list[Any] = []
    stream: str | None = up.stream_id
    for operator in ("batch", "normalize", "decode"):
        step: Any = made_by.get(stream) if stream is not None else None
        is_ours = step is not None and type(step).__name__ == operator
        found.append(step if is_ours else None)
        stream = next(iter(step.up.stream_ids.values())) if is_ours else None
    return found[2], found[1]


def _returned(function: Callable[..., Any]) -> Iterator[type[Row]]:
    """Yield the row classes in the annotation of what a function returns."""
    try:
        left = [get_type_hints(function).get("return")]
    except (NameError, TypeError, AttributeError):  # names that are not there yet; a callable without annotations
        return
    while left:
        hint = left.pop()
        if isinstance(hint, type) and issubclass(hint, Row) and hint is not Row:
            yield hint
        left += get_args(hint)
