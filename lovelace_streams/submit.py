"""What users' flows import for their `SOURCE`, and `open_job`."""

from lovelace_streams.flows.spec import FlowSpec as Source
from lovelace_streams.flows.spec import Outgoing, keyed_by
from lovelace_streams.reporting.client import open_job

__all__ = ["Outgoing", "Source", "keyed_by", "open_job"]
