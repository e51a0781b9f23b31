"""The service's metrics, read from the tables at each request, so that all services of one database answer the same."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

GAUGES = {
    "jobs": ("lovelace_jobs", "Jobs: `open`, `completed`, `stalled`, `closed`.", ["status"]),
    "signals": ("lovelace_signals", "Signals: `pending`, `sent`, `undeliverable`.", ["state"]),
    "items": (
        "lovelace_job_items",
        "Items of the jobs that have not ended: `succeeded`, `failed`, `skipped`, `outstanding`.",
        ["state"],
    ),
    "unknown_jobs": ("lovelace_unknown_jobs", "Jobs that were reported and never opened.", []),
}

LABELS = {
    "jobs": ("open", "completed", "stalled", "closed"),
    "signals": ("pending", "sent", "undeliverable"),
    "items": ("succeeded", "failed", "skipped", "outstanding"),
}
"""A label without rows is 0, so that an alert can tell it from a service that does not answer."""


def render(rows: Iterable[dict[str, Any]]) -> bytes:
    """Write `{gauge, label, value}` rows in Prometheus' text format."""
    registry = CollectorRegistry()
    gauges = {name: Gauge(*described, registry=registry) for name, described in GAUGES.items()}
    for name, labels in LABELS.items():
        for label in labels:
            gauges[name].labels(label)
    for row in rows:
        gauge = gauges[row["gauge"]]
        (gauge.labels(row["label"]) if row["label"] else gauge).set(float(row["value"]))
    return generate_latest(registry)
