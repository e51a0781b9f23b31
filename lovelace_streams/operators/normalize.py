"""3. `Envelope[raw item]` → `Envelope[Row]`: what a source calls a thing becomes what the table calls it."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.errors import DeploymentFault, RecordFault
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.operators.ports import Sorted, by_list, split
from lovelace_streams.records import DeadLetter, Envelope, SkipReason
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
) -> Sorted:
    """Map each item to a row of the class that its event names, or by a plain function.

    `target` is the row class, or one of each table where events are of several, or the function.

    A function takes the decoded item and answers `Row`, several of them, or `Skip`. What does not fit leaves by `errs`
    with path, expectation and kind, never with the value; `Skip` leaves by `skipped`. Items of a table that `target` is
    not of are the deployment's fault: with the `source` the worker stops with exit code 78, without it by an exception.
    """
    mapper = normalizer(target)

    def sort_or_stop(envelopes: list[Envelope[Any]]) -> Ports:
        try:
            return sort(mapper, envelopes)
        except DeploymentFault as fault:
            if source is None:
                raise
            source.note(fault)
            return Ports()

    return split(op.flat_map_batch("sort", up, by_list("normalize", sort_or_stop)))


def sort(mapper: Normalizer, envelopes: Iterable[Envelope[Any]]) -> Ports:
    """Items as rows, letters and skips."""
    ports = Ports()
    add = ports.oks.append
    now = int(time.time() * 1000)
    believed = latest(now)
    target = made = None
    for envelope in envelopes:
        raw = envelope.payload
        if raw.target is not target:
            target = raw.target
            made = mapper.generated(target)
        if made is not None and raw.item is not None:
            try:
                add(Envelope(envelope.record, envelope.item, made(raw.item, raw.root, envelope.record, believed)))
            except Exception:  # noqa: BLE001 - whatever it was, the plain way says what it is
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
        ports.skipped.append((SkipReason(rows.reason), envelope))
    else:
        ports.oks.append(Envelope(envelope.record, envelope.item, rows))
