"""What `benchmarks.reading` runs, each as a process of its own that prints what it measured.

`python -m bytewax.run benchmarks.reading_flow` is the members flow up to its batches, with an end that counts them as
written; `python -m benchmarks.reading_flow` is the bare client. `BENCH_TOPIC` and `BENCH_ROWS` say what to read.
"""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from confluent_kafka import Consumer

import lovelace_streams as ls
from dataflows import discord
from lovelace_streams import Batch, JsonDecoder, KafkaSource, Outcome, Settings, Settled

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
            self.began, self.cpu, self.thread = time.perf_counter(), time.process_time(), time.thread_time()
        if self.seen < self.wanted:
            return False
        ended, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
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
    """The members flow up to its batches."""
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["BENCH_TOPIC"]])
    meter = Meter()

    def settle(batches: list[Batch[Any]]) -> list[Settled]:
        if meter.add(sum(len(batch.envelopes) for batch in batches)):
            source.drain()
        return [Settled(Outcome.WRITTEN, batch.envelopes) for batch in batches]

    made = Dataflow("reading")
    raw = ls.kafka_source("kafka", made, source)
    decoded = ls.decode("decode", raw, JsonDecoder(discord.EVENTS))
    members = ls.normalize("normalize", decoded.oks, discord.Member)
    batches = ls.batch("batch", members.oks, settings.batch)
    written: Stream[Settled] = op.flat_map_batch("written", batches, settle)
    ls.commit("commit", source, written, decoded.skipped, members.skipped)
    return made


if __name__ == "__main__":
    bare()
