"""What `benchmarks.reading` runs, each as a process of its own that prints what it measured.

`python -m bytewax.run benchmarks.reading_flow` is the members flow with a writer that has nothing to do;
`python -m benchmarks.reading_flow` is the bare client. `BENCH_TOPIC` and `BENCH_ROWS` say what to read.
"""

import json
import os
import re
import threading
import time
from pathlib import Path

import psutil
from bytewax.dataflow import Dataflow
from confluent_kafka import Consumer

import lovelace_streams as ls
from benchmarks.nowhere import Nowhere
from dataflows import discord
from lovelace_streams import JsonDecoder, KafkaSource, Settings

LIST = 500


class Meter:
    """Measures from the end of the first list to the end of the last."""

    def __init__(self) -> None:
        self.wanted = int(os.environ["BENCH_ROWS"])
        self.first = self.seen = 0
        self.began = self.cpu = self.thread = 0.0

    def add(self, rows: int) -> bool:
        """So many more have been through; True with the last one, when it has printed what it measured."""
        self.seen += rows
        if not self.first:
            self.first = self.seen
            self.began, self.cpu, self.thread = time.perf_counter(), time.process_time(), engine_seconds()
        if self.seen < self.wanted:
            return False
        ended, cpu, thread = time.perf_counter(), time.process_time(), engine_seconds()
        rows, seconds = self.seen - self.first, ended - self.began
        numbers = {
            "rows": rows,
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds),
            "cpu_us_per_row": round((cpu - self.cpu) / rows * 1e6, 2),
            "thread_us_per_row": round((thread - self.thread) / rows * 1e6, 2),
            "peak_mb": peak_mb(),
        }
        print(json.dumps(numbers), flush=True)
        return True


def engine_seconds() -> float:
    """CPU seconds so far of the main thread, the one that runs the flow."""
    engine = threading.main_thread().native_id
    return sum(
        float(thread.user_time + thread.system_time) for thread in psutil.Process().threads() if thread.id == engine
    )


def peak_mb() -> float:
    """The most that was ever resident; `getrusage` would also tell the parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else 0.0


def bare() -> None:
    """The client alone."""
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BROKERS"],
            "group.id": os.environ["CONSUMER_GROUP_ID"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.subscribe([os.environ["BENCH_TOPIC"]])
    meter = Meter()
    done = False
    while not done:
        found = 0
        for message in consumer.consume(LIST, 1.0):
            if message.error() is None:
                message.key()
                message.value()
                message.offset()
                message.timestamp()
                found += 1
        done = found > 0 and meter.add(found)
    consumer.close()


def flow() -> Dataflow:
    """The members flow, whose rows go nowhere."""
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["BENCH_TOPIC"]])
    meter = Meter()

    def look(rows: int) -> None:
        if meter.add(rows):
            source.drain()

    made = Dataflow("reading")
    raw = ls.kafka_source("kafka", made, source)
    decoded = ls.decode("decode", raw, JsonDecoder(discord.EVENTS))
    members = ls.normalize("normalize", decoded.oks, discord.Member)
    batches = ls.batch("batch", members.oks, settings.batch)
    written = ls.upsert("upsert", batches, Nowhere(look), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, members.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, members.skipped)
    return made


if __name__ == "__main__":
    bare()
