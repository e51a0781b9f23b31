"""Check a flow before it runs: its servers, topics and tables, and a sample of its records.

Nothing is written: no offset, no topic, no row. The records of the sample pass the flow's own decoder and normalizer.
Their rows pass the destination's own rules in a transaction that is rolled back (`Writer.dry_run`). The report names a
failing record as its dead letter would: by reason, path or rule, and offset, never by a value.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lovelace_streams.admin.check.broker import BrokerCheck
from lovelace_streams.admin.check.destination import check_destination
from lovelace_streams.admin.check.report import AWAY, DEPLOYMENT, FAILS, CheckReport, SampleResult
from lovelace_streams.admin.check.sample import SampleRun, where_it_ends
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.flows.explain import note, plans_of
from lovelace_streams.flows.topology import Route, Topology
from lovelace_streams.reporting.client import ask_service
from lovelace_streams.settings import Settings, unread_variables
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.writers import Writer

__all__ = ["AWAY", "DEPLOYMENT", "FAILS", "CheckReport", "check"]

P = ParamSpec("P")
"""The arguments of a single check."""
T = TypeVar("T")
"""Its result."""


def check(topology: Topology, sample: int) -> CheckReport:
    """Check everything, also after a fault; try `sample` messages from both ends of each partition."""
    return _Check(topology, sample).run()


class _Check:
    def __init__(self, topology: Topology, sample: int) -> None:
        self.topology = topology
        self.sample = sample
        self.report = CheckReport(topology.name, [], SampleResult())

    def run(self) -> CheckReport:
        for line in unread_variables():
            self.report.add("note", line)
        for loose in self.topology.loose:
            self.report.add("deployment", str(loose))
        for line in filter(None, map(note, plans_of(self.topology.flow, Settings()))):
            self.report.add("note", line)
        ready = {writer for writer in self.topology.writers if self._attempt(check_destination, writer, self.report)}
        self._attempt(self._progress)
        try:
            for route in self.topology.routes:
                broker_answers = self._attempt(self._broker, route.source)
                self._attempt(self._decoder, route)
                if broker_answers and self.sample:
                    self._attempt(self._sample, route, ready)
        finally:
            for writer in self.topology.writers:
                writer.close()
        return self.report

    def _attempt(self, single_check: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
        """Run a single check. A fault becomes a finding, and the next check follows."""
        try:
            return single_check(*args, **options)
        except DeploymentFault as fault:
            self.report.add("deployment", str(fault))
        except DestinationFault as fault:
            self.report.add("away", str(fault))
        return None

    def _broker(self, source: KafkaSource) -> bool:
        for finding in BrokerCheck(source).findings():
            self.report.findings.append(finding)
        return True

    def _progress(self) -> None:
        settings = self.topology.progress
        if settings is None:
            self.report.add("ok", "no progress service: the flow commits what is settled, and counts no job")
        else:
            ask_service(settings, "/readyz")
            ask_service(settings, "/jobs", {"limit": 1})  # /readyz asks for no token
            self.report.add("ok", f"{settings.name}: the progress service is ready and accepts the token")

    def _decoder(self, route: Route) -> None:
        """Check what a decoder depends on (a schema registry), if it can say so."""
        single_check = getattr(route.decoder, "check", None)
        if single_check is not None:
            self.report.add("ok", str(single_check()))

    def _sample(self, route: Route, ready: set[Writer]) -> None:
        if end := where_it_ends(route):
            self.report.add("note", end)
        SampleRun(route, self.sample, self.report).run(dry_run=route.writer in ready)
