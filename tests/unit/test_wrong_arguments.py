"""What a flow's author gets wrong is refused at build, with the setting or argument named, and no address in memory."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import Epoch, Events, From, FromKafka, Items, JsonDecoder, KafkaSource, Row, Skip
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.errors import shown, with_flow
from lovelace_streams.runtime.process import flow_of_command
from lovelace_streams.settings import KafkaSettings, Settings
from lovelace_streams.testing import mapped, run
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.postgres import PostgresWriter

KAFKA = KafkaSettings("127.0.0.1:9092")


class Order(Row, table="orders", primary_key="id"):
    id: int


def total(order: Any) -> int:
    return order


def column(annotation: Any, key: Any = "id", version: Any = None) -> Any:
    names = {"__annotations__": {"id": int, "x": annotation}}
    return JsonDecoder(type("X", (Row,), names, table="x", primary_key=key, version=version))


def normalized(target: Any) -> Any:
    flow, source = Dataflow("orders"), KafkaSource(KAFKA, topics=["orders"])
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), JsonDecoder(Order))
    return ls.normalize("normalize", decoded.oks, target)


WRONG = {
    "function": total,
    "lambda": lambda it: it,
    "method": [].append,
    "object": object(),
    "source": KafkaSource(KAFKA, topics=["orders"]),
    "list": [total],
    "dict": {"a": total},
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "decoder": JsonDecoder,
    "items": lambda wrong: JsonDecoder(Items("a", wrong)),
    "path": lambda wrong: JsonDecoder(Items(wrong, Order)),
    "events": lambda wrong: Events(wrong, {}, otherwise=Skip("unknown_event")),
    "event": lambda wrong: JsonDecoder(Events("t", {id(wrong) and total: Items("a", Order)}, Skip("filtered"))),
    "from": From,
    "kafka's": FromKafka,
    "epoch": Epoch,
    "column": column,
    "list": lambda wrong: column(list[wrong]),
    "marked": lambda wrong: column(Annotated[wrong, FromKafka("timestamp")]),
    "literal": lambda wrong: column(Literal[wrong]),
    "key": lambda wrong: column(int, key=(wrong,)),
    "version": lambda wrong: column(int, version=wrong),
    "avro": lambda wrong: AvroDecoder("http://127.0.0.1:1", wrong),
    "normalize": normalized,
    "one of several": lambda wrong: normalized((Order, wrong)),
    "mapped": lambda wrong: mapped(wrong, {"id": 1}),
    "run": lambda wrong: run(wrong, []),
    "topics": lambda wrong: KafkaSource(KAFKA, topics=[wrong]),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_error_shows_an_address_in_memory(call: Callable[[Any], Any], wrong: Any) -> None:
    assert " at 0x" not in said(call, wrong)
    assert " at 0x" not in shown(wrong)


def said(call: Callable[[Any], Any], wrong: Any) -> str:
    """The error's text, whichever error it is; some calls take a function, and then there is none."""
    try:
        return str(type(call(wrong)))
    except Exception as error:  # noqa: BLE001
        return str(error)


def test_a_function_is_shown_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"^x: a column can't be total$"):
        column(total)


# Sources and their names.


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ("orders.raw", r"topics='orders\.raw' is one text.*: write topics=\['orders\.raw'\]"),
        (b"orders.raw", r"topics='orders\.raw' is one text"),
        ([], r"has no topic: name those that the flow reads"),
        ((), r"has no topic"),
        (iter([]), r"has no topic"),
        ([""], r"expected names of topics, got the empty text"),
        (["orders", 7], r"expected names of topics, got int"),
        ([["orders"]], r"expected names of topics, got list"),
    ],
)
def test_topics_that_are_none_are_refused(topics: Any, said: str) -> None:
    with pytest.raises(ls.DeploymentFault, match=said):
        KafkaSource(KAFKA, topics=topics)


