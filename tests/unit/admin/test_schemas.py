"""Schemas with their versions: what a newer one may change, what is refused, and whom a change touches."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import Events, From, Items, JsonDecoder, KafkaSettings, KafkaSource, Row, Skip
from lovelace_streams.admin.schemas import History, changes, histories, problems, topics, touched
from lovelace_streams.avro import AvroDecoder, JsonOrAvro
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.topology import topology_of

LONG, TEXT = {"name": "id", "type": "long"}, {"name": "note", "type": "string"}
MAYBE = {"name": "note", "type": ["null", "string"], "default": None}


def record(*fields: Any, name: str = "shop.Order", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"name": "state", "type": {"type": "enum", "name": "State", "symbols": list(symbols), **more}}


def history(folder: Path, *versions: Any, newest: Any = None) -> History:
    (folder / "shop").mkdir()
    for number, version in enumerate(versions, 1):
        (folder / f"shop/order.v{number}.avsc").write_text(json.dumps(version))
    (folder / "shop/order.avsc").write_text(json.dumps(newest or versions[-1]))
    (found,) = histories(folder)
    return found


@pytest.mark.parametrize(
    "newer",
    [
        record(LONG, TEXT),
        record(LONG),
        record(LONG, TEXT, {"name": "more", "type": "int", "default": 0}),
        record({"name": "id", "type": "double"}, TEXT),
        record(LONG, MAYBE),
        record(LONG, {"name": "memo", "aliases": ["note"], "type": "string"}),
        record(LONG, TEXT, name="shop.Purchase", aliases=["Order"]),
    ],
)
def test_a_version_that_reads_the_older_ones(tmp_path: Path, newer: Any) -> None:
    assert list(problems(history(tmp_path, record(LONG, TEXT), newer))) == []


@pytest.mark.parametrize(
    ("older", "newer", "why"),
    [
        (record(LONG), record(LONG, TEXT), "expected string, got nothing at $.note"),
        (record(LONG), record({"name": "id", "type": "int"}), "expected int, got long at $.id"),
        (record(LONG, MAYBE), record(LONG, TEXT), "expected string, got null at $.note"),
        (record(LONG), record(LONG, name="shop.Customer"), "expected shop.Customer, got shop.Order at $"),
        (record(enum("A", "B")), record(enum("A")), "expected a symbol of shop.State, got another at $.state"),
        (
            record({"name": "lines", "type": {"type": "array", "items": record(LONG, name="Line")}}),
            record({"name": "lines", "type": {"type": "array", "items": record(LONG, TEXT, name="Line")}}),
            "expected string, got nothing at $.lines[].note",
        ),
    ],
)
def test_a_version_that_does_not(tmp_path: Path, older: Any, newer: Any, why: str) -> None:
    assert list(problems(history(tmp_path, older, newer))) == [
        f"shop/order: version 2 can't read what version 1 wrote: {why}"
    ]


def test_an_unknown_symbol_may_have_a_default(tmp_path: Path) -> None:
    assert not list(problems(history(tmp_path, record(enum("A", "B")), record(enum("A", default="A")))))


def test_all_older_versions_count(tmp_path: Path) -> None:
    kept = history(tmp_path, record(LONG), record(LONG, MAYBE), record(LONG, TEXT))
    assert [line.partition(":")[2][:45] for line in problems(kept)] == [
        " version 3 can't read what version 1 wrote: e",
        " version 3 can't read what version 2 wrote: e",
    ]


def test_the_newest_is_kept_and_none_is_lost(tmp_path: Path) -> None:
    kept = history(tmp_path, record(LONG), newest=record(LONG, MAYBE))
    assert list(problems(kept)) == ["shop/order.avsc is not kept: copy it to shop/order.v2.avsc"]
    (tmp_path / "shop/order.v1.avsc").rename(tmp_path / "shop/order.v3.avsc")
    (found,) = histories(tmp_path)
    assert "have a gap" in next(problems(found))
    (tmp_path / "shop/order.avsc").unlink()
    with pytest.raises(DeploymentFault, match=r"order\.avsc is missing"):
        histories(tmp_path)


def test_a_folder_without_schemas_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFault, match="no schemas in"):
        histories(tmp_path)
    (tmp_path / "broken.avsc").write_text("{")
    with pytest.raises(DeploymentFault, match=r"broken\.avsc can't be used"):
        histories(tmp_path)


class Order(Row, table="orders", primary_key="id"):
    id: Annotated[int, From("$.id")]
    name: Annotated[str | None, From("buyer.name")]
    city: Annotated[str | None, From("buyer.address.city")]


def buyer(*fields: Any) -> dict[str, Any]:
    return {"name": "buyer", "type": ["null", record(*fields, name="Buyer")], "default": None}


def nested(*fields: Any) -> dict[str, Any]:
    return record(LONG, {"name": "t", "type": "string"}, {"name": "d", "type": record(buyer(*fields), name="Data")})


def test_a_change_names_the_columns_that_read_it(tmp_path: Path) -> None:
    name = {"name": "name", "type": "string"}
    address = {"name": "address", "type": record({"name": "city", "type": "string"}, name="Address")}
    kept = history(tmp_path, nested(name), nested(name, address), newest=nested({**name, "default": "x"}))
    made = changes(kept.versions[-1].root, kept.newest.root)

    assert made == {("d", "buyer", "name"): "another default", ("d", "buyer", "address"): "gone"}
    assert changes(kept.versions[0].root, kept.versions[1].root) == {("d", "buyer", "address"): "new"}

    events = Events("t", {"ORDER": Items("d", Order)}, otherwise=Skip("unknown_event"))
    avro = AvroDecoder("http://127.0.0.1:1", events, reader=tmp_path / "shop/order.avsc")
    source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    flow = Dataflow("orders")
    ls.decode("decode", ls.kafka_source("kafka", flow, source), JsonOrAvro(JsonDecoder(events), avro), source)
    journey = topology_of(flow)
    assert list(touched(kept, made, journey)) == ["Order.name", "Order.city"]
    assert list(touched(kept, [("d", "buyer", "address")], journey)) == ["Order.city"]
    assert list(touched(kept, [("t",)], journey)) == []
    assert topics(kept, journey) == ["orders"]

    other = Dataflow("other")
    ls.decode("decode", ls.kafka_source("kafka", other, source), JsonDecoder(events))
    assert topics(kept, topology_of(other)) == []


def test_recursive_schemas_are_compared_once(tmp_path: Path) -> None:
    tree = record(LONG, {"name": "below", "type": {"type": "array", "items": "shop.Order"}})
    kept = history(tmp_path, tree, record(*tree["fields"], MAYBE))

    assert list(problems(kept)) == []
    assert changes(kept.versions[0].root, kept.versions[1].root) == {("note",): "new"}
