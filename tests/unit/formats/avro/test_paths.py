"""A path that no message of the flow's own schema could have is refused when the flow is built."""

from typing import Annotated, Any

import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams.avro import AvroDecoder, JsonOrAvro, SingleObject
from lovelace_streams.rows import From, Row
from lovelace_streams.testing import avro, mapped


def record(name: str, *fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


USER = record("User", ("name", "string"), ("labels", {"type": "map", "values": "string"}))
LINES = {"type": "array", "items": record("Line", ("sku", "string"))}
SCHEMA = record("Order", ("t", "string"), ("id", "long"), ("user", ["null", USER]), ("lines", LINES))
DATUM = {"t": "A", "id": 1, "user": {"name": "x", "labels": {"k8s.pod": "p"}}, "lines": [{"sku": "s"}]}


def row_of(hint: Any, name: str = "x") -> type[Row]:
    body = {"__annotations__": {"id": Annotated[int, From("$.id")], name: hint}, "__module__": __name__}
    return type(Row)("Made", (Row,), body, table="made", primary_key="id")


def build(decoder: Any) -> None:
    source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    ls.decode("decode", ls.kafka_source("kafka", Dataflow("orders"), source), decoder, source)


@pytest.mark.parametrize(
    "path",
    ["user.nam", "usr.name", "user.name.first", "$.user.nam", "lines.sku", ("user.name",), ("user", "labels.k8s.pod")],
)
def test_a_path_that_the_schema_can_not_have_is_refused_at_build(path: Any) -> None:
    row = row_of(Annotated[str | None, From(path)])

    for schema in (AvroDecoder(SCHEMA, row), AvroDecoder("http://127.0.0.1:1", row, reader=SCHEMA)):
        with pytest.raises(ls.DeploymentFault, match=r"no message of Order has Made\.x: \$"):
            build(schema)
    with pytest.raises(ls.DeploymentFault):
        mapped(AvroDecoder(SCHEMA, row), avro(SCHEMA, DATUM), to=row)


@pytest.mark.parametrize("path", ["user.name", "user.labels.any", ("user", "labels", "k8s.pod"), "$.user.labels"])
def test_a_path_that_it_may_have_is_taken(path: Any) -> None:
    hint = dict[str, Any] if path == "$.user.labels" else str
    row = row_of(Annotated[hint | None, From(path)])

    build(AvroDecoder(SCHEMA, row))
    assert mapped(AvroDecoder(SCHEMA, row), avro(SCHEMA, DATUM), to=row).rows


def test_one_of_several_paths_is_enough_and_so_is_one_of_several_schemas() -> None:
    row = row_of(Annotated[str | None, From("user.nick", "user.name")])
    older = record("Order", ("id", "long"), ("nick", "string"))

    build(AvroDecoder(SCHEMA, row))
    build(AvroDecoder(SingleObject(SCHEMA, older), row_of(Annotated[str | None, From("$.nick")])))
    with pytest.raises(ls.DeploymentFault):
        build(AvroDecoder(SingleObject(SCHEMA, older), row_of(Annotated[str | None, From("$.nickname")])))


def test_a_field_of_its_own_name_may_be_meant_for_another_event_unless_it_is_required() -> None:
    build(AvroDecoder(SCHEMA, row_of(str | None, "left_at")))
    keyed = type(Row)("Keyed", (Row,), {"__annotations__": {"key": int}}, table="keyed", primary_key="key")
    with pytest.raises(ls.DeploymentFault, match="key"):
        build(AvroDecoder(SCHEMA, keyed))


def test_items_and_the_field_of_events_are_looked_for_too() -> None:
    line = row_of(Annotated[str, From("sku")])

    build(AvroDecoder(SCHEMA, ls.Items("lines", line)))
    for what, why in [
        (ls.Items("line", line), r"the items of Made: \$\.line"),
        (ls.Events("kind", {"A": ls.Items("lines", line)}, ls.Skip()), r"the field of the events: \$\.kind"),
    ]:
        with pytest.raises(ls.DeploymentFault, match=why):
            build(AvroDecoder(SCHEMA, what))


def test_messages_in_json_may_have_what_those_in_avro_have_not() -> None:
    row = row_of(Annotated[str | None, From("user.nam")])

    build(JsonOrAvro(ls.JsonDecoder(row), AvroDecoder(SCHEMA, row)))
