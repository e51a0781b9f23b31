"""The page: jobs, failures and partitions as people see them, at `/ui`, an application of its own in the service's.

session (who looks) · pace (how fast jobs move) · shown (numbers as text) · routes (what is where)
templates and static files: written for it; nothing is loaded from elsewhere, and the browser is told to hold us to it.
"""

from lovelace_streams.api.page.pace import Paces
from lovelace_streams.api.page.routes import create_page
from lovelace_streams.api.page.session import Sessions

__all__ = ["Paces", "Sessions", "create_page"]
