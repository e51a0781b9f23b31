"""A progress service and a members job, as the faults have them."""

from tests.faults.conftest import job, service

__all__ = ["job", "service"]
