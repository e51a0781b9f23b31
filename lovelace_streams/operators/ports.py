"""Make the streams `oks`, `errs` and `skipped` of lists that plain code has sorted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.formats.decoder import Ports
from lovelace_streams.observability import tracing
from lovelace_streams.records import DeadLetter, Envelope, Outcome, Reason, Settled, skip_reasons


@dataclass(frozen=True)
class Sorted:
    """Three ports: items for the next step, dead letters, and skipped items with their reason."""

    oks: Stream[Envelope[Any]]
    errs: Stream[DeadLetter]
    skipped: Stream[Settled]


_REASONS = frozenset(Reason)


def by_list(
    step: str, sort: Callable[[list[Envelope[Any]]], Ports], skips: Iterable[str] = ()
) -> Callable[[list[Envelope[Any]]], list[Ports]]:
    """Make a function that sorts a list of items into `Ports`, in a span of its own.

    `skips` declares the reasons of the step's own that it skips items for. An item that is skipped for any other reason
    is a dead letter `rule`, and so is one that is refused for a reason that is no `Reason`: both sets are closed.
    """
    known = skip_reasons(skips)

    def sort_list(envelopes: list[Envelope[Any]]) -> list[Ports]:
        with tracing.step(step, envelopes[0], taken=len(envelopes)) as span:
            ports = sort(envelopes)
            if ports.skipped or ports.errs:
                _close_sets(step, ports, known)
            span.set(**ports.sizes)
        return [ports]

    return sort_list


def _close_sets(step: str, ports: Ports, skips: frozenset[str]) -> None:
    """Make dead letters `rule` of items that are skipped or refused for a reason that nobody declared."""
    for letter in ports.errs:
        if letter.reason not in _REASONS:
            letter.reason = Reason.RULE
        if letter.detail.__class__ is not str:  # the step is the flow's own: no type checker has seen it
            letter.detail = ""
    if all(reason in skips for reason, _ in ports.skipped):
        return
    detail = (
        f"{step} skips it for a reason that the flow does not declare: by_list(…, skips=(…)) names those of its own"
    )
    undeclared = [envelope for reason, envelope in ports.skipped if reason not in skips]
    ports.errs += [DeadLetter(e.record, e.item, e.count, step, Reason.RULE, detail) for e in undeclared]
    ports.skipped = [(reason, envelope) for reason, envelope in ports.skipped if reason in skips]


def split(sorted_lists: Stream[Ports]) -> Sorted:
    """Make three streams of a stream of `Ports`. A flow has to hand on all three."""
    named = sorted_lists.stream_id.split(".")[-2]
    return _sorted_ports(f"{named}_ports", sorted_lists, named)


def sorted_ports(step_id: str, lists: Stream[Ports], named: str) -> Sorted:
    """Give the three streams as the ports of one step: an item leaves by one of them only.

    `named` is the step that has sorted, by which the flow's author knows the ports.
    """
    return Sorted(
        oks=op.flat_map_batch("oks", lists, _oks),
        errs=op.flat_map_batch("errs", lists, _errs),
        skipped=op.flat_map_batch("skipped", lists, _skipped),
    )


_sorted_ports = operator(sorted_ports)  # a part of operators: no flow names it


def _oks(lists: list[Ports]) -> list[Envelope[Any]]:
    return [envelope for ports in lists for envelope in ports.oks]


def _errs(lists: list[Ports]) -> list[DeadLetter]:
    return [letter for ports in lists for letter in ports.errs]


def _skipped(lists: list[Ports]) -> list[Settled]:
    pairs = sorted((pair for ports in lists for pair in ports.skipped), key=itemgetter(0))
    return [
        Settled(Outcome.SKIPPED, [envelope for _, envelope in group], reason)
        for reason, group in groupby(pairs, key=itemgetter(0))
    ]
