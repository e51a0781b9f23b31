"""The members job cut into its steps, as columns and item by item, each beside what that step would cost by itself.

    make bench ARGS="stages --rows 300000"

*columns*: what the step took in a whole job by one worker (the real flow with a clock at each step, `stages_flow`),
with dead letters, ledger and commits on. *items*: the same with `COLUMNAR=off`, each message, item and row an object.
Rows a second are those of the step alone: rows by the seconds that the engine spent in it. CPU is the engine's thread,
with the threads that the step has of its own.
*limit*: the same work with nothing around it.

| step | limit |
|---|---|
| read | `consume` of the same topic, value and offset looked at |
| decode and normalize | msgspec into Structs written by hand, and a function by hand from those to rows |
| batch | slices of the list |
| upsert | COPY of the same rows as prebuilt text |
| progress | requests to the progress service with ranges made before, one a window |

To decode and to normalize is one step here, because as columns they are one loop. What the engine spends between the
steps, and whatever else the process does, is *around* them.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import msgspec
from confluent_kafka import Consumer, TopicPartition

from benchmarks import database
from benchmarks.common import (
    PARTITIONS,
    Servers,
    alternate,
    arguments,
    fresh_topic,
    make_table,
    messages,
    say,
    send,
    servers,
    speed,
    submit,
    summary,
    work,
)
from dataflows.discord import Member
from lovelace_streams.submit import open_job

FLOW = "benchmarks.stages_flow"
SETTINGS: dict[str, str] = {}
WINDOW = BLOCK = 2000
WAYS = {"columns": {}, "items": {"COLUMNAR": "off"}}
"""How what is read passes the steps, and what a worker is told for it."""
DECODE = "decode and normalize"
STEPS = {"kafka": "read", "dead_letter": "dead letters", "decode": DECODE, "normalize": DECODE}
"""Names of steps in the flow, where they are called something else here."""
THREADS = {"librdkafka": "read", "upsert": "upsert", "progress": "progress"}
"""Which step a thread works for."""
LIMITED = ("read", DECODE, "batch", "upsert", "progress")


class User(msgspec.Struct, gc=False):
    """What a row asks for, by hand."""

    id: str
    username: str | None = None
    global_name: str | None = None
    avatar: str | None = None


class Data(msgspec.Struct, gc=False):
    """Of the message's `d`."""

    guild_id: str
    user: User
    nick: str | None = None
    roles: list[str] | None = None
    joined_at: datetime | None = None


class Dispatch(msgspec.Struct, gc=False):
    """A message."""

    t: str
    d: Data


