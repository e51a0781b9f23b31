"""Writes the dashboards: `python deploy/grafana/make.py`; tests/unit/test_deploy.py compares them with what it makes.

A panel is a line here: title, what it says, unit, and queries by legend. The data source is a variable everywhere, so
that the files work in any Grafana; `$pipeline` narrows what workers show, the progress service has no pipelines.
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 3
Panel = dict[str, Any]


def panel(title: str, says: str, unit: str, kind: str = "timeseries", **queries: str) -> Panel:
    """One panel; a query's name is its legend, where `{{label}}` cannot be a name it is written `by_label`."""
    return {
        "title": title,
        "description": says,
        "type": kind,
        "datasource": SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": SOURCE,
                "expr": query.replace("{}", '{pipeline=~"$pipeline"}').replace("{,", '{pipeline=~"$pipeline", '),
                "legendFormat": legend(name),
            }
            for n, (name, query) in enumerate(queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
    }


def legend(name: str) -> str:
    """`by_topic_partition` → `{{topic}} {{partition}}`."""
    labels = name.removeprefix("by_").split("_") if name.startswith("by_") else None
    return " ".join(f"{{{{{label}}}}}" for label in labels) if labels else name.replace("_", " ")


def quantiles(histogram: str) -> dict[str, str]:
    """Three quantiles of a histogram, of what happened since the last points."""
    rate = f"sum by (le) (rate({histogram}_bucket{{}}[$__rate_interval]))"
    return {f"p{q}": f"histogram_quantile(0.{q}, {rate})" for q in (50, 95, 99)}


def rate(of: str, metric: str) -> str:
    """A counter's rate, summed up by a label; `metric` with `{}`, or `{,` and more matchers."""
    return f"sum by ({of}) (rate({metric}[$__rate_interval]))"


OVERVIEW = [
    panel("Items settled", "Items that came to an end, a second.", "ops",
          by_pipeline=rate("pipeline", "lovelace_items_total{}")),
    panel("Consumer lag", "Messages not read yet, as the last fetch knew it.", "short",
          by_pipeline="sum by (pipeline) (lovelace_consumer_lag_records{})"),
    panel("Oldest unsettled", "How long the oldest record without an outcome has been in flight.", "s",
          by_pipeline="max by (pipeline) (lovelace_oldest_unsettled_seconds{})"),
    panel("Breaker", "0 closed, 1 half open, 2 open: the destination is being waited for.", "short", "state-timeline",
          by_pipeline="max by (pipeline) (lovelace_breaker_state{})"),
    panel("Dead-lettered", "Share of the items that came to an end.", "percentunit",
          by_pipeline='sum by (pipeline) (rate(lovelace_items_total{, outcome="dead_lettered"}[$__rate_interval]))'
                      " / sum by (pipeline) (rate(lovelace_items_total{}[$__rate_interval]))"),
    panel("Unaccounted for", "Read, and neither ended, pending nor given up: around 0 under load, 0 at rest.", "short",
          by_pipeline="pipeline:lovelace_unaccounted_items:sum{}"),
    panel("Jobs", "Jobs by status, and those that were reported and never opened.", "short", "stat",
          by_status="max by (status) (lovelace_jobs)", never_opened="max(lovelace_unknown_jobs)"),
    panel("Signals", "What the outbox has sent, has to send, and cannot send.", "short", "stat",
          by_state="max by (state) (lovelace_signals)"),
    panel("Processes", "Workers and progress services that answer.", "short", "stat",
          by_job='sum by (job) (up{job=~"lovelace-.*"})'),
    panel("Last round", "Since a worker last went round its loop, which it does while it waits, too.", "s",
          by_pipeline="max by (pipeline) (time() - lovelace_last_round_timestamp_seconds{})"),
    panel("Can read", "0: the broker is away, or does not let a worker into its group.", "short",
          "state-timeline", by_pipeline="min by (pipeline) (lovelace_can_read{})"),
]  # fmt: skip

