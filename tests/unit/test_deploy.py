"""Dashboards and alerts name only what is measured, with labels that it has; and all that is measured is shown."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from lovelace_streams import metrics
from lovelace_streams.api.gauges import GAUGES

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "lovelace.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]

EXPRESSIONS = {
    **{
        f"panel: {panel['title']} {n}": t["expr"]
        for panel in DASHBOARD["panels"]
        for n, t in enumerate(panel["targets"])
    },
    **{f"alert: {alert['alert']}": alert["expr"] for alert in ALERTS},
}


def measured() -> dict[str, set[str]]:
    """Series → labels, of workers and of the progress service."""
    found = {"up": {"job", "instance"}}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            for name in names(metric):
                found[name] = {*metric._labelnames, *({"le"} if name.endswith("_bucket") else ())}
    return found | {name: set(labels) for name, _, labels in GAUGES.values()}


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
    series = set(re.findall(r"\b(?:lovelace_\w+|up\b)", expression))
    assert series
    assert series <= MEASURED.keys()

    labels = set().union(*(MEASURED[name] for name in series))
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.split(", ")) <= labels
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
        assert {re.split("[=!]", matcher)[0].strip() for matcher in matchers.split(",")} <= MEASURED[name]
    assert expression.count("(") == expression.count(")")


def test_all_that_is_measured_is_shown() -> None:
    shown = " ".join(expression for name, expression in EXPRESSIONS.items() if name.startswith("panel"))
    bases = {re.sub("_(bucket|sum|count)$", "", name) for name in MEASURED} - {"up"}

    assert {base for base in bases if base not in shown} == set()


def test_panels_do_not_lie_on_each_other_and_alerts_say_what_to_do() -> None:
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "action"}
