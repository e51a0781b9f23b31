"""Rules and dashboards on Prometheus itself: its own checks, and every query answered while a worker is at work."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from lovelace_streams.local.processes import free_port
from tests.debian import unpacked_program
from tests.faults.conftest import Job
from tests.faults.harness import ROOT, eventually, send

RULES = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
TOTAL = 3000


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [unpacked_program("prometheus", "promtool"), *arguments], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    promtool("check", "rules", "rules.yaml")


def test_alerts_speak_when_they_have_to_and_only_then() -> None:
    promtool("test", "rules", "rules_test.yaml")


def test_the_configuration_is_one() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yaml")


class Prometheus:
    """A server that scrapes a job's worker and service, with our configuration but for addresses and pace."""

    def __init__(self, folder: Path, job: Job, worker: str) -> None:
        config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES / "rules.yaml")]
        addresses = {"lovelace-worker": worker, "lovelace-api": job.service.url.removeprefix("http://")}
        (folder / "token").write_text(job.service.token)
        for scraped in config["scrape_configs"]:
            scraped.pop("dns_sd_configs", None)
            scraped["static_configs"] = [{"targets": [addresses[scraped["job_name"]]]}]
            if "authorization" in scraped:
                scraped["authorization"]["credentials_file"] = str(folder / "token")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.log = folder / "prometheus.log"
        port = free_port()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=20)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    unpacked_program("prometheus", "prometheus"),
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )

    def ask(self, query: str) -> list[dict]:
        """The answer's series; none where the server is not up yet."""
        try:
            answer = self.client.get("/query", params={"query": query})
        except httpx.HTTPError:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return []
        assert answer.status_code in {200, 503}, f"{query}: {answer.text}"
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

    def value(self, query: str) -> float | None:
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> list[dict]:
        groups = self.client.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def stop(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture
def prometheus(job: Job, tmp_path: Path) -> Iterator[Prometheus]:
    port = free_port()
    job.fleet.start(METRICS_PORT=str(port))
    folder = tmp_path / "prometheus"
    folder.mkdir()
    server = Prometheus(folder, job, f"127.0.0.1:{port}")
    yield server
    server.stop()


def queries() -> dict[str, str]:
    """Every query of every panel, and every series that an alert looks at, as somebody would see them."""
    found = {
        f"{path.stem}: {panel['title']} {target['refId']}": target["expr"]
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    }
    for group in yaml.safe_load((RULES / "rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                found[f"record: {rule['record']}"] = rule["record"]
                continue
            series = re.findall(r"(?<![\w:])(?:[\w:]*lovelace_[\w:]+|up)\b(?:\{[^}]*\})?", rule["expr"])
            assert series, rule["alert"]
            found |= {f"alert: {rule['alert']} {n}": one for n, one in enumerate(series)}
    return {name: query.replace("$__rate_interval", "1m").replace("$pipeline", ".+") for name, query in found.items()}


def test_every_query_is_answered_while_a_worker_works(job: Job, prometheus: Prometheus, postgres_server) -> None:
    job.open(TOTAL)
    job.submit(TOTAL, items=TOTAL // 2)
    send(job.brokers, job.topic, [(b"k", b'{"t": "OTHER"}')], [("lovelace-job-id", b"no job's id")])
    eventually(lambda: job.processed() > 0)
    postgres_server.freeze()  # so that there are retries, and a breaker that opens
    try:
        job.submit(TOTAL // 2, items=100, bad=False)
        eventually(lambda: (prometheus.value("max(lovelace_breaker_state)") or 0) == 2)
    finally:
        postgres_server.thaw()

    asked = queries()
    unanswered = set(asked)

    def tells(query: str) -> bool:
        return any(series["value"][1] != "NaN" for series in prometheus.ask(query))

    def answered() -> bool:
        # records keep coming: a worker that had read all of them before the first scrape would show no rate
        send(job.brokers, job.topic, [(str(n).encode(), b'{"t": "OTHER"}') for n in range(10)])
        unanswered.difference_update([name for name in unanswered if tells(asked[name])])
        return not unanswered

    try:
        eventually(answered, 150, 0.5)
    except AssertionError:
        pytest.fail(f"no answer to {', '.join(sorted(unanswered))}")
    assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
    eventually(lambda: prometheus.value("pipeline:lovelace_unaccounted_items:sum") == 0)
    assert (prometheus.value("sum(lovelace_read_items_total)") or 0) > TOTAL // 2
    assert prometheus.ask('ALERTS{alertname="LovelaceUnaccounted"}') == []
