"""Delivery: write rows to a destination that may be away, in blocks, with retries, in a background thread."""
