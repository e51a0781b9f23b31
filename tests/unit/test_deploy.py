"""Dashboards and alerts name only what is measured, with labels that it has; and all that is measured is shown."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from lovelace_streams.api.gauges import GAUGES
from lovelace_streams.observability import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
}
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}

EXPRESSIONS = {
    **{
        f"{name}: {panel['title']} {target['refId']}": target["expr"]
        for name, dashboard in DASHBOARDS.items()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    },
    **{f"alert: {name}": alert["expr"] for name, alert in ALERTS.items()},
    **{f"record: {name}": expression for name, expression in RECORDED.items()},
}
UNITS = {"ops", "short", "s", "percentunit"}


def measured() -> dict[str, set[str]]:
    """Series → labels, of workers, of the progress service, and as recorded (their level names the labels)."""
    found = {"up": {"job", "instance"}}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            for name in names(metric):
                found[name] = {*metric._labelnames, *({"le"} if name.endswith("_bucket") else ())}
    found |= {name: set(labels) for name, _, labels in GAUGES.values()}
    return found | {name: set(name.split(":")[0].split("_")) for name in RECORDED}


def names(metric: MetricWrapperBase) -> list[str]:
    if isinstance(metric, Counter):
        return [f"{metric._name}_total"]
    if isinstance(metric, Histogram):
        return [f"{metric._name}_{part}" for part in ("bucket", "sum", "count")]
    assert isinstance(metric, Gauge)
    return [metric._name]


MEASURED = measured()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_an_expression_names_what_is_measured(expression: str) -> None:
    series = set(re.findall(r"(?<![\w:])(?:[a-z_]+:)?lovelace_\w+(?::\w+)?|\bup\b", expression))
    assert series
    assert series <= MEASURED.keys()

    labels = set().union(*(MEASURED[name] for name in series))
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.split(", ")) <= labels
    for name, matchers in re.findall(r"([\w:]+)\{([^}]*)\}", expression):
        assert {re.split("[=!]", matcher)[0].strip() for matcher in matchers.split(",")} <= MEASURED[name]
    assert expression.count("(") == expression.count(")")


def test_all_that_is_measured_is_shown() -> None:
    shown = " ".join(EXPRESSIONS[name] for name in EXPRESSIONS if not name.startswith("alert"))
    bases = {re.sub("_(bucket|sum|count)$", "", name) for name in MEASURED if ":" not in name}

    assert {base for base in bases if base not in shown} == set()


def test_the_dashboards_are_what_their_script_makes() -> None:
    made: dict[str, Any] = runpy.run_path(str(DEPLOY / "grafana/make.py"))

    assert {path.stem: path.read_text() for path in (DEPLOY / "grafana/dashboards").iterdir()} == {
        name: made["render"](name) for name in made["DASHBOARDS"]
    }


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_dashboard_works_in_any_grafana(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}

    assert re.fullmatch("[a-z-]{1,40}", dashboard["uid"])
    assert "datasource" in variables
    assert len(places) == len(panels) == len({panel["id"] for panel in panels})
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(
                re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", target["expr"])) + " pipeline")
            )
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_alerts_say_what_to_do() -> None:
    assert len(ALERTS) + len(RECORDED) == len(RULES)
    for alert in ALERTS.values():
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "action"}


def test_every_rule_has_a_test() -> None:
    """`promtool test rules` runs them: tests/servers/test_prometheus.py."""
    tests = (DEPLOY / "prometheus/rules_test.yaml").read_text()

    assert {name for name in [*ALERTS, *RECORDED] if name not in tests} == set()


def test_what_is_scraped_is_named_as_the_alerts_name_it() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())

    assert {job["job_name"] for job in config["scrape_configs"]} == {"lovelace-worker", "lovelace-api"}
    assert all((DEPLOY / "prometheus" / name).is_file() for name in config["rule_files"])
