"""Rows on their way to a destination that may be away."""
