"""The files to deploy with: what they name is there, nothing runs as root, nothing is open, nothing is secret."""

import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from lovelace_streams.cli.shared import source_of
from lovelace_streams.settings import LIBRDKAFKA, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in OURS.items() if "bytewax.run" in service["command"]}
BASE = DEPLOY / "kubernetes" / "base"
OBJECTS: list[dict[str, Any]] = [
    document
    for path in sorted(BASE.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["kind"] != "Kustomization"
]
DEPLOYMENTS = {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == "Deployment"}
KESTRA: dict[str, Any] = yaml.safe_load((DEPLOY / "kestra" / "submit.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PORTS = {
    "kafka": 9092, "schema-registry": 8081, "kafka-ui": 8080, "postgres": 5432, "clickhouse": 8123, "temporal": 7233,
    "api": 8000, "prometheus": 9090, "grafana": 3000,
}  # fmt: skip
EVERYTHING = Settings(
    clickhouse_dsn="http://127.0.0.1:8123/lovelace",
    schema_registry_url="http://127.0.0.1:8081/apis/ccompat/v7",
    _env_file=None,
)
"""Settings that every flow can be built with."""
VERSION = re.compile(r"v?\d+\.\d+(\.\d+)*(-[a-z0-9-]+)?")


def is_setting(name: str) -> bool:
    """Whether our processes would understand a variable."""
    librdkafka = name.removeprefix("KAFKA_").lower().replace("_", ".")
    return name.lower() in Settings.model_fields or (name.startswith("KAFKA_") and librdkafka in LIBRDKAFKA)


def flow_of(command: list[str]) -> str:
    """`dataflows.discord` of `python -m bytewax.run dataflows.discord`."""
    return command[command.index("bytewax.run") + 1]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in DEPLOYMENTS.items():
        yield name, each["spec"]["template"]["spec"]


# -- compose ---------------------------------------------------------------------------------------------------------


def test_compose_has_what_it_promises_where_it_promises_it() -> None:
    published = {name: port for name, service in SERVICES.items() for port in service.get("ports", [])}

    assert published == {name: f"127.0.0.1:{port}:{port}" for name, port in PORTS.items()}
    assert SERVICES["kafka"]["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert WORKERS


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_bounded_and_not_root(name: str) -> None:
    service = SERVICES[name]

    assert VERSION.fullmatch(service["image"].rpartition(":")[2]), service["image"]
    assert int(service["user"].split(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert not {"privileged", "network_mode", "pid", "cap_add"} & service.keys()
    assert service["restart"] in {"unless-stopped", "on-failure:5"}
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_how_it_is_and_waits_for_what_it_needs(name: str) -> None:
    service = SERVICES[name]
    ends = {"service_completed_successfully": True, "service_healthy": False}

    assert service["healthcheck"].get("disable") or service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    for needed, how in service.get("depends_on", {}).items():
        assert ends[how["condition"]] == bool(SERVICES[needed]["healthcheck"].get("disable"))


@pytest.mark.parametrize("name", OURS)
def test_ours_end_where_a_restart_does_not_help(name: str) -> None:
    service = OURS[name]

    assert service["restart"] == "on-failure:5"
    assert service["read_only"]
    assert {variable for variable in service["environment"] if not is_setting(variable)} == set()
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_seconds"].default


def test_what_is_mounted_is_there() -> None:
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]

    assert {source for source in sources if source.startswith(".") and not (DEPLOY / source).exists()} == set()
    assert {source for source in sources if not source.startswith(".")} == COMPOSE["volumes"].keys()
    for service in OURS.values():
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_every_secret_comes_from_outside_and_has_no_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text)) | {each["environment"] for each in COMPOSE["secrets"].values()}
    shown = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))

    assert set(re.findall(r"\$\{(\w+)(?!\w|:\?)", text)) == {"OTEL_EXPORTER_OTLP_ENDPOINT"}, "the others are asked for"
    assert asked | {"OTEL_EXPORTER_OTLP_ENDPOINT"} == shown.keys()
    assert set(shown.values()) == {""}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD$|PWD$|TOKEN$|SECRET", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), name


def test_topics_are_made_before_flows_read_them() -> None:
    [script] = SERVICES["topics"]["command"]

    for service in WORKERS.values():
        assert source_of(flow_of(service["command"])).topic in script


def test_prometheus_scrapes_what_there_is() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}

    assert set(jobs["lovelace-worker"]["dns_sd_configs"][0]["names"]) == set(WORKERS)
    assert jobs["lovelace-worker"]["dns_sd_configs"][0]["port"] == Settings.model_fields["metrics_port"].default
    assert jobs["lovelace-api"]["static_configs"] == [{"targets": ["api:8000"]}]
    assert jobs["lovelace-api"]["authorization"]["credentials_file"] == "/run/secrets/progress_api_token"


