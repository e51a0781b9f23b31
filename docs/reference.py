"""What docs/metrics.md says of each metric is what the code says of it: `python docs/reference.py` writes it anew.

Prometheus shows the same words as a metric's help. tests/unit/test_docs.py compares.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from lovelace_streams import metrics
from lovelace_streams.api.gauges import GAUGES

PAGE = Path(__file__).with_name("metrics.md")
MADE = re.compile(r"(<!-- (\w+): made by docs/reference.py -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = "| metric | type | labels | means |\n|---|---|---|---|\n"


def tables() -> dict[str, str]:
    """The page's tables by the name in their mark."""
    worker = [it for it in vars(metrics).values() if isinstance(it, MetricWrapperBase)]
    return {
        "worker": HEAD + "".join(map(_line, worker)),
        "service": HEAD + "".join(_row(name, "gauge", labels, text) for name, text, labels in GAUGES.values()),
    }


def _line(metric: MetricWrapperBase) -> str:
    name = metric._name + ("_total" if isinstance(metric, Counter) else "")  # noqa: SLF001 - nothing else has it
    return _row(name, metric._type, metric._labelnames, metric._documentation)  # noqa: SLF001


def _row(name: str, kind: str, labels: Iterable[str], text: str) -> str:
    means = (text[:1].lower() + text[1:]).removesuffix(".").replace("|", r"\|")
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {means} |\n"


def rendered(page: str) -> str:
    """The page with its tables made anew."""
    made = tables()
    return MADE.sub(lambda match: f"{match[1]}{made[match[2]]}{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
