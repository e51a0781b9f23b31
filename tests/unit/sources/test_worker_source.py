"""A source of one's own: every step runs behind it as it does behind Kafka, and none of them was touched for it."""

from collections.abc import Sequence
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

import lovelace_streams as ls
from lovelace_streams.testing import MemoryWriter
from lovelace_streams.testing.broker import Broker, QuietProcess
from tests.pages import names_of

PAGE = names_of("docs/contributing/source.md")


def list_source(values: Sequence[bytes], committed: list[int]) -> Any:
    """The page's list of values; dead letters go to a broker in memory."""
    source = PAGE["ListSource"](list(values), committed, poll_size=2)
    source.clients = Broker(on_silence=lambda: None)
    source.process = QuietProcess()
    return source


class Item(ls.Row, table="items", primary_key="id"):
    id: int


def flow(source: ls.WorkerSource, writer: MemoryWriter) -> Dataflow:
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.worker_source("list", flow, source), ls.JsonDecoder(Item))
    items = ls.normalize("normalize", decoded.oks, Item)
    written = ls.upsert("upsert", ls.batch("batch", items.oks, ls.BatchPolicy()), writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
    return flow


def test_a_flow_runs_behind_a_source_of_ones_own() -> None:
    committed = [0]
    source = list_source([b'{"id": 1}', b"not json", b'{"id": "x"}', b'{"id": 4}', b'{"id": 5}'], committed)
    writer = MemoryWriter(Item)

    run_main(flow(source, writer))

    assert source.fault is None
    assert sorted(row["id"] for row in writer.table.values()) == [1, 4, 5]
    letters = source.clients.logs["items.dlq", 0]
    assert [dict(letter.headers())["lovelace-reason"] for letter in letters] == [b"not_json", b"wrong_type"]
    assert [dict(letter.headers())["lovelace-origin"] for letter in letters] == [b"id/list/0/1", b"id/list/0/2"]
    assert committed[-1] == 5


def test_a_restart_goes_on_at_the_committed_position() -> None:
    committed = [0]
    values = [b'{"id": %d}' % n for n in range(3)]
    run_main(flow(list_source(values, committed), MemoryWriter(Item)))
    writer = MemoryWriter(Item)

    run_main(flow(list_source([*values, b'{"id": 7}'], committed), writer))

    assert [row["id"] for row in writer.table.values()] == [7]
    assert committed[-1] == 4
