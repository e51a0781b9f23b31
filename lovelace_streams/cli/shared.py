"""What several commands need: faults as one line, a flow by its name, the progress service, tables and bars."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Annotated, Any, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault, DestinationFault, with_flow
from lovelace_streams.flows.discovery import find_flow
from lovelace_streams.flows.spec import FlowSpec
from lovelace_streams.observability.multiprocess import make_metrics_folder

out = Console()
err = Console(stderr=True)

F = TypeVar("F", bound=Callable[..., Any])
"""A command."""

Flow = Annotated[str, typer.Argument(help="The dataflow: `orders` is dataflows/orders.py; a dotted module works too.")]
EXIT_UNAVAILABLE = 75
"""EX_TEMPFAIL of sysexits.h: a server does not answer, and another try may help."""


def report_faults(command: F) -> F:
    """End a command that raises one of our faults with one line instead of a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            make_metrics_folder()
            return command(*args, **kwargs)
        except DeploymentFault as fault:
            err.print(with_flow(str(fault), kwargs.get("flow")), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_DEPLOYMENT) from None
        except DestinationFault as fault:
            err.print(with_flow(str(fault), kwargs.get("flow")), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_UNAVAILABLE) from None
        except Exception as error:
            if (rejected := _rejected_settings(error)) is None:
                raise
            err.print(str(rejected), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_DEPLOYMENT) from None

    return cast("F", wrapped)


def _rejected_settings(error: Exception) -> DeploymentFault | None:
    """Make a fault of settings that librdkafka rejects when a client is made; None for another exception."""
    from confluent_kafka import KafkaError, KafkaException

    from lovelace_streams.kafka.faults import refusal

    code = error.args[0].code() if isinstance(error, KafkaException) else None
    return refusal("", error) if code == KafkaError._INVALID_ARG else None  # type: ignore[arg-type] # noqa: SLF001


def source_of(name: str) -> FlowSpec:
    """Find the `SOURCE` of a dataflow. Raises `DeploymentFault` for a flow without one."""
    source = getattr(find_flow(name), "SOURCE", None)
    if not isinstance(source, FlowSpec):
        raise DeploymentFault(
            f"the dataflow {name!r} has no SOURCE, so nothing can be submitted to it: add SOURCE = Source(…) to its "
            "module, as `lovelace init` does"
        )
    return source


def time_option(name: str, text: str | None) -> int | None:
    """Read the time that an option gives, in milliseconds since 1970. Raises `DeploymentFault`."""
    from lovelace_streams.admin.times import instant

    try:
        return None if text is None else instant(text)
    except ValueError as error:
        raise DeploymentFault(f"{name} {error}") from None


def print_table(names: Sequence[str], rows: Iterable[Sequence[Any]], *, head: bool = True) -> None:
    """Print a table to a terminal, and tab-separated lines to another program.

    That gets rows only on standard output. Their head goes to standard error, where a person sees it: programs that
    read lines are not to find one that is no row. Those that want names take `--json`.
    """
    cells = ([str(cell if cell is not None else "") for cell in row] for row in rows)
    if not out.is_terminal:
        if head:
            print("\t".join(names), file=sys.stderr, flush=True)
        for row in cells:
            print("\t".join(row))
        return
    table = Table(*names)
    for row in cells:
        table.add_row(*map(escape, row))
    out.print(table)


def print_objects(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print each row as a JSON object on a line of its own."""
    for row in rows:
        print(json.dumps(dict(zip(names, row, strict=True))))


def progress_bar() -> Progress:
    """Make a progress bar on standard error; standard output is for what other programs read."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )
