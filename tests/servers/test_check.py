"""`lovelace check`: what would fail is said before anything runs, and nothing is written."""

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from bytewax.dataflow import Dataflow
from confluent_kafka.admin import AdminClient

import lovelace_streams as ls
from lovelace_streams.admin.check import AWAY, DEPLOYMENT, FAILS, CheckReport, check
from lovelace_streams.admin.check.destination import check_destination
from lovelace_streams.admin.check.report import SampleResult
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.flows.topology import topology_of
from lovelace_streams.local.kafka import Kafka
from lovelace_streams.settings import PostgresSettings, Settings
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres.ddl import create_table
from tests.faults.conftest import Service
from tests.faults.harness import Group, Worker, query, send
from tests.servers import flows
from tests.servers.command import lovelace
from tests.unit.sources.leaving import flow_without

Look = Callable[..., CheckReport]


@pytest.fixture
def look(brokers: str, database: str, make_topic) -> Look:
    """Check the flow of orders on a topic of the test's own; `look.topic` is its name."""

    def look(sample: int = 200, **changes: object) -> CheckReport:
        settings = Settings(_env_file=None, **{"kafka_brokers": brokers, "postgres_dsn": database, **changes})
        return check(topology_of(flows.orders(settings, look.topic)), sample)

    look.topic = make_topic(partitions=2)
    return look


@pytest.fixture
def table(database: str) -> str:
    query(database, create_table(flows.Order).replace('"total" bigint NOT NULL', '"total" bigint CHECK ("total" > 0)'))
    query(database, "create table log (id bigint)")
    query(
        database,
        """create function logged() returns trigger language plpgsql as
        $$ begin insert into log values (new.id); return new; end $$;
        create trigger logged before insert on orders for each row execute function logged()""",
    )
    return database


def order(number: int, **changes: object) -> tuple[bytes, bytes]:
    return str(number).encode(), json.dumps({"id": number, "total": 1, "state": "new"} | changes).encode()


def topics(brokers: str) -> set[str]:
    listed = AdminClient({"bootstrap.servers": brokers}).list_topics(timeout=10).topics
    return {topic for topic in listed if not topic.startswith("__")}  # the broker's own come with the first question


def states(report: CheckReport) -> set[str]:
    return {finding.state for finding in report.findings}


def said(report: CheckReport, state: str) -> str:
    return "\n".join(finding.text for finding in report.findings if finding.state == state)


def test_a_sound_flow_is_told_so_and_nothing_is_written(look: Look, table: str, brokers: str) -> None:
    send(brokers, look.topic, [order(n, parent=None) for n in range(30)])
    before = topics(brokers)
    group = f"{look.topic}.group"  # another test's worker may have made the topics of the flow's own name

    report = look(consumer_group_id=group)

    assert (report.exit, states(report), report.sample.failures) == (0, {"ok"}, [])
    assert (report.sample.messages, report.sample.items, report.sample.ends) == (30, 30, {"written": 30})
    assert "the table is as Order say" in said(report, "ok")
    assert "has offsets in 0 of 2 partitions; 30 offsets to read" in said(report, "ok")
    assert f"a worker makes topic {group}.dlq at its start" in said(report, "ok")
    assert query(table, "select (select count(*) from orders), (select count(*) from log)") == [(0, 0)]
    assert topics(brokers) == before
    assert Group(brokers, group).committed(look.topic, 2) == [0, 0]


def test_what_would_fail_is_counted_by_reason_step_and_rule(look: Look, table: str, brokers: str) -> None:
    good = [order(n) for n in range(20)]
    bad = [
        (b"x", b"{broken"),
        order(21, total="secret-value"),
        order(22, total="secret-value"),
        order(23, total=-1),
        order(24, state="secret-value"),
    ]
    send(brokers, look.topic, good + bad)

    report = look()

    found = {(f.reason, f.step, f.items): f for f in report.sample.failures}
    assert set(found) == {
        ("not_json", "decode", 1),
        ("wrong_type", "normalize", 2),
        ("check", "upsert", 1),
        ("bad_value", "normalize", 1),
    }
    assert "$.total" in found["wrong_type", "normalize", 2].detail
    assert found["check", "upsert", 1].detail == "orders_total_check (23514)"
    assert found["not_json", "decode", 1].example.startswith(f"{look.topic}/")
    assert report.exit == FAILS
    assert report.sample.ends == {"written": 20}
    assert "secret-value" not in str(report)
    assert query(table, "select count(*) from orders") == [(0,)]


