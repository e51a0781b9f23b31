"""6. `Settled` → reports and commits: what is durable is accounted for, and only then does the group offset move.

`commit` is the same end for flows without jobs.
"""

import bytewax.operators as op
from bytewax.dataflow import Stream, operator
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from lovelace_streams.records import JobState, Settled
from lovelace_streams.reporting.reporter import Committer, Reporter
from lovelace_streams.reporting.status import StatusReporter
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import ProgressSettings


@operator
def progress(
    step_id: str, source: WorkerContext, settings: ProgressSettings, *settled: Stream[Settled]
) -> Stream[JobState]:
    """Report settled ranges to the progress service; give the states of the jobs concerned, absolute and versioned.

    While the service is away reading goes on until `MAX_UNREPORTED` offsets wait for it. A restart reports again what
    was not committed; the service knows those offsets and counts nothing twice. Without a `url` this is `commit`.
    """
    if settings.url is None:
        reporter: Committer | Reporter = Committer(source)
    else:
        reporter = Reporter(source, settings)
        source.register(StatusReporter(source, settings))
        source.ledger_cover = reporter.cover
    source.register(reporter)
    states = op.flat_map_batch("report", _merged(settled), reporter.take)
    op.output("end", states, _End())
    return states


@operator
def commit(step_id: str, source: WorkerContext, *settled: Stream[Settled]) -> Stream[JobState]:
    """Commit what is settled: the end of a flow without jobs. Gives nothing."""
    reporter = Committer(source)
    source.register(reporter)
    states = op.flat_map_batch("commit", _merged(settled), reporter.take)
    op.output("end", states, _End())
    return states


def _merged(settled: tuple[Stream[Settled], ...]) -> Stream[Settled]:
    return op.merge("settled", *settled) if len(settled) > 1 else settled[0]


class _End(DynamicSink[JobState]):
    """Bytewax wants an output; what flows here has taken its effect already."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_EndPartition":  # noqa: ARG002
        return _EndPartition()


class _EndPartition(StatelessSinkPartition[JobState]):
    def write_batch(self, items: list[JobState]) -> None:
        pass
