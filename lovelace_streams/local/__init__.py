"""The local stack: real servers from wheels and jars, without Docker or root.

Kafka, a schema registry, Postgres and Temporal's test server:

    with LocalStack("somewhere") as stack:
        stack.env       {"KAFKA_BROKERS": "127.0.0.1:…", "POSTGRES_DSN": "postgresql://…", "TEMPORAL_ADDRESS": …}

`up`, `down` and `status` serve the command line: the servers of `up` run until `down` stops them.
"""

from lovelace_streams.local.stack import LocalStack, PartStatus, down, status, up

__all__ = ["LocalStack", "PartStatus", "down", "status", "up"]