class Bench:
    """The stages and their limits, on one topic."""

    def __init__(self, servers: Servers, topic: str, rows: int) -> None:
        say(f"preparing {rows} rows")
        self.servers = servers
        self.topic = topic
        self.rows = rows
        self.messages = list(messages(rows))
        self.values = [message.value for message in self.messages]
        self.blocks = database.cut(database.lines(rows), BLOCK)
        send(servers.settings, topic, self.messages)
        self.stages: dict[str, dict[str, dict[str, Any]]] = {}

    def measurements(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """The whole job both ways, what its steps took, and their limits."""
        limits = {"read": self.read, DECODE: self.decode, "batch": self.batch}
        limits |= {"upsert": self.upsert, "progress": self.progress}
        made: dict[str, Callable[[], dict[str, Any]]] = {}
        for way in WAYS:
            made[f"whole job: {way}"] = partial(self.job, way)
        for step in LIMITED:
            for way in WAYS:
                made[f"{step}: {way}"] = partial(self.stage, way, step)
            made[f"{step}: limit"] = limits[step]
        for way in WAYS:
            made[f"around: {way}"] = partial(self.stage, way, "around")
        return made

    # -- the stages ----------------------------------------------------------------------------------------------------

    def job(self, way: str) -> dict[str, Any]:
        """The job with a clock at each step."""
        make_table(self.servers)
        file = self.servers.stack.home / "stages.json"
        with fresh_topic(self.servers.settings) as topic:
            job = submit(self.servers, topic, self.messages, self.rows)
            told = {"STAGES_FILE": str(file), **SETTINGS, **WAYS[way]}
            result = work(self.servers, topic, job, self.rows, told, flow=FLOW)
        self.stages[way] = staged(json.loads(file.read_text()), self.rows)
        return result

    def stage(self, way: str, step: str) -> dict[str, Any]:
        """What a step took in the last job."""
        return self.stages[way][step]

    # -- their limits --------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """Kafka's client by itself, at its best."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers.settings.kafka_brokers,
                "group.id": f"bare-{uuid4().hex[:12]}",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": 5,
            }
        )
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        left, began, cpu = self.rows, 0.0, 0.0
        while left:
            found = consumer.consume(500, 0.05)
            if found and not began:
                began, cpu = time.perf_counter(), time.process_time()
            for message in found:
                message.value()
                message.offset()
            left -= len(found)
        result = speed(self.rows, time.perf_counter() - began, time.process_time() - cpu)
        consumer.close()
        return result

    def decode(self) -> dict[str, Any]:
        """msgspec by itself, and Structs to rows by hand."""
        now = datetime.now(UTC)
        decode = msgspec.json.Decoder(Dispatch, strict=False).decode

        def row(message: Dispatch) -> Member:
            data, user = message.d, message.d.user
            return Member(
                guild_id=int(data.guild_id),
                user_id=int(user.id),
                username=user.username.lower() if user.username else None,
                display_name=data.nick or user.global_name or user.username,
                roles=[int(role) for role in data.roles] if data.roles else [],
                joined_at=data.joined_at,
                avatar=user.avatar,
                left_at=None,
                seen_at=now,
            )

        return in_windows(self.values, lambda values: [row(decode(value)) for value in values])

    def batch(self) -> dict[str, Any]:
        """Slices."""
        return in_windows(self.values, lambda values: [values[at : at + BLOCK] for at in range(0, WINDOW, BLOCK)])

    def upsert(self) -> dict[str, Any]:
        """The same rows as text."""
        make_table(self.servers)
        return database.write(self.servers, self.blocks, database.copy, self.rows)

    def progress(self) -> dict[str, Any]:
        """One range a partition and window, for a job: requests and the ledger's answers, nothing else."""
        progress, name = self.servers.settings.progress, f"bare-{uuid4().hex[:12]}"
        opened = {"job_id": name, "source": "discord", "total_items": self.rows, "pipelines": [name]}
        open_job(progress, opened)
        bodies = [self.report(name, at, min(WINDOW, self.rows - at)) for at in range(0, self.rows, WINDOW)]
        headers = {"authorization": f"Bearer {progress.token}", "content-type": "application/json"}
        with httpx.Client(headers=headers, trust_env=False) as client:
            began, cpu = time.perf_counter(), time.process_time()
            for body in bodies:
                client.post(f"{progress.url}/progress", content=body).raise_for_status()
            return speed(self.rows, time.perf_counter() - began, time.process_time() - cpu)

    def report(self, name: str, first: int, count: int) -> bytes:
        """A window of one partition, every offset with one item that was written."""
        span = {"first": first, "last": first + count - 1, "succeeded": 1, "job_id": name}
        report = {"topic": name, "topic_id": name, "partition": 0, "ranges": [span]}
        return msgspec.json.encode({"pipeline": name, "reports": [report]})


def in_windows(values: Sequence[Any], call: Callable[[Sequence[Any]], object]) -> dict[str, Any]:
    """How fast it is, a window at a time, each let go before the next; the collector rests, as it does in a worker."""
    windows = [values[at : at + WINDOW] for at in range(0, len(values), WINDOW)]
    gc.collect()
    gc.disable()
    try:
        began, cpu = time.perf_counter(), time.process_time()
        for window in windows:
            call(window)
        return speed(len(values), time.perf_counter() - began, time.process_time() - cpu)
    finally:
        gc.enable()


def staged(clocks: dict[str, dict[str, Any]], rows: int) -> dict[str, dict[str, Any]]:
    """Steps and threads as measurements; what no step accounts for is around them."""
    spent: dict[str, list[float]] = {}
    for name, (seconds, cpu) in clocks["steps"].items():
        step = spent.setdefault(STEPS.get(name, name), [0.0, 0.0])
        step[0], step[1] = step[0] + seconds, step[1] + cpu
    for thread, cpu in clocks["threads"].items():
        if thread in THREADS:
            spent[THREADS[thread]][1] += cpu
    around = sum(clocks["threads"].values()) - sum(cpu for _, cpu in spent.values())
    return {step: speed(rows, max(seconds, 1e-9), cpu) for step, (seconds, cpu) in spent.items()} | {
        "around": {"rows": rows, "cpu_us_per_row": round(around / rows * 1e6, 2)}
    }


def main() -> int:
    """Run it; prints its JSON lines."""
    options = arguments("stages", __doc__, rows=100_000, runs=3).parse_args()
    os.environ.pop("STAGES_FILE", None)
    with servers() as started, fresh_topic(started.settings) as topic:
        results = alternate("stages", Bench(started, topic, options.rows).measurements(), options.runs, options.minutes)
    pairs = [(f"{step}: {way}", f"{step}: limit") for step in LIMITED for way in WAYS]
    print(json.dumps(summary("stages", results, pairs, rows=options.rows, settings=SETTINGS)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
