"""`lovelace schemas` beside a real registry: what is put there, what is refused, and what a change touches."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from lovelace_streams.avro import Registry, parse
from lovelace_streams.local.registry import Registry as RegistryServer
from tests.servers.command import lovelace

FIRST = {"type": "record", "name": "shop.Order", "fields": [{"name": "id", "type": "long"}]}
SECOND = {**FIRST, "fields": [*FIRST["fields"], {"name": "note", "type": ["null", "string"], "default": None}]}
TEXT = {**FIRST, "fields": [{"name": "id", "type": "string"}]}
OTHER = {**FIRST, "fields": [{"name": "number", "type": "long"}]}

FLOW = """
from bytewax.dataflow import Dataflow
import lovelace_streams as ls
from lovelace_streams import KafkaSource, Row, Settings
from lovelace_streams.avro import AvroDecoder

class Order(Row, table="orders", primary_key="id"):
    id: int
    note: str | None

def flow():
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=["TOPIC"])
    flow = Dataflow("orders")
    decoder = AvroDecoder(settings.registry, Order, reader="schemas/avro/shop/order.avsc")
    ls.decode("decode", ls.kafka_source("kafka", flow, source), decoder, source)
    return flow
"""


def keep(folder: Path, version: int, schema: object) -> None:
    for name in ("order.avsc", f"order.v{version}.avsc"):
        (folder / "schemas/avro/shop" / name).write_text(json.dumps(schema))


@pytest.mark.slow
def test_versions_are_registered_once_and_refused_where_they_do_not_fit(
    tmp_path: Path, registry_server: RegistryServer
) -> None:
    topic = f"orders-{uuid4().hex[:8]}"
    (tmp_path / "schemas/avro/shop").mkdir(parents=True)
    (tmp_path / "dataflows").mkdir()
    (tmp_path / "dataflows/__init__.py").touch()
    (tmp_path / "dataflows/orders.py").write_text(FLOW.replace("TOPIC", topic))
    keep(tmp_path, 1, FIRST)
    address = {"SCHEMA_REGISTRY_URL": registry_server.url}

    assert lovelace(tmp_path, address, "schemas", "register").stdout.split("\t")[-1] == "registered\n"
    keep(tmp_path, 2, SECOND)
    lines = lovelace(tmp_path, address, "schemas", "register").stdout.splitlines()
    assert [line.split("\t")[:3] + line.split("\t")[4:] for line in lines] == [
        ["shop/order", f"{topic}-value", "1", "is there"],
        ["shop/order", f"{topic}-value", "2", "registered"],
    ]
    again = lovelace(tmp_path, address, "schemas", "register").stdout.splitlines()
    assert [line.rpartition("\t")[2] for line in again] == ["is there"] * 2
    registry = Registry(registry_server.url)
    assert registry.ask("GET", f"/subjects/{topic}-value/versions") == (200, [1, 2])
    kept = [registry.schema(int(line.split("\t")[3])).fingerprint() for line in again]
    assert kept == [parse(FIRST).fingerprint(), parse(SECOND).fingerprint()]
    assert registry.ask("GET", f"/config/{topic}-value")[1] == {"compatibilityLevel": "BACKWARD_TRANSITIVE"}

    checked = lovelace(tmp_path, {}, "schemas", "check")
    assert (checked.returncode, checked.stdout.splitlines()) == (
        0,
        ["shop/order: 2 versions of shop.Order", "  note: new", "  touches orders: Order.note"],
    )

    keep(tmp_path, 3, OTHER)
    refused = lovelace(tmp_path, {}, "schemas", "check")
    assert refused.returncode == 1
    assert "version 3 can't read what version 1 wrote: expected long, got nothing at $.number" in refused.stderr
    assert "orders does not fit its schema: no message of shop.Order has Order.id: $.id" in refused.stderr
    assert lovelace(tmp_path, address, "schemas", "register").returncode == 78

    (tmp_path / "schemas/avro/shop/order.v3.avsc").unlink()
    (tmp_path / "schemas/avro/shop/order.v2.avsc").unlink()
    keep(tmp_path, 1, TEXT)  # the registry knows what was there before
    refused = lovelace(tmp_path, address, "schemas", "register")
    assert refused.returncode == 78
    assert f"refuses version 1 of shop/order for {topic}-value" in refused.stderr


def test_a_registry_that_is_away_or_not_set(tmp_path: Path) -> None:
    (tmp_path / "schemas/avro/shop").mkdir(parents=True)
    keep(tmp_path, 1, FIRST)
    register = ("schemas", "register", "shop/order", "--topic", "orders")

    assert lovelace(tmp_path, {"SCHEMA_REGISTRY_URL": "http://u:hunter2@127.0.0.1:1"}, *register).returncode == 75
    missing = lovelace(tmp_path, {"SCHEMA_REGISTRY_URL": ""}, *register)
    assert (missing.returncode, missing.stderr.partition(":")[0]) == (78, "no schema registry")
