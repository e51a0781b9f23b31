"""`JobState` → how far each job is, how fast, and until when: on a compacted topic that anybody can follow.

It is an aid: where nothing can be published, that is logged once and counted, and records go their way.
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
    """Publish each job's progress, rate and estimated end to a topic (default `<pipeline>.progress`, keyed by job).

    At most one message a job in `every` seconds, and its final state always; gives the same as a stream. Nothing leaves
    by `errs`, and nothing here stops the flow. A restart forgets the rate, and publishes what it is told from then on.
    """
    publisher = Publisher(source, topic, every)
    source.on_states(publisher.hear)
    source.register(publisher)
    return op.flat_map_batch("aggregate", states, publisher.take)
