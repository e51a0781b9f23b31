"""A flow with every kind of step, ours and its author's, that can leave any of its ports.

LEFT=upsert.errs python -m bytewax.run tests.unit.sources.leaving
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream, operator

import lovelace_streams as ls
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.operators.ports import Sorted, by_list, split
from lovelace_streams.records import Envelope
from lovelace_streams.writers.postgres import PostgresWriter

PORTS = (
    "decode.errs",
    "decode.skipped",
    "normalize.errs",
    "normalize.skipped",
    "validate.errs",
    "validate.skipped",
    "keep.errs",
    "keep.skipped",
    "priced.falses",
    "upsert.settled",
    "upsert.errs",
)


class Item(ls.Row, table="items", primary_key="id"):
    id: int


@dataclass(frozen=True)
class Priced:
    """Ports that a step's author named."""

    trues: Stream
    falses: Stream


def everything(envelopes: Iterable[Envelope[Any]]) -> Ports:
    ports = Ports()
    ports.oks += envelopes
    return ports


@operator
def keep(step_id: str, up: Stream) -> Sorted:
    """A step that its author composed."""
    return split(op.flat_map_batch("sort", up, by_list("keep", everything)))


def flow_without(*left: str, settings: ls.Settings | None = None) -> Dataflow:
    """All steps; nothing takes the ports that are named."""
    settings = settings or ls.Settings(_env_file=None)
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))
    items = ls.normalize("normalize", decoded.oks, Item)
    valid = split(op.flat_map_batch("validate", items.oks, by_list("validate", everything)))
    kept = keep("keep", valid.oks)
    priced = op.branch("priced", kept.oks, bool)
    op.inspect("look", priced.trues, lambda *_: None)  # a look at a stream is none of its items' ways
    batches = ls.batch(
        "batch", op.merge("all", *_taken(left, priced.trues, ("priced.falses", priced.falses))), settings.batch
    )
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Item), source)
    errs = _taken(
        left,
        ("decode.errs", decoded.errs),
        ("normalize.errs", items.errs),
        ("validate.errs", valid.errs),
        ("keep.errs", kept.errs),
        ("upsert.errs", written.errs),
    )
    dead = ls.dead_letter("dead_letter", source, *errs)
    settled = _taken(
        left,
        ("upsert.settled", written.settled),
        ("dead_letter.settled", dead.settled),
        ("decode.skipped", decoded.skipped),
        ("normalize.skipped", items.skipped),
        ("validate.skipped", valid.skipped),
        ("keep.skipped", kept.skipped),
    )
    ls.commit("commit", source, *settled)
    return flow


def _taken(left: tuple[str, ...], *streams: Any) -> list[Stream]:
    named = [stream if isinstance(stream, tuple) else ("", stream) for stream in streams]
    return [stream for name, stream in named if name not in left]


def flow() -> Dataflow:
    """As the engine finds it."""
    return flow_without(*filter(None, os.environ.get("LEFT", "").split(",")), settings=ls.Settings())
