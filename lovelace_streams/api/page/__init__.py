"""The page: jobs, failures and partitions as people see them, at `/ui`, an application of its own in the service's.

session (who is logged in) · dependencies (what routes share) · rates (how fast jobs progress) · formatting (values as
text) · html (templates and headers) · routes, failures, samples (what is at which path)
templates and static files: nothing is loaded from another host, and the browser is told to refuse that.
"""

from lovelace_streams.api.page.rates import JobRates
from lovelace_streams.api.page.routes import create_page
from lovelace_streams.api.page.session import Sessions

__all__ = ["JobRates", "Sessions", "create_page"]
