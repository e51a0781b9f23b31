"""6. `Settled` → reports and commits: durable items are reported first, and only then does the group offset move.

`commit` is the same end for flows without jobs. The work is done in `reporting.reporter`.
"""

import bytewax.operators as op
from bytewax.dataflow import Stream, operator
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from lovelace_streams.records import JobState, Settled
from lovelace_streams.reporting.reporter import Committer, Reporter, WithoutService
from lovelace_streams.reporting.status import StatusReporter
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import ProgressSettings


@operator
def progress(
    step_id: str, source: WorkerContext, settings: ProgressSettings, *settled: Stream[Settled]
) -> Stream[JobState]:
    """Report settled items to the progress service, then commit: `Settled` → `JobState`.

    `settled` are all streams of `Settled` in the flow; an offset of which an item is missing holds back the group
    offset. Gives the states of the jobs concerned, absolute and versioned (`JobState.version`), with the next list that
    is read after the service's answer. Without `settings.url` this is `commit`,
    and the worker says once a minute that no job is counted.

    Nothing leaves by `errs`. While the service is away, reading continues until `MAX_UNREPORTED` offsets wait for it. A
    service that rejects the token or the report stops the worker with exit code 78. A restart reports again what was
    not committed; the service knows those offsets and counts nothing twice (law 4).

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSource
    >>> from lovelace_streams import KafkaSettings, KafkaSource, ProgressSettings
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    >>> settled = op.input("settled", Dataflow("orders"), TestingSource([]))
    >>> states = progress("progress", source, ProgressSettings("http://127.0.0.1:8090", "token"), settled)
    >>> states.stream_id, [type(service).__name__ for service in source.services]
    ('orders.progress.report.down', ['StatusReporter', 'Reporter'])
    """
    if settings.url is None:
        reporter: Committer | Reporter = WithoutService(source)
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
    """Commit settled items: `Settled` → nothing. The end of a flow without jobs.

    `settled` are all streams of `Settled` in the flow; an offset of which an item is missing holds back the group
    offset. Nothing leaves by `errs`; a commit that the broker refuses is repeated. A restart reads and writes again
    what was not committed, with the same result.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSource
    >>> from lovelace_streams import KafkaSettings, KafkaSource
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    >>> settled = op.input("settled", Dataflow("orders"), TestingSource([]))
    >>> commit("commit", source, settled).stream_id  # an empty stream
    'orders.commit.commit.down'
    """
    reporter = Committer(source)
    source.register(reporter)
    states = op.flat_map_batch("commit", _merged(settled), reporter.take)
    op.output("end", states, _End())
    return states


def _merged(settled: tuple[Stream[Settled], ...]) -> Stream[Settled]:
    return op.merge("settled", *settled) if len(settled) > 1 else settled[0]


class _End(DynamicSink[JobState]):
    """Ends the stream, because Bytewax requires an output. The states have taken their effect before."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_EndPartition":  # noqa: ARG002
        return _EndPartition()


class _EndPartition(StatelessSinkPartition[JobState]):
    def write_batch(self, items: list[JobState]) -> None:
        pass
