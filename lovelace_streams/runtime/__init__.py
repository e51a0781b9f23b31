"""A running worker: its loop, the records in flight, what it reports and commits; no engine and no client here."""
