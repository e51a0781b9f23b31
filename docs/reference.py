"""References that are made of the code.

- The tables of docs/metrics.md, and what docs/fast-flows.md shows of `lovelace explain` for the flows in dataflows/:
  `python docs/reference.py` writes them anew, tests/unit/test_docs.py compares. Prometheus shows the same words as a
  metric's help.
- The page of the command line, made whenever the site is built (`hooks.py`).
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import typer
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from lovelace_streams.api.gauges import GAUGES
from lovelace_streams.cli import app
from lovelace_streams.flows import explain
from lovelace_streams.flows.discovery import flow_names
from lovelace_streams.observability import metrics
from lovelace_streams.testing.flows import OwnSettings

HERE = Path(__file__).parent
PAGES = ("metrics.md", "fast-flows.md")
MADE = re.compile(r"(<!-- (\w+): made by docs/reference.py -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = "| metric | type | labels | means |\n|---|---|---|---|\n"


def worker() -> str:
    """The metrics of a worker."""
    return HEAD + "".join(_line(it) for it in vars(metrics).values() if isinstance(it, MetricWrapperBase))


def service() -> str:
    """The metrics of the progress service."""
    return HEAD + "".join(_row(name, "gauge", labels, text) for name, text, labels in GAUGES.values())


def explained() -> str:
    """What `lovelace explain` says of the flows in dataflows/, with settings that no environment changes."""
    if str(HERE.parent) not in sys.path:
        sys.path.insert(0, str(HERE.parent))
    modules = {name: importlib.import_module(f"dataflows.{name}") for name in flow_names()}
    settings = OwnSettings()
    return "".join(
        f"\n### `{name}`\n\n{_plan(plan)}"
        for name, module in modules.items()
        if callable(getattr(module, "flow", None))
        for plan in explain.plans_of(module.flow(settings), settings)
    )


def _plan(plan: Any) -> str:
    rows = ["| " + " | ".join(cells) + " |\n" for cells in (explain.HEAD, ["---"] * len(explain.HEAD))]
    rows += ["| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n" for cells in explain.table(plan)]
    return f"{explain.headline(plan)}\n\n{''.join(rows)}"


PARTS: dict[str, Callable[[], str]] = {"worker": worker, "service": service, "explain": explained}
"""What is made, by the name in its mark."""


def _line(metric: MetricWrapperBase) -> str:
    name = metric._name + ("_total" if isinstance(metric, Counter) else "")  # noqa: SLF001 - nothing else has it
    return _row(name, metric._type, metric._labelnames, metric._documentation)  # noqa: SLF001


def _row(name: str, kind: str, labels: Iterable[str], text: str) -> str:
    means = (text[:1].lower() + text[1:]).removesuffix(".").replace("|", r"\|")
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {means} |\n"


def rendered(page: str) -> str:
    """The page with its parts made anew."""
    return MADE.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}{match[3]}", page)


def commands() -> str:
    """The page of the command line."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# The command line",
        "`.venv/bin/lovelace`, or `python -m lovelace_streams`: what `--help` says of each command, on one page.",
        "A command ends with 0, with 78 where the deployment is wrong, with 75 where trying again may help.",
    ]
    for name, command in _commands("lovelace", root):
        parts += [f"## `{name}`", escape(command.help or "", quote=False)]
        rows = [_parameter(it) for it in command.params if it.name != "help" and not getattr(it, "hidden", False)]
        if rows:
            parts.append("\n".join(["| argument | default | means |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _commands(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def _parameter(it: Any) -> str:
    names = [*it.opts, *it.secondary_opts] if it.param_type_name == "option" else [it.name.upper()]
    given = "" if it.default in (None, False, ()) or callable(it.default) else f"`{it.default}`"
    means = escape(it.help or "", quote=False).replace("|", r"\|")
    return f"| {', '.join(f'`{name}`' for name in names)} | {'required' if it.required else given} | {means} |"


if __name__ == "__main__":
    for each in PAGES:
        path = HERE / each
        path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")