def test_later_records_of_the_sample_see_the_earlier_ones(look: Look, database: str, brokers: str) -> None:
    query(database, create_table(flows.Order) + "alter table orders add foreign key (parent) references orders (id)")
    send(brokers, look.topic, [(b"1", order(1)[1]), (b"1", order(2, parent=1)[1]), (b"1", order(3, parent=99)[1])])

    report = look()

    assert [(f.reason, f.items) for f in report.sample.failures] == [("foreign_key", 1)]
    assert query(database, "select count(*) from orders") == [(0,)]


def test_the_sample_is_both_ends_of_each_partition(look: Look, table: str, brokers: str) -> None:
    send(brokers, look.topic, [(str(n % 7).encode(), order(n)[1]) for n in range(200)])

    report = look(sample=5)

    assert (report.sample.messages, report.sample.ends) == (20, {"written": 20})
    assert look(sample=0).sample.messages == 0


def test_what_is_stored_and_newer_counts_as_superseded(look: Look, table: str, brokers: str) -> None:
    query(table, "insert into orders (id, total, state, seen_at) values (1, 1, 'new', now() + interval '1 h')")
    send(brokers, look.topic, [order(1), order(2)])

    assert look().sample.ends == {"written": 1, "superseded": 1}


def test_everything_is_looked_at_although_something_is_wrong(look: Look, brokers: str, database: str) -> None:
    send(brokers, look.topic, [order(1), (b"", b"{broken")])

    report = look(progress_api_url="http://127.0.0.1:1", progress_api_token="t")

    assert report.exit == DEPLOYMENT
    assert "there is no such table" in said(report, "deployment")
    assert "http://127.0.0.1:1" in said(report, "away")
    assert [f.reason for f in report.sample.failures] == ["not_json"]
    query(database, create_table(flows.Order))
    assert look(progress_api_url="http://127.0.0.1:1", progress_api_token="t").exit == AWAY
    assert look(progress_api_url="http://127.0.0.1:1").exit == DEPLOYMENT


@pytest.mark.parametrize("port", ["upsert.errs", "decode.skipped", "validate.errs"])
def test_a_forgotten_port_is_named_and_the_rest_is_checked(brokers: str, table: str, port: str) -> None:
    settings = Settings(_env_file=None, kafka_brokers=brokers, postgres_dsn=table)

    report = check(topology_of(flow_without(port, settings=settings)), 10)

    step, _, name = port.partition(".")
    assert report.exit == DEPLOYMENT
    assert f"no step takes port '{name}' of step '{step}'" in said(report, "deployment")
    assert "items: there is no such table" in said(report, "deployment")


def test_columns_that_a_worker_would_add_are_a_note_and_are_not_added(look: Look, table: str, brokers: str) -> None:
    query(table, "alter table orders drop column parent")
    send(brokers, look.topic, [order(1)])

    assert "no column parent" in said(look(), "deployment")
    adding = look(table_evolution="add")
    assert (adding.exit, 'ADD COLUMN IF NOT EXISTS "parent"' in said(adding, "note")) == (0, True)
    assert query(table, "select from information_schema.columns where column_name = 'parent'") == []


