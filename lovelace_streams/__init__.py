"""Bytewax operators for ingestion that can be trusted, in the order in which a record meets them.

kafka_source  1  Kafka → Envelope[bytes]                          sources, kafka, runtime
decode        2  bytes → items, each by itself                    formats
normalize     3  items → rows                                     rows
batch         4  rows → batches of 100
upsert        5  batches → the database, isolating what it refuses   delivery, writers
dead_letter   ✕  any step's failures → one exit                   dead_letters
progress      6  what is durable → reports and commits            reporting, runtime
aggregate_progress     its answers → a topic: how far, how fast, until when   reporting
commit        6  the same for a flow without jobs                 reporting
worker_source 1  the same as kafka_source for a source of one's own   sources

An operator is a module of `operators`; what it does is plain Python in the packages on the right.
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
from lovelace_streams.sources.worker_source import WorkerSource, worker_source

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
    "WorkerSource",
    "aggregate_progress",
    "batch",
    "commit",
    "dead_letter",
    "decode",
    "kafka_source",
    "normalize",
    "progress",
    "upsert",
    "worker_source",
]

show_faults_in_one_line()
