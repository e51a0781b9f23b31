"""The destination's part of a check: its table is as the rows say."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lovelace_streams.admin.check.report import CheckReport
from lovelace_streams.rows.interpreter import has_bound
from lovelace_streams.rows.row import Row
from lovelace_streams.writers import SupportsEvolution, SupportsNotes, Writer, check_capabilities

WRITER_CALL_SECONDS = 120.0
"""The longest that one call of a writer may take."""


def check_destination(writer: Writer, report: CheckReport) -> bool:
    """Compare the rows with the real table. Answers whether rows can be tried on it."""
    check_capabilities(writer)
    if isinstance(writer, SupportsEvolution) and writer.evolves:
        writer.evolves = False
        lacking = writer.evolution()
        if lacking.addable:
            report.add("note", f"a worker adds at its start (TABLE_EVOLUTION=add): {' '.join(lacking.statements)}")
            report.add("note", "no row was tried: the table lacks these columns until a worker has added them")
            return False
    with bounded(writer):
        writer.open()
    rows = ", ".join(row.__name__ for row in writer.rows)
    report.add("ok", f"{writer.name}: the table is as {rows} say")
    for note in (*_versions_without_bound(writer.rows), *(writer.notes() if isinstance(writer, SupportsNotes) else ())):
        report.add("note", note)
    return True


def _versions_without_bound(rows: Sequence[type[Row]]) -> Iterator[str]:
    """Yield a line for each row class whose version may be of the future and win for ever."""
    for row in rows:
        version = row.__table__.version_column
        if version is not None and not has_bound(version):
            kind = getattr(version.type, "__name__", str(version.type))
            unit = ': Annotated[int, Epoch("ms")] says that it counts milliseconds' if version.type is int else ""
            yield (
                f"the version {row.__name__}.{version.name} is {kind}, so nothing tells one of the future, which"
                f" would win for ever{unit}"
            )


@contextmanager
def bounded(writer: Writer) -> Iterator[None]:
    """Abort a call of the writer that gets no answer: a frozen server keeps no timeout of its own."""
    timer = threading.Timer(WRITER_CALL_SECONDS, writer.abort)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
