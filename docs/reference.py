"""References that are made of the code.

- The tables of docs/metrics.md: `python docs/reference.py` writes them anew, tests/unit/test_docs.py compares.
  Prometheus shows the same words as a metric's help.
- The page of the command line, made whenever the site is built (`hooks.py`).
"""

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import typer
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from lovelace_streams.api.gauges import GAUGES
from lovelace_streams.cli import app
from lovelace_streams.observability import metrics

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
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
