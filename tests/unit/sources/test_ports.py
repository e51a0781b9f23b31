"""A port that leads nowhere is named before the flow runs; a port that may be left is not."""

import bytewax.operators as op
import pytest
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from hypothesis import given
from hypothesis import strategies as st

import lovelace_streams as ls
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.topology import topology_of
from lovelace_streams.sources.ports import LoosePort, loose_ports
from lovelace_streams.testing import run
from tests.dataflows import test_own_step
from tests.pages import names_of
from tests.unit.sources.leaving import PORTS, Item, flow_without


def named(flow: Dataflow) -> list[str]:
    return [f"{loose.step}.{loose.port}" for loose in loose_ports(flow)]


@given(st.sets(st.sampled_from(PORTS), max_size=4))
def test_exactly_the_ports_that_are_left_are_named(left: set[str]) -> None:
    assert named(flow_without(*left)) == [port for port in PORTS if port in left]


def test_what_the_ends_give_may_be_left() -> None:
    assert named(flow_without("dead_letter.settled")) == []


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("decode.errs", r"no step takes port 'errs' of step 'decode': hand it to ls\.dead_letter\(…\)"),
        (
            "upsert.settled",
            r"no step takes port 'settled' of step 'upsert': hand it to ls\.commit\(…\) or ls\.progress",
        ),
        ("validate.errs", r"no step takes port 'errs' of step 'validate': hand it to ls\.dead_letter"),
        ("priced.falses", r"no step takes port 'falses' of step 'priced': hand it to the next step"),
    ],
)
def test_a_flow_with_a_forgotten_port_does_not_begin(port: str, said: str) -> None:
    with pytest.raises(DeploymentFault, match=said):
        run(lambda settings: flow_without(port, settings=settings), [{"id": 1}])
    assert run(lambda settings: flow_without(settings=settings), [{"id": 1}]).rows() == [{"id": 1}]


def test_all_ports_are_named_in_one_line() -> None:
    with pytest.raises(DeploymentFault) as stopped:
        run(lambda settings: flow_without("decode.skipped", "upsert.errs", settings=settings), [])

    assert "'skipped' of step 'decode'" in str(stopped.value)
    assert "'errs' of step 'upsert'" in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_a_source_of_ones_own_is_checked_as_well() -> None:
    source = names_of("docs/contributing/source.md")["ListSource"]([], [0], poll_size=2)
    flow = Dataflow("items")
    ls.decode("decode", ls.worker_source("list", flow, source), ls.JsonDecoder(Item))

    source.build("list", 0, 1)

    assert "'oks' of step 'decode'" in str(source.fault)


def source_and_decoded() -> tuple[Dataflow, ls.KafkaSource, object]:
    flow, source = Dataflow("items"), ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["items"])
    return flow, source, ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))


def test_a_source_that_nothing_follows() -> None:
    flow = Dataflow("items")
    ls.kafka_source("kafka", flow, ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["items"]))

    assert loose_ports(flow) == (LoosePort("kafka", "down"),)


def test_an_output_of_ones_own_settles_nothing() -> None:
    flow, source, decoded = source_and_decoded()
    dead = ls.dead_letter("dead_letter", source, decoded.errs)
    ls.commit("commit", source, dead.settled, decoded.skipped)
    op.output("out", decoded.oks, StdOutSink())

    [loose] = loose_ports(flow)
    assert str(loose).startswith("port 'oks' of step 'decode' goes to 'out', which does not settle it: ")


def test_the_end_of_another_kind_does_not_take_a_port() -> None:
    flow, source, decoded = source_and_decoded()
    dead = ls.dead_letter("dead_letter", source, decoded.skipped)
    ls.commit("commit", source, dead.settled, decoded.errs)

    assert [str(loose).partition(":")[0] for loose in loose_ports(flow)] == [
        "no step takes port 'oks' of step 'decode'",
        "port 'errs' of step 'decode' goes to 'commit', which does not settle it",
        "port 'skipped' of step 'decode' goes to 'dead_letter', which does not settle it",
    ]


def test_failed_items_may_pass_a_step_before_they_are_letters() -> None:
    flow, source, decoded = source_and_decoded()
    errs = op.map("seen", decoded.errs, lambda letter: letter)
    dead = ls.dead_letter("dead_letter", source, errs)
    ls.commit("commit", source, dead.settled, op.merge("both", decoded.skipped))

    assert named(flow) == ["decode.oks"]


def test_a_flow_with_steps_of_its_own_is_whole() -> None:
    assert topology_of(test_own_step.flow(ls.Settings(_env_file=None))).loose == ()
