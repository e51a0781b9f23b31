"""What a flow's `SOURCE` is made of, where users' flows import it from; and opening a job."""

from lovelace_streams.flows.spec import FlowSpec as Source
from lovelace_streams.flows.spec import Outgoing, keyed_by
from lovelace_streams.reporting.client import open_job

__all__ = ["Outgoing", "Source", "keyed_by", "open_job"]