def test_a_missing_topic_and_a_broker_that_is_away(look: Look, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lovelace_streams.admin.check.broker.REQUEST_SECONDS", 2.0)
    look.topic, here = "nowhere", look.topic
    assert "no topic 'nowhere'" in said(look(), "deployment")
    look.topic = here

    away = look(kafka_brokers="127.0.0.1:1")
    assert (away.exit, "127.0.0.1:1" in said(away, "away")) == (AWAY, True)


def test_limits_of_the_dead_letter_topic_are_said(look: Look, table: str, make_topic) -> None:
    small = make_topic(partitions=1, max_message_bytes=70_000, retention_ms=60_000)

    report = look(dead_letter_topic=small)

    assert report.exit == 0
    assert "max.message.bytes is 70000" in said(report, "note")
    assert "retention.ms is 60000" in said(report, "note")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup_policy", "compact"),
        ("cleanup_policy", "compact,delete"),
        ("max_message_bytes", "1000"),
        ("message_timestamp_before_max_ms", "1"),
    ],
)
def test_a_dead_letter_topic_on_which_letters_would_be_lost_is_named(
    look: Look, table: str, make_topic, setting: str, value: str
) -> None:
    wrong = make_topic(partitions=1, **{setting: value})

    report = look(dead_letter_topic=wrong)

    assert report.exit == DEPLOYMENT
    assert f"{wrong!r} has {setting.replace('_', '.')}={value}" in said(report, "deployment")


def test_a_group_whose_offset_is_gone_is_told(look: Look, table: str, brokers: str) -> None:
    from confluent_kafka import Consumer, TopicPartition

    send(brokers, look.topic, [order(1)])
    group = f"gone-{look.topic}"
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": group})
    consumer.commit(offsets=[TopicPartition(look.topic, 0, 1000)], asynchronous=False)
    consumer.close()

    report = look(consumer_group_id=group)

    assert report.exit == DEPLOYMENT
    assert f"offset 1000 of {look.topic}-0" in said(report, "deployment")
    assert Group(brokers, group).committed(look.topic, 2) == [1000, 0]


def test_the_progress_service_is_asked_and_its_ledger_is_as_before(
    look: Look, table: str, brokers: str, service: Service
) -> None:
    send(brokers, look.topic, [order(1)])
    ledger = "select (select count(*) from lovelace.settled_offsets), (select count(*) from lovelace.heard)"
    before = query(table, ledger)

    report = look(progress_api_url=service.url, progress_api_token=service.token)
    assert (report.exit, f"{service.url}: the progress service is ready" in said(report, "ok")) == (0, True)
    assert query(table, ledger) == before
    refused = look(progress_api_url=service.url, progress_api_token="another")
    assert (refused.exit, "PROGRESS_API_TOKEN" in said(refused, "deployment")) == (DEPLOYMENT, True)


def test_the_sample_ends_at_a_step_of_the_flows_own_and_the_report_names_it(
    brokers: str, table: str, make_topic
) -> None:
    settings = Settings(_env_file=None, kafka_brokers=brokers, postgres_dsn=table)
    topic = make_topic(partitions=1)
    send(brokers, topic, [order(1), order(2, total="x")])

    report = check(topology_of(flows.orders(settings, topic, between=True)), 10)

    assert "no row was tried: the sample ends after normalize, because the flow's own step 'paid' follows" in said(
        report, "note"
    )
    assert (
        "kafka: messages pass item by item, because op.filter('paid'), a step of the flow's own, takes items"
        in said(report, "note")
    )
    assert report.sample.ends == {}
    assert [f.reason for f in report.sample.failures] == ["wrong_type"]


def test_the_command_prints_a_table_or_json(
    look: Look, table: str, brokers: str, kafka_server: Kafka, tmp_path: Path
) -> None:
    send(brokers, look.topic, [order(1), order(2, total=-1)])
    environment = {
        "KAFKA_BROKERS": brokers, "POSTGRES_DSN": table, "PROGRESS_API_URL": "", "CONSUMER_GROUP_ID": "",
        "TOPIC": look.topic,
    }  # fmt: skip

    shown = lovelace(tmp_path, environment, "check", "tests.servers.flows")
    assert (shown.returncode, shown.stderr) == (1, "")
    [row] = [line.split("\t") for line in shown.stdout.splitlines() if "\t" in line]
    assert row[:4] == ["check", "upsert", "1", "orders_total_check (23514)"]
    assert "tried 2 messages, 2 items: 1 written; 1 would fail" in shown.stdout
    answer = json.loads(lovelace(tmp_path, environment, "check", "tests.servers.flows", "--json").stdout)
    assert (answer["exit"], answer["flow"], answer["sample"]["ends"]) == (1, "orders", {"written": 1})