@pytest.mark.parametrize("topic", ["my orders", "orders/raw", "ürders", "a" * 250])
def test_a_topic_that_kafka_cannot_have_is_refused(topic: str) -> None:
    with pytest.raises(ls.DeploymentFault, match="Kafka has no topic"):
        ls.kafka_source("kafka", Dataflow("orders"), KafkaSource(KAFKA, topics=[topic]))


@pytest.mark.parametrize("name", ["my flow", "flöw", "a/b", "a" * 241])
def test_a_flow_whose_name_no_topic_can_have_is_refused(name: str) -> None:
    with pytest.raises(ls.DeploymentFault, match=r"^Dataflow\('.*'\) names the flow's own topics"):
        ls.kafka_source("kafka", Dataflow(name), KafkaSource(KAFKA, topics=["orders"]))


def test_a_group_names_the_topics_instead_of_the_flow() -> None:
    own_topic = KafkaSettings("b:1", group="our group", dead_letter_topic="letters")
    for settings in (KafkaSettings("b:1", group="orders"), own_topic):
        ls.kafka_source("kafka", Dataflow("my flow"), KafkaSource(settings, topics=["orders"]))
    source = KafkaSource(KafkaSettings("b:1", group="our group"), topics=["orders"])
    with pytest.raises(ls.DeploymentFault, match="^CONSUMER_GROUP_ID names the flow's own topics, 'our group.dlq'"):
        ls.kafka_source("kafka", Dataflow("orders"), source)


# Addresses of another kind of server.


@pytest.mark.parametrize("dsn", ["mysql://u:secret@h/d", "http://u:secret@h:8123", "postgresql+psycopg://u:secret@h/d"])
def test_the_dsn_of_another_server_is_not_postgres(dsn: str) -> None:
    scheme = dsn.partition(":")[0]
    with pytest.raises(ls.DeploymentFault, match="^POSTGRES_DSN begins with ") as fault:
        PostgresWriter(Settings(postgres_dsn=dsn, _env_file=None).postgres, Order)
    assert f"{scheme}://, which is another kind of server: write postgresql://" in str(fault.value)
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize("dsn", ["postgresql://u:secret@h/d", "clickhouse://u:secret@h/d"])
def test_the_dsn_of_another_server_is_not_clickhouse(dsn: str) -> None:
    with pytest.raises(ls.DeploymentFault, match="^CLICKHOUSE_DSN begins with ") as fault:
        ClickHouseWriter(Settings(clickhouse_dsn=dsn, _env_file=None).clickhouse, Order)
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize("dsn", ["postgresql://h/d", "postgres://h/d", "POSTGRESQL://h/d", "host=h password=x://y", ""])
def test_what_libpq_takes_is_taken(dsn: str) -> None:
    assert Settings(postgres_dsn=dsn, _env_file=None).postgres.dsn == dsn


# The flow in the commands that a text recommends.


def test_the_flow_is_named_where_it_is_known() -> None:
    text = "compare with `lovelace ddl FLOW`; `lovelace ddl FLOW --apply` adds it, `lovelace rewind FLOW --to -1h`"

    assert with_flow(text, "orders") == text.replace("FLOW", "orders")
    assert with_flow(text, None) == text
    assert with_flow("a table named FLOW", "orders") == "a table named FLOW"


@pytest.mark.parametrize(
    ("arguments", "flow"),
    [
        (["dataflows.orders"], "orders"),
        (["dataflows/orders.py"], "orders"),
        (["shop.flows:build"], "shop.flows"),
        (["shop.flows:build('x')"], "shop.flows"),
        (["-w", "2", "x"], None),
        ([], None),
    ],
)
def test_the_flow_of_a_worker_is_that_of_its_command(arguments: list[str], flow: str | None) -> None:
    assert flow_of_command(["/lib/bytewax/run.py", *arguments]) == flow
    assert flow_of_command(["/bin/pytest", *arguments]) is None
