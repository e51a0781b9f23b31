"""7. `JobState` → `JobProgress`: each job's progress, rate and estimated end, on a compacted topic.

It is an aid: if nothing can be published, that is logged once and counted, and records are processed all the same. The
work is done in `reporting.publisher`.
"""

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.records import JobState
from lovelace_streams.reporting.publisher import EVERY_SECONDS, JobProgress, Publisher
from lovelace_streams.runtime.worker import WorkerContext


@operator
def aggregate_progress(
    step_id: str,
    states: Stream[JobState],
    source: WorkerContext,
    topic: str | None = None,
    every: float = EVERY_SECONDS,
) -> Stream[JobProgress]:
    """Publish each job's progress, rate (items a second) and estimated end: `JobState` → `JobProgress`.

    `states` are those of `progress`, which absolute counts and a version make exact (`reporting.rates` computes the
    rate over a minute). They are published to `topic`, by default `<pipeline>.progress`, keyed by job: at most one
    message a job in `every` seconds, and its final state always. The stream has the same.

    Nothing leaves by `errs`, nothing is raised, and nothing here stops the flow. A restart forgets the rate, and
    publishes the states that the service answers from then on.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSource
    >>> from lovelace_streams import KafkaSettings, KafkaSource
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    >>> states = op.input("states", Dataflow("orders"), TestingSource([]))
    >>> aggregate_progress("aggregate_progress", states, source).stream_id
    'orders.aggregate_progress.aggregate.down'
    """
    publisher = Publisher(source, topic, every)
    source.on_states(publisher.hear)
    source.register(publisher)
    return op.flat_map_batch("aggregate", states, publisher.take)
