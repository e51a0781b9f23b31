"""3. `Envelope[raw item]` → `Envelope[Row]`: items become rows, by the row classes' declarations.

The mapping itself is `rows`: generated code, and the interpreter that decides where that code raises.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.columns import Part, Slice
from lovelace_streams.errors import DeploymentFault, RecordFault
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.operators.ports import Sorted, by_list, split
from lovelace_streams.records import DeadLetter, Envelope
from lovelace_streams.rows.declaration import Skip
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.normalizer import Normalizer, normalizer
from lovelace_streams.rows.row import Row
from lovelace_streams.runtime.worker import WorkerContext


@operator
def normalize(
    step_id: str,
    up: Stream[Envelope[Any]],
    target: type[Row] | Callable[..., Any] | Sequence[type[Row]],
    source: WorkerContext | None = None,
    skips: Collection[str] = (),
) -> Sorted:
    """Map each decoded item to a row, by a row class or by a function: `Envelope[raw item]` → `Envelope[Row]`.

    `target` is the row class; a list with one row class for each table; or a function that takes the decoded item and
    returns a `Row`, several of them, or a `Skip`. Rows leave by `oks`, `Skip`s by `skipped`. An item that does not fit
    leaves by `errs` with a reason, the path, what was expected and which kind was found; never with the value. `skips`
    declares the reasons of the flow's own that functions skip items for: `skips=("draft",)`.

    An item of a table that is not in `target` is the deployment's fault: with the `source` the worker stops with exit
    code 78, without it `DeploymentFault` is raised in the flow. A restart maps again what is read again, to the same
    rows.

    >>> from lovelace_streams import From, Row
    >>> from lovelace_streams.testing import mapped  # this step and `decode`, by themselves
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> mapped(Order, {"id": "7"}).row, mapped(Order, {"id": "seven"}).letter.detail
    (Order(id=7), 'expected int, got str at $.id')
    """
    mapper = normalizer(target, skips=skips)

    def sort_or_stop(envelopes: list[Envelope[Any]]) -> Ports:
        try:
            return sort(mapper, envelopes)
        except DeploymentFault as fault:
            if source is None:
                raise
            source.note(fault)
            return Ports()

    return split(op.flat_map_batch("sort", up, by_list("normalize", sort_or_stop, skips)))


def sort(mapper: Normalizer, envelopes: Iterable[Part]) -> Ports:
    """Sort items into rows, dead letters and skips."""
    ports = Ports()
    add = ports.oks.append
    now = int(time.time() * 1000)
    newest_version = latest(now)
    target = to_row = None
    for envelope in envelopes:
        if isinstance(envelope, Slice):  # `decode` has mapped these, in one loop (`rows.loops`)
            add(envelope)
            continue
        raw = envelope.payload
        if raw.target is not target:
            target = raw.target
            to_row = mapper.generated(target)
        if to_row is not None and raw.item is not None:
            try:
                add(
                    Envelope(
                        envelope.record, envelope.item, to_row(raw.item, raw.root, envelope.record, newest_version)
                    )
                )
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - whatever it was, the interpreter decides the reason
                _interpret(mapper, envelope, now, ports)
        else:
            _interpret(mapper, envelope, now, ports)
    return ports


def _interpret(mapper: Normalizer, envelope: Envelope[Any], now: int, ports: Ports) -> None:
    try:
        rows = mapper.interpret(envelope, now)
    except RecordFault as fault:
        ports.errs.append(
            DeadLetter(envelope.record, envelope.item, 1, "normalize", fault.reason, fault.detail, fault.code)
        )
        return
    if isinstance(rows, Skip):
        ports.skipped.append((rows.reason, envelope))
    else:
        ports.oks.append(Envelope(envelope.record, envelope.item, rows))
