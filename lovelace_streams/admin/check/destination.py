"""The destination's part of a check: its table is as the rows say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lovelace_streams.admin.check.report import CheckReport
from lovelace_streams.writers import SupportsEvolution, Writer, check_capabilities

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
    return True


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
