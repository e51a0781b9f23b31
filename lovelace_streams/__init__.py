"""Bytewax operators for ingestion that can be trusted, in the order in which a record meets them.

kafka_source  1  Kafka → Envelope[bytes]                        source.py
decode        2  bytes → items, each by itself                  decode.py   (json.py, avro.py)
normalize     3  items → rows                                   normalize.py (rows.py, mapping.py)
batch         4  rows → batches of 100                          batch.py
upsert        5  batches → the database, isolating what it refuses   upsert.py (writers/, resilience.py)
dead_letter   ✕  any step's failures → one exit                 dead_letter.py
progress      6  what is durable → reports and commits          progress.py (offsets.py)
aggregate_progress     its answers → a topic: how far, how fast, until when   aggregate_progress.py (rates.py)
commit        6  the same for a flow without jobs               progress.py
"""

from msgspec import UNSET

from lovelace_streams.errors import DeploymentFault, DestinationFault, LovelaceError, RecordFault
from lovelace_streams.flows.spec import FlowSpec as Source
from lovelace_streams.flows.spec import Outgoing
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.aggregate_progress import aggregate_progress
from lovelace_streams.operators.batch import batch
from lovelace_streams.operators.dead_letter import dead_letter
from lovelace_streams.operators.decode import decode
from lovelace_streams.operators.normalize import normalize
from lovelace_streams.operators.progress import commit, progress
from lovelace_streams.operators.upsert import upsert
from lovelace_streams.records import Batch, DeadLetter, Envelope, JobState, Outcome, Reason, Record, Settled, SkipReason
from lovelace_streams.reporting.publisher import JobProgress
from lovelace_streams.rows.declaration import Before, Epoch, From, FromKafka, Lenient, Pii, Skip
from lovelace_streams.rows.row import Row
from lovelace_streams.runtime.process import show_faults_in_one_line
from lovelace_streams.settings import BatchPolicy, KafkaSettings, PostgresSettings, ProgressSettings, Settings
from lovelace_streams.sources.kafka import KafkaSource, kafka_source

__all__ = [
    "UNSET",
    "Batch",
    "BatchPolicy",
    "Before",
    "DeadLetter",
    "DeploymentFault",
    "DestinationFault",
    "Envelope",
    "Epoch",
    "Events",
    "From",
    "FromKafka",
    "Items",
    "JobProgress",
    "JobState",
    "JsonDecoder",
    "KafkaSettings",
    "KafkaSource",
    "Lenient",
    "LovelaceError",
    "Outcome",
    "Outgoing",
    "Pii",
    "PostgresSettings",
    "ProgressSettings",
    "Reason",
    "Record",
    "RecordFault",
    "Row",
    "Settings",
    "Settled",
    "Skip",
    "SkipReason",
    "Source",
    "aggregate_progress",
    "batch",
    "commit",
    "dead_letter",
    "decode",
    "kafka_source",
    "normalize",
    "progress",
    "upsert",
]

show_faults_in_one_line()
