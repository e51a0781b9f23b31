"""Reporting: the worker's side of the progress service, and publishing what it answers."""
