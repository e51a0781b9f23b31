"""What a worker shows of itself: law 1 by its own metrics, and gauges that are true while it works and waits."""

import signal
import socket
import subprocess
import sys
from collections import defaultdict

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lovelace_streams.local.processes import free_port
from tests.faults.conftest import FAILED, SKIPPED, Job
from tests.faults.harness import ROOT, Group, Worker, ends, eventually
from tests.servers.collector import Collector, collecting

TOTAL = 3000


def start(job: Job, **changes: str) -> Worker:
    worker = job.fleet.start(METRICS_PORT=str(free_port()), **changes)
    eventually(lambda: bool(worker.events("metrics")))
    return worker


def scrape(worker: Worker) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Metric → labels → value, as the worker says now."""
    [told] = worker.events("metrics")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(httpx.get(told["url"], trust_env=False).text):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def by(label: str, samples: dict[tuple[tuple[str, str], ...], float]) -> dict[str, float]:
    """Summed up by one label."""
    sums: dict[str, float] = defaultdict(float)
    for labels, value in samples.items():
        sums[dict(labels)[label]] += value
    return dict(sums)


def test_every_item_read_comes_to_one_end(job: Job) -> None:
    job.open(TOTAL)
    worker = start(job)
    sent = job.submit(TOTAL)
    eventually(job.done)
    eventually(lambda: Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic))
    eventually(lambda: scrape(worker)["lovelace_pending_items"] == {(("pipeline", job.topic),): 0})
    eventually(
        lambda: by("topic", scrape(worker)["lovelace_consumer_lag_records"]).get(job.topic) == 0
    )  # once a second

    seen = scrape(worker)

    outcomes = by("outcome", seen["lovelace_items_total"])
    assert sum(outcomes.values()) == TOTAL
    assert by("pipeline", seen["lovelace_read_items_total"]) == {job.topic: TOTAL}  # none pending, none given up
    assert sum(by("way", seen["lovelace_decoded_items_total"]).values()) == TOTAL
    assert by("pipeline", seen["lovelace_given_up_items_total"]) == {job.topic: 0}
    assert outcomes["dead_lettered"] == FAILED
    assert outcomes["skipped"] == SKIPPED
    assert outcomes["written"] + outcomes.get("superseded", 0) == job.rows()
    reasons = by("reason", {k: v for k, v in seen["lovelace_items_total"].items() if ("outcome", "dead_lettered") in k})
    letters = [reason for _, reason in job.dead_letters()]
    assert reasons == {reason: letters.count(reason) for reason in letters}
    assert sum(by("partition", seen["lovelace_records_total"]).values()) == len(sent)
    assert by("topic", seen["lovelace_consumer_lag_records"])[job.topic] == 0
    assert by("partition", seen["lovelace_partition_end_offset"]) == dict(
        zip("012", ends(job.brokers, job.topic), strict=True)
    )
    assert by("topic", seen["lovelace_partition_pending_items"])[job.topic] == 0
    assert by("pipeline", seen["lovelace_oldest_unsettled_seconds"]) == {job.topic: 0}
    assert by("pipeline", seen["lovelace_unreported_offsets"]) == {job.topic: 0}
    assert by("pipeline", seen["lovelace_end_to_end_seconds_count"])[job.topic] > 0
    assert by("pipeline", seen["lovelace_batch_rows_sum"])[job.topic] >= job.rows()
    eventually(lambda: told_at_the_end(job) is not None)
    told = told_at_the_end(job) or []
    assert [(each["partition"], each["pending"], each["stale"]) for each in told] == [(n, 0, False) for n in range(3)]
    assert {each["oldest_unsettled_ms"] for each in told} == {0}


def told_at_the_end(job: Job) -> list[dict] | None:
    """What the progress service was told of this topic's partitions, once they are told to be through to their ends."""
    asked = httpx.get(
        f"{job.service.url}/partitions",
        params={"pipeline": job.topic},
        headers={"authorization": f"Bearer {job.service.token}"},
        trust_env=False,
    )
    told = [each for each in asked.json()["partitions"] if each["topic"] == job.topic]
    at = [(each["position"], each["end"], each["lag"], each["pending"]) for each in told]
    return told if at == [(end, end, 0, 0) for end in ends(job.brokers, job.topic)] else None


def test_the_gauges_move_on_while_the_destination_is_frozen(job: Job, postgres_server) -> None:
    with collecting() as collector:
        see_it_frozen(job, postgres_server, collector)


def see_it_frozen(job: Job, postgres_server, collector: Collector) -> None:
    settings = {"POLL_SIZE": "20", "POSTGRES_BLOCK_ROWS": "20"}  # so that something is left in the topic
    worker = start(job, **settings, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200")
    eventually(lambda: bool(worker.events("assigned")))
    job.service.stop()
    postgres_server.freeze()
    try:
        job.submit(500, bad=False)
        eventually(lambda: by("pipeline", scrape(worker)["lovelace_oldest_unsettled_seconds"]).get(job.topic, 0) > 2)
        seen = scrape(worker)
        assert by("pipeline", seen["lovelace_pending_items"])[job.topic] > 0
        assert by("topic", seen["lovelace_consumer_lag_records"])[job.topic] > 0
        eventually(lambda: by("pipeline", scrape(worker)["lovelace_breaker_state"]).get(job.topic) == 2)
    finally:
        postgres_server.thaw()

    eventually(lambda: job.rows() == 500)
    eventually(lambda: by("topic", scrape(worker)["lovelace_consumer_lag_records"]).get(job.topic) == 0)
    eventually(lambda: by("pipeline", scrape(worker)["lovelace_pending_items"]) == {job.topic: 0})
    assert by("pipeline", scrape(worker)["lovelace_breaker_state"]) == {job.topic: 0}
    eventually(lambda: "timeout" in collector.events("write"))  # the write's span tells of the tries that failed


def check(*arguments: str, **environment: str) -> int:
    """What a container's health check finds."""
    script = [sys.executable, "-I", str(ROOT / "deploy" / "health.py"), *arguments]
    return subprocess.run(script, env=environment, check=False).returncode


def health(worker: Worker, within: str = "60") -> int:
    [told] = worker.events("metrics")
    return check("worker", within, METRICS_PORT=told["url"].rsplit(":", 1)[1].split("/")[0])


def test_a_service_that_answers_is_well(job: Job) -> None:
    assert check("api", API_PORT=str(job.service.port)) == 0
    job.service.stop()
    assert check("api", API_PORT=str(job.service.port)) == 1


def test_a_worker_that_waits_is_well_and_one_that_hangs_is_not(job: Job) -> None:
    worker = start(job, KAFKA_BROKERS="127.0.0.1:1")  # no broker: that is waited for
    eventually(lambda: health(worker) == 0)

    worker.process.send_signal(signal.SIGSTOP)
    assert health(worker) == 1
    worker.process.send_signal(signal.SIGCONT)
    eventually(lambda: health(worker) == 0)
    assert health(worker, within="0") == 1


def test_a_taken_port_is_no_fault(job: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = job.fleet.start(METRICS_PORT=str(port))
        eventually(lambda: bool(worker.events("metrics")))

        [told] = worker.events("metrics")
        assert port < int(told["url"].rsplit(":", 1)[1].split("/")[0]) < port + 100
        assert "lovelace_items_total" in httpx.get(told["url"], trust_env=False).text
