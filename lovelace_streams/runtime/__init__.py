"""What a worker holds and how it lives; no engine and no client here."""
