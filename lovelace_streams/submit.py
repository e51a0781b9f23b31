"""What a flow's `SOURCE` is made of, where users' flows import it from; and opening a job."""

from lovelace_streams.admin.submit import Outgoing, Source, keyed_by, open_job

__all__ = ["Outgoing", "Source", "keyed_by", "open_job"]