PIPELINE = [
    panel("Throughput by outcome", "read = written + superseded + dead_lettered + skipped + pending + given up.", "ops",
          by_outcome=rate("outcome", "lovelace_items_total{}"), read="sum(rate(lovelace_read_items_total{}"
          "[$__rate_interval]))", given_up="sum(rate(lovelace_given_up_items_total{}[$__rate_interval]))"),
    panel("Lag by partition", "Messages of a partition not read yet.", "short",
          by_topic_partition="sum by (topic, partition) (lovelace_consumer_lag_records{})"),
    panel("Oldest unsettled by partition", "It grows while a destination is down.", "s",
          by_topic_partition="max by (topic, partition) (lovelace_partition_oldest_unsettled_seconds{})",
          of_all="max(lovelace_oldest_unsettled_seconds{})"),
    panel("Hottest partitions", "What arrives a second, the five with the most.", "ops",
          by_topic_partition="topk(5, max by (topic, partition) (rate(lovelace_partition_end_offset{}"
          "[$__rate_interval])))"),
    panel("Skew", "The hottest partition over the mean of its topic: 1 is even.", "short",
          by_topic="max by (topic) (pipeline_topic:lovelace_partition_skew:ratio5m{})"),
    panel("Pending items by partition", "In flight without an outcome, counted by themselves.", "short",
          by_topic_partition="sum by (topic, partition) (lovelace_partition_pending_items{})",
          of_all="sum(lovelace_pending_items{})"),
    panel("End to end", "From a record's timestamp to its settlement, of the first record of each list.", "s",
          **quantiles("lovelace_end_to_end_seconds")),
    panel("Write time of a block", "From call to commit.", "s", **quantiles("lovelace_write_seconds")),
    panel("Breaker", "0 closed, 1 half open, 2 open.", "short", "state-timeline",
          by_pipeline="max by (pipeline) (lovelace_breaker_state{})"),
    panel("Retries", "Tries that ended in a fault of the destination.", "ops",
          by_step_code=rate("step, code", "lovelace_retries_total{}")),
    panel("Isolations", "Blocks in which something was refused.", "ops",
          by_pipeline=rate("pipeline", "lovelace_isolations_total{}")),
    panel("Dead letters by reason", "Items whose letter the broker has.", "short",
          by_reason='sum by (reason) (increase(lovelace_items_total{, outcome="dead_lettered"}[$__rate_interval]))'),
    panel("Skipped by reason", "Skipped items count as processed.", "short",
          by_reason='sum by (reason) (increase(lovelace_items_total{, outcome="skipped"}[$__rate_interval]))'),
    panel("Batches", "Closed batches by what closed them, and their mean rows.", "short",
          by_reason=rate("reason", "lovelace_batches_total{}"),
          rows_of_a_batch="sum(rate(lovelace_batch_rows_sum{}[$__rate_interval]))"
                          " / sum(rate(lovelace_batch_rows_count{}[$__rate_interval]))"),
    panel("Messages read", "By topic; a replay topic is one of them.", "ops",
          by_topic=rate("topic", "lovelace_records_total{}")),
    panel("Items by their way", "Made in columns, many at once, or one by one; docs/fast-flows.md tells why.", "ops",
          by_way=rate("way", "lovelace_decoded_items_total{}")),
    panel("Unreported offsets", "Read and not yet accepted by the progress service.", "short",
          by_pipeline="sum by (pipeline) (lovelace_unreported_offsets{})"),
    panel("Bad headers", "Read as absent.", "ops",
          by_header="sum by (header) (rate(lovelace_bad_headers_total[$__rate_interval]))"),
    panel("Published progress", "On the progress topic; refused: it can't be written, records are not held up.",
          "ops", by_outcome=rate("outcome", "lovelace_progress_published_total{}")),
]  # fmt: skip

JOBS = [
    panel("Jobs", "By status.", "short", by_status="max by (status) (lovelace_jobs)"),
    panel("Items of open jobs", "What is done of the jobs that have not ended, and what is outstanding.", "short",
          by_state="max by (state) (lovelace_job_items)"),
    panel("Done", "Of the items of all jobs that have not ended.", "percentunit", "stat",
          done='1 - max(lovelace_job_items{state="outstanding"}) / clamp_min(sum(max by (state)'
               " (lovelace_job_items)), 1)"),
    panel("Stalled", "Not heard of for JOB_STALL_SECONDS.", "short", "stat",
          stalled='max(lovelace_jobs{status="stalled"})'),
    panel("Never opened", "Reported by workers, and no POST /jobs for them.", "short", "stat",
          unknown="max(lovelace_unknown_jobs)"),
    panel("Signals", "By state; undeliverable ones need a hand.", "short",
          by_state="max by (state) (lovelace_signals)"),
]  # fmt: skip


def datasource() -> dict[str, Any]:
    """Which Prometheus."""
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def pipelines() -> dict[str, Any]:
    """Which pipelines: those that have read something."""
    return {
        "name": "pipeline",
        "type": "query",
        "label": "Pipeline",
        "datasource": SOURCE,
        "query": {"query": "label_values(lovelace_records_total, pipeline)", "refId": "pipeline"},
        "includeAll": True,
        "multi": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard(uid: str, title: str, panels: list[Panel], *variables: dict[str, Any]) -> dict[str, Any]:
    """Panels three in a row; every dashboard links to the others by their tag."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["lovelace"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "timezone": "",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["lovelace"], "title": "lovelace_streams", "keepTime": True}],
        "templating": {"list": [datasource(), *variables]},
        "panels": [
            {"id": n + 1, **each, "gridPos": {"x": n % COLUMNS * WIDTH, "y": n // COLUMNS * HEIGHT,
                                              "w": WIDTH, "h": HEIGHT}}
            for n, each in enumerate(panels)
        ],
    }  # fmt: skip


DASHBOARDS = {
    "overview": dashboard("lovelace", "lovelace_streams", OVERVIEW, pipelines()),
    "pipeline": dashboard("lovelace-pipeline", "lovelace_streams: a pipeline", PIPELINE, pipelines()),
    "jobs": dashboard("lovelace-jobs", "lovelace_streams: jobs", JOBS),
}


def render(name: str) -> str:
    """A dashboard's file."""
    return json.dumps(DASHBOARDS[name], indent=2) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (HERE / "dashboards" / f"{name}.json").write_text(render(name), encoding="utf-8")
