"""What is read from a flow: how far our own steps follow each other, and what `lovelace check` says of the rest."""

from collections.abc import Callable

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow, Stream, operator

import lovelace_streams as ls
from lovelace_streams.admin.check.sample import where_it_ends
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.topology import Route, topology_of
from lovelace_streams.testing import MemoryWriter
from tests.dataflows import test_own_step

Between = Callable[[str, Stream], Stream]


class Item(ls.Row, table="items", primary_key="id"):
    id: int


@operator
def audit(step_id: str, up: Stream) -> Stream:
    """A step that its author composed of others."""
    return op.map("mark", op.filter("pass", up, bool), lambda it: it)


def flow(**between: Between) -> Dataflow:
    """A flow with steps of its own after those of ours that are named."""

    def after(step: str, stream: Stream) -> Stream:
        return between[step](f"after_{step}", stream) if step in between else stream

    settings = ls.Settings(_env_file=None)
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("items")
    raw = after("kafka_source", ls.kafka_source("kafka", flow, source))
    decoded = ls.decode("decode", raw, ls.JsonDecoder(Item))
    items = ls.normalize("normalize", after("decode", decoded.oks), Item)
    batches = ls.batch("batch", after("normalize", items.oks), settings.batch)
    written = ls.upsert("upsert", after("batch", batches), MemoryWriter(Item), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
    return flow


def route(**between: Between) -> Route:
    [route] = topology_of(flow(**between)).routes
    return route


def through(step: str, stream: Stream) -> Stream:
    return op.map(step, stream, lambda it: it)


def test_our_own_steps_are_followed_to_the_writer() -> None:
    whole = route()

    assert (whole.last, whole.own_step) == ("upsert", None)
    assert whole.decoder is not None
    assert whole.target is Item
    assert isinstance(whole.writer, MemoryWriter)
    assert where_it_ends(whole) == ""


@pytest.mark.parametrize("step", ["kafka_source", "decode", "normalize", "batch"])
@pytest.mark.parametrize("own", [through, audit])
def test_the_route_ends_where_a_step_of_the_flows_own_follows(step: str, own: Between) -> None:
    ended = route(**{step: own})

    assert (ended.last, ended.own_step, ended.writer) == (step, f"after_{step}", None)
    assert f"the sample ends after {step}, because the flow's own step 'after_{step}' follows" in where_it_ends(ended)
    tried = "no record was tried" if step in {"kafka_source", "decode"} else "no row was tried"
    assert where_it_ends(ended).startswith(tried)


def test_a_step_that_may_refuse_is_named_with_what_does_not_show() -> None:
    [ended] = topology_of(test_own_step.flow(ls.Settings(_env_file=None))).routes

    assert where_it_ends(ended) == (
        "no row was tried: the sample ends after normalize, because the flow's own step 'validate' follows and check "
        "runs only decode, normalize and upsert; what 'validate' and the table's rules would refuse does not show here"
    )


def test_a_route_that_nothing_goes_on_with() -> None:
    flow = Dataflow("items")
    raw = ls.kafka_source("kafka", flow, ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["items"]))
    ls.decode("decode", raw, ls.JsonDecoder(Item))
    [ended] = topology_of(flow).routes

    assert (ended.last, ended.own_step) == ("decode", None)
    assert "ends after decode, because no step follows it" in where_it_ends(ended)


def test_a_flow_that_reads_nothing_is_refused() -> None:
    with pytest.raises(DeploymentFault, match=r"'items' reads no topic: begin it with ls\.kafka_source"):
        topology_of(Dataflow("items"))