def test_the_flow_is_named_in_what_is_recommended(look: Look, database: str, brokers: str, tmp_path: Path) -> None:
    """By the command, by a worker, and by another command: as the person wrote it."""
    environment = {
        "KAFKA_BROKERS": brokers, "POSTGRES_DSN": database, "PROGRESS_API_URL": "", "CONSUMER_GROUP_ID": "",
        "TOPIC": look.topic, "METRICS_PORT": "0",
    }  # fmt: skip
    flow, advice = "tests.servers.flows", "`lovelace ddl tests.servers.flows`"

    assert advice in lovelace(tmp_path, environment, "check", flow).stderr
    assert advice in json.dumps(json.loads(lovelace(tmp_path, environment, "check", flow, "--json").stdout))
    assert advice in Worker(flow, environment, tmp_path / "worker.log").stopped()
    query(database, create_table(flows.Order).replace('"parent" bigint,', ""))
    assert f"`lovelace ddl {flow} --apply` adds it" in lovelace(tmp_path, environment, "check", flow).stderr


def test_a_registry_is_asked_where_the_flow_decodes_with_one(brokers: str, table: str, make_topic) -> None:
    settings = Settings(_env_file=None, kafka_brokers=brokers, postgres_dsn=table)
    answers: list[int] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers[-1])
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        decoder = AvroDecoder(f"http://127.0.0.1:{server.server_port}", flows.Order)
        journey = topology_of(flows.orders(settings, make_topic(partitions=1), decoder=decoder))
        reports = []
        for answer in (200, 401, 503):
            answers.append(answer)
            reports.append(check(journey, 10))
        server.shutdown()

    assert [report.exit for report in reports] == [0, DEPLOYMENT, AWAY]
    assert "schema registry 127.0.0.1" in said(reports[0], "ok")


class Elsewhere(ls.Row, table="elsewhere", primary_key="id"):
    id: int


def test_what_a_function_may_not_answer_is_said_in_a_line_each(
    table: str, brokers: str, make_topic: Callable[..., str]
) -> None:
    def mapping(item: dict[str, Any], *, of: ls.RecordContext) -> Any:
        if item["id"] == 1:
            return ls.Skip("draft")
        if item["id"] == 2:
            return ls.Skip("late")
        return Elsewhere(id=3) if item["id"] == 3 else flows.Order.from_raw(item, of=of)

    topic = make_topic(partitions=1)
    settings = Settings(_env_file=None, kafka_brokers=brokers, postgres_dsn=table)
    source = ls.KafkaSource(settings.kafka, topics=[topic])
    flow = Dataflow("orders")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(mapping))
    orders = ls.normalize("normalize", decoded.oks, mapping, skips=["late"])
    batches = ls.batch("batch", orders.oks, settings.batch)
    ls.upsert("upsert", batches, PostgresWriter(settings.postgres, flows.Order), source)
    send(brokers, topic, [order(n) for n in range(6)])

    report = check(topology_of(flow), 200)

    assert report.sample.ends == {"written": 3, "late": 1}
    assert {(f.reason, f.step, f.items) for f in report.sample.failures} == {
        ("rule", "normalize", 1),
        ("rule", "upsert", 1),
    }
    details = " ".join(f.detail for f in report.sample.failures)
    assert "skips=(" in details
    assert "Elsewhere is no row class of" in details


class Stamped(ls.Row, table="stamped", primary_key="id", version="at"):
    id: int
    at: int
    total: Decimal | None


def test_what_a_row_leaves_open_is_noted(database: str) -> None:
    query(database, "create table stamped (id bigint primary key, at bigint not null, total numeric(10,2))")
    report = CheckReport("stamped", [], SampleResult())

    writer = PostgresWriter(PostgresSettings(database), Stamped)

    try:
        assert check_destination(writer, report)
    finally:
        writer.close()

    at, total = (finding.text for finding in report.findings if finding.state == "note")
    assert (
        'Stamped.at is int, so nothing tells one of the future, which would win for ever: Annotated[int, Epoch("ms")]'
        in at
    )
    assert "Stamped.total is a Decimal and its column numeric(10,2)" in total
