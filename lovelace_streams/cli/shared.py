"""What several commands share: faults as one line, finding a flow, asking the progress service, tables and bars."""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault, DestinationFault
from lovelace_streams.settings import Settings
from lovelace_streams.submit import Source

out = Console()
err = Console(stderr=True)

if TYPE_CHECKING:
    from lovelace_streams.journey import Journey

F = TypeVar("F", bound=Callable[..., Any])
"""A command."""

Flow = Annotated[str, typer.Argument(help="A dataflow: NAME is dataflows.NAME; a dotted module works too.")]
EXIT_AWAY = 75
"""EX_TEMPFAIL of sysexits.h: trying again may help."""


def faults(command: F) -> F:
    """Faults of ours end a command with one line, not with a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except DeploymentFault as fault:
            err.print(str(fault), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_DEPLOYMENT) from None
        except DestinationFault as fault:
            err.print(str(fault), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_AWAY) from None

    return cast("F", wrapped)


def find_flow(name: str) -> Any:
    """The module of a dataflow: `dataflows.<name>`, or a dotted path."""
    path = name if "." in name else f"dataflows.{name}"
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name not in {path, path.partition(".")[0]}:
            raise
        raise DeploymentFault(f"no dataflow {name!r}: there are {', '.join(flow_names()) or 'none here'}") from None


def flow_names() -> list[str]:
    """The dataflows that are there."""
    try:
        package = importlib.import_module("dataflows")
    except ModuleNotFoundError:
        return []
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.endswith("_sample"))


def source_of(name: str) -> Source:
    """The `SOURCE` of a dataflow."""
    source = getattr(find_flow(name), "SOURCE", None)
    if not isinstance(source, Source):
        raise DeploymentFault(f"the dataflow {name!r} has no SOURCE: give it one, see CONTRIBUTING.md")
    return source


def journey(name: str) -> "Journey":
    """What a dataflow is made of: it is built, nothing of it runs."""
    from bytewax.dataflow import Dataflow

    from lovelace_streams.journey import journey_of

    made = getattr(find_flow(name), "flow", None)
    flow = made() if callable(made) and not isinstance(made, Dataflow) else made
    if not isinstance(flow, Dataflow):
        raise DeploymentFault(f"the dataflow {name!r} has no flow: a function `flow` that gives a Dataflow")
    return journey_of(flow)


def time_option(name: str, text: str | None) -> int | None:
    """A point in time as an option says it, in milliseconds since 1970. Raises `DeploymentFault`."""
    from lovelace_streams.instants import instant

    try:
        return None if text is None else instant(text)
    except ValueError as error:
        raise DeploymentFault(f"{name} {error}") from None


def show(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; tab-separated lines, without a head, where another program reads."""
    cells = ([str(cell if cell is not None else "") for cell in row] for row in rows)
    if not out.is_terminal:
        for row in cells:
            print("\t".join(row))
        return
    table = Table(*names)
    for row in cells:
        table.add_row(*map(escape, row))
    out.print(table)


def bar() -> Progress:
    """A progress bar on standard error: what a program reads stays on standard output."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )


def ask(path: str, query: dict[str, Any]) -> Any:
    """GET a path of the progress service; raises `DestinationFault` (it is away) or `DeploymentFault` (it refuses)."""
    import httpx

    settings = Settings().progress
    settings.check()
    assert settings.url is not None
    headers = {"authorization": f"Bearer {settings.token}"}
    try:
        answer = httpx.get(f"{settings.url.rstrip('/')}{path}", params=query, headers=headers, trust_env=False)
    except httpx.HTTPError as error:
        raise DestinationFault("08006", f"the progress service {settings.url}: {type(error).__name__}") from None
    if not answer.is_success:
        raise DeploymentFault(f"the progress service {settings.url} answers {answer.status_code} to {path}")
    return answer.json()
