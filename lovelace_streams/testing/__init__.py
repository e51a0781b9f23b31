"""Test a mapping in three lines, and a whole flow without servers (docs/testing.md).

mapped(what, *payloads)     a row class, events or a decoder by themselves       mappings.py
run(flow, messages)         the flow as it is, its ends in memory                flows.py, broker.py, lives.py
Message(value, …)           a message with key, headers, time or job             messages.py
avro(schema, datum)         a message in Avro                                    schemas.py

The test runs the same operators on the same engine as the worker. Only the ends are replaced: librdkafka's clients by a
broker in memory, a schema registry by a dict, writers by `MemoryWriter`, the progress service by its own ledger.
"""

from lovelace_streams.testing.flows import Result, run
from lovelace_streams.testing.mappings import Mapped, mapped
from lovelace_streams.testing.messages import Message
from lovelace_streams.testing.schemas import avro
from lovelace_streams.writers.memory import MemoryWriter

__all__ = ["Mapped", "MemoryWriter", "Message", "Result", "avro", "mapped", "run"]
