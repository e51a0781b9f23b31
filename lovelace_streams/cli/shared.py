"""What several commands share: faults as one line, finding a flow, asking the progress service, tables and bars."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Annotated, Any, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault, DestinationFault
from lovelace_streams.flows.discovery import find_flow
from lovelace_streams.flows.spec import FlowSpec
from lovelace_streams.settings import Settings

out = Console()
err = Console(stderr=True)

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


def source_of(name: str) -> FlowSpec:
    """The `SOURCE` of a dataflow."""
    source = getattr(find_flow(name), "SOURCE", None)
    if not isinstance(source, FlowSpec):
        raise DeploymentFault(f"the dataflow {name!r} has no SOURCE: give it one, see CONTRIBUTING.md")
    return source


def time_option(name: str, text: str | None) -> int | None:
    """A point in time as an option says it, in milliseconds since 1970. Raises `DeploymentFault`."""
    from lovelace_streams.admin.times import instant

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
        raise DestinationFault(
            "08006", f"the progress service {settings.url} does not answer: {type(error).__name__}"
        ) from None
    if not answer.is_success:
        raise DeploymentFault(f"the progress service {settings.url} answers {answer.status_code} to {path}")
    return answer.json()