# -- the image -------------------------------------------------------------------------------------------------------


def test_the_image_is_pinned_and_not_root() -> None:
    assert re.search(r"^ARG PYTHON=3\.1[12]\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:${PYTHON}"] * 2
    assert re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE) == ["10001"]
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nCMD ")
    assert "\nHEALTHCHECK " in DOCKERFILE
    assert "https://" not in DOCKERFILE.replace("https://keda.sh", "")


def test_the_image_installs_extras_that_there_are_as_the_lock_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r"-c requirements\.lock '\.\[([\w,-]+)\]'", DOCKERFILE)
    wanted = [*project["dependencies"], *(r for e in extras.split(",") for r in project["optional-dependencies"][e])]
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().split()}

    assert {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} - locked == set()
    assert f"VERSION={project['version']}" in DOCKERFILE
    assert {service["image"] for service in OURS.values()} == {f"lovelace-streams:{project['version']}"}


def test_what_the_image_copies_gets_into_its_build() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        path for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE) for path in line.split()[:-1]
    ]

    assert set(copied) == let_in
    assert {path for path in copied if not (ROOT / path).exists()} == set()


# -- Kubernetes ------------------------------------------------------------------------------------------------------


def test_the_base_names_all_its_files_but_the_secret() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    there = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}

    assert set(kustomization["resources"]) == there


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=DEPLOYMENTS)
def test_a_pod_is_restricted(name: str, pod: dict[str, Any]) -> None:
    [container] = pod["containers"]
    security = container["securityContext"]

    assert pod["enableServiceLinks"] is False, "a Service called kafka would set KAFKA_PORT"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    assert {"startupProbe", "livenessProbe"} <= container.keys()
    assert name in {"api", *(w["metadata"]["labels"]["app.kubernetes.io/name"] for w in worker_templates())}


def worker_templates() -> list[dict[str, Any]]:
    templates = [each["spec"]["template"] for each in DEPLOYMENTS.values()]
    return [each for each in templates if each["metadata"]["labels"].get("lovelace/role") == "worker"]


def test_pods_are_told_settings_that_there_are() -> None:
    [config] = [each for each in OBJECTS if each["kind"] == "ConfigMap"]
    [secret] = [each for each in OBJECTS if each["kind"] == "Secret"]

    assert {name for name in [*config["data"], *secret["stringData"]] if not is_setting(name)} == set()
    assert set(secret["stringData"].values()) == {""}
    assert float(config["data"]["DRAIN_SECONDS"]) < 30


def test_every_worker_is_scaled_by_the_lag_of_its_own_group() -> None:
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in OBJECTS if each["kind"] == "ScaledObject"
    }

    assert scaled.keys() == DEPLOYMENTS.keys() - {"api"}
    for name, spec in scaled.items():
        [container] = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
        flow = flow_of(container["command"])
        [trigger] = spec["triggers"]
        assert "replicas" not in DEPLOYMENTS[name]["spec"], "two would decide"
        assert trigger["type"] == "kafka"
        assert (trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"]) == (
            import_module(flow).flow(EVERYTHING).flow_id,
            source_of(flow).topic,
        )
        assert trigger["metadata"]["allowIdleConsumers"] == "false"
        assert spec["minReplicaCount"] == 1


def test_selectors_find_what_they_are_for() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"].items() for each in DEPLOYMENTS.values()]
    found = [
        selector
        for each in OBJECTS
        for key in ("selector", "podSelector")
        if (selector := each.get("spec", {}).get(key))
    ]

    assert found
    for selector in found:
        wanted = selector.get("matchLabels", selector).items()
        assert any(wanted <= there for there in labels), selector


# -- Kestra ----------------------------------------------------------------------------------------------------------


def test_the_submission_names_flows_that_there_are_and_puts_no_input_into_a_command() -> None:
    [task] = KESTRA["tasks"]
    inputs = {each["id"]: each for each in KESTRA["inputs"]}

    assert all(source_of(flow).topic for flow in inputs["flow"]["values"])
    assert "{{" not in " ".join(task["commands"])
    asked = set(re.findall(r"inputs\.(\w+)", str(task)))
    assert asked == inputs.keys()
    assert {name for name in task["env"] if not is_setting(name)} == {"FLOW", "JOB", "WORKFLOW", "GUILD"}
    assert all("secret(" in task["env"][name] for name in task["env"] if is_setting(name))
    assert task["containerImage"] in {service["image"] for service in OURS.values()}


@pytest.mark.parametrize("command", [s["command"] for s in WORKERS.values()], ids=WORKERS)
def test_a_worker_runs_a_flow_that_there_is(command: list[str]) -> None:
    assert command[:3] == ["python", "-m", "bytewax.run"]
    assert find_spec(flow_of(command))
