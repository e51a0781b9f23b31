"""Bytewax operators that bring records from Kafka into a database, in the order in which a record passes them.

operator           step                                               what it does lies in

kafka_source       1  Kafka → Envelope[bytes]                         sources, kafka, runtime
worker_source      1  the same for a source of one's own              sources, runtime
decode             2  bytes → items, each by itself                   formats
normalize          3  items → rows                                    rows
batch              4  rows → batches of 100                           operators
upsert             5  batches → the database; isolates refused rows   delivery, writers
dead_letter        ✕  failed items of any step → one topic            dead_letters
progress           6  settled items → reports and commits             reporting, runtime
commit             6  the same for a flow without jobs                reporting, runtime
aggregate_progress 7  the service's answers → a topic of progress     reporting

An operator is a thin module of `operators`; the packages on the right are plain Python and know no engine, but for
`sources`. ARCHITECTURE.md is the map of the code, docs/operators has a page for each operator.
"""

import lovelace_streams.runtime.start  # noqa: F401 - first: it answers signals while all else is imported

# isort: split

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
from lovelace_streams.rows.context import RecordContext
from lovelace_streams.rows.declaration import Before, Epoch, From, FromKafka, Lenient, Name, Pii, Scale, Skip
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.rules import rule
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
    "Name",
    "Outcome",
    "Outgoing",
    "Pii",
    "PostgresSettings",
    "ProgressSettings",
    "Reason",
    "Record",
    "RecordContext",
    "RecordFault",
    "Row",
    "Scale",
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
    "rule",
    "upsert",
    "worker_source",
]

show_faults_in_one_line()
