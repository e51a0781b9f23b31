"""`lovelace_streams.testing.run` gives what a worker gives on real servers: row by row, letter by letter."""

import importlib.util
import json
from pathlib import Path

import pytest

from lovelace_streams.dead_letters.reader import StoredDeadLetter, read_letters
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.testing import run
from lovelace_streams.writers.postgres.ddl import create_table
from tests.faults.harness import Group, Worker, eventually, query, send

FLOW = """
import os
from typing import Annotated

from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams.writers.postgres import PostgresWriter


class Thing(ls.Row, table="things", primary_key="id", version="seen"):
    id: int
    name: Annotated[str | None, str.strip]
    size: int | None
    seen: int


EVENTS = ls.Events(
    "t", {"one": ls.Items("d", Thing), "many": ls.Items("d", Thing)}, otherwise=ls.Skip("unknown_event")
)


def flow(settings=None):
    settings = settings or ls.Settings()
    source = ls.KafkaSource(settings.kafka, topics=[os.environ["TOPIC"]])
    flow = Dataflow("things")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, ls.JsonDecoder(EVENTS))
    things = ls.normalize("normalize", decoded.oks, Thing)
    batches = ls.batch("batch", things.oks, settings.batch)
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Thing), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, things.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, things.skipped)
    return flow
"""
SIZES = {"poll_size": 7, "batch_size": 3}


def messages() -> list[bytes | None]:
    """Singles and chunks of few keys: new, older and partial ones, and in between every kind of bad one."""
    sent: list[bytes | None] = []
    for n in range(60):
        thing: dict[str, object] = {"id": n % 11, "seen": (n * 7) % 60}
        if n % 3:
            thing["name"] = f" name {n} "
        if n % 4:
            thing["size"] = None if n % 8 == 1 else n
        chunk = [thing, {"id": 100 + n, "seen": n}, *([{"id": "x"}] if n % 5 == 0 else [])]
        sent.append(json.dumps({"t": "many", "d": chunk} if n % 2 else {"t": "one", "d": thing}).encode())
        sent += [b"{", None, b'{"t": "other"}', b'{"t": "many", "d": []}'] if n % 20 == 0 else []
    return sent


def told(letters: list[StoredDeadLetter]) -> list[tuple[object, ...]]:
    """All that a letter says, but for the topic's id and the time."""
    return sorted(
        (letter.origin.split("/")[2:], letter.reason, letter.detail, letter.step, letter.failed, letter.value)
        for letter in letters
    )


def test_it_ends_as_on_real_servers(
    brokers: str, database: str, make_topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, sent = make_topic(partitions=1), messages()
    monkeypatch.setenv("TOPIC", topic)
    (tmp_path / "things.py").write_text(FLOW)
    spec = importlib.util.spec_from_file_location("things", tmp_path / "things.py")
    assert spec is not None
    assert spec.loader is not None
    things = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(things)

    ours = run(things.flow, sent, **SIZES)

    query(database, create_table(things.Thing))
    send(brokers, topic, [(b"", value) for value in sent])
    environment = {"TOPIC": topic, "KAFKA_BROKERS": brokers, "POSTGRES_DSN": database, "CONSUMER_GROUP_ID": topic}
    worker = Worker(
        "things", environment | {name.upper(): str(size) for name, size in SIZES.items()}, tmp_path / "log", tmp_path
    )
    try:
        eventually(lambda: Group(brokers, topic).committed(topic, 1) == [len(sent)])
    finally:
        code, _ = worker.terminate()
    assert code == 0
    real = query(database, "select id, name, size, seen from things order by id")
    letters = list(read_letters(KafkaSettings(brokers), f"{topic}.dlq", with_values=True))
    assert sorted((row["id"], row["name"], row["size"], row["seen"]) for row in ours.rows()) == real
    assert told(ours.letters) == told(letters)
    assert ours.committed[topic, 0] == len(sent)
    assert {"written", "superseded", "dead_lettered", "skipped"} == set(ours.outcomes)
