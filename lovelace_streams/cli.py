"""The `lovelace` command: the local stack, jobs, dead letters, tables. `lovelace COMMAND --help` says more."""

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault, DestinationFault
from lovelace_streams.settings import Settings
from lovelace_streams.submit import Source

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
dlq = typer.Typer(no_args_is_help=True, help="The dead-letter topic: what failed, why, and where it came from.")
app.add_typer(dlq, name="dlq")
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


@app.command()
@faults
def up() -> None:
    """Start the local stack (Kafka, Postgres, Temporal's test server) and leave it running; writes .lovelace/env."""
    from lovelace_streams import local

    local.up()


@app.command()
@faults
def down() -> None:
    """Stop the local stack; data and logs stay."""
    from lovelace_streams import local

    local.down()


@app.command()
@faults
def status() -> None:
    """What of the local stack runs, where, and where its log is."""
    from lovelace_streams import local

    rows = ((row.part, row.state, row.address, row.pid, row.log) for row in local.status())
    _show(("part", "state", "address", "pid", "log"), rows)


@app.command()
@faults
def demo(
    members: Annotated[int, typer.Option(min=1, max=1_000_000, help="Items to submit, some of them bad.")] = 6000,
    keep_logs: Annotated[bool, typer.Option(help="Say where the logs are also when all went well.")] = False,
) -> None:
    """The main job on the embedded stack: submit, work, count, signal; the last line is a JSON object."""
    from lovelace_streams.demo import run

    raise typer.Exit(run(members, keep_logs=keep_logs))


@app.command()
@faults
def api() -> None:
    """Serve the progress API on API_HOST:API_PORT."""
    from lovelace_streams.api.__main__ import main as serve

    raise typer.Exit(serve())


@app.command()
@faults
def ddl(flow: Flow) -> None:
    """Print the CREATE TABLE of a flow's rows."""
    from lovelace_streams.ddl import create_table

    print(create_table(*source_of(flow).rows))


@app.command()
@faults
def submit(
    flow: Flow,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSON array, or one payload a line.")],
    job: Annotated[str, typer.Option(help="The job's id: [A-Za-z0-9._:-], at most 128.")],
    workflow: Annotated[str | None, typer.Option(help="The Temporal workflow that waits for the job.")] = None,
    guild: Annotated[str | None, typer.Option(help="What bare payloads belong to, where they do not say it.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the current attempt instead of beginning a new one.")
    ] = False,
) -> None:
    """Count the items of a file, open the job, and produce the raw messages with the job's headers.

    A submission that failed half-way is repeated as it is: a new attempt begins, counted from zero.
    """
    from lovelace_streams.submit import check_topic, open_job, produce, read_file

    settings, source = Settings(), source_of(flow)
    options = {} if guild is None else {"guild": guild}
    if guild is not None and "guild" not in signature(source.messages).parameters:
        raise DeploymentFault(f"payloads of {source.name!r} belong to no guild: leave --guild out")
    try:
        total = sum(message.items for message in read_file(file, source, **options))
    except ValueError as error:
        raise DeploymentFault(f"{file}: {error}") from None
    check_topic(settings.kafka, source.topic)
    opened = open_job(
        settings.progress,
        {
            "job_id": job,
            "source": source.name,
            "workflow_id": workflow,
            "total_items": total,
            "pipelines": [settings.consumer_group_id or source.name],
            "restart": not resume,
        },
    )
    with _bar() as bar:
        task = bar.add_task(f"{job} → {source.topic}", total=total)
        produce(
            settings.kafka,
            source.topic,
            read_file(file, source, **options),
            job=job,
            attempt=opened["attempt"],
            on_delivered=lambda items: bar.advance(task, items),
        )
    print(json.dumps({"job_id": job, "attempt": opened["attempt"], "total_items": total}))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )


@app.command()
@faults
def jobs(
    state: Annotated[str | None, typer.Option("--status", help="open, completed, stalled or closed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The jobs and their counts, newest first."""
    query: dict[str, Any] = {"limit": limit} | ({"status": state} if state else {})
    found = _ask("/jobs", query)
    rows = found["jobs"] if isinstance(found, dict) else found
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    names = ("job_id", "attempt", "source", "status", "succeeded", "failed", "skipped", "total_items")
    _show(names, ([row[name] for name in names] for row in rows))


def _show(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
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


def _ask(path: str, query: dict[str, Any]) -> Any:
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


def dead_letter_topic(settings: Settings, flow: str) -> str:
    """Where a flow's dead letters lie, as its workers say it: DEAD_LETTER_TOPIC, else `<pipeline>.dlq`."""
    return settings.dead_letter_topic or f"{settings.consumer_group_id or flow.rpartition('.')[2]}.dlq"


Topic = Annotated[str | None, typer.Option(help="Its name; default DEAD_LETTER_TOPIC or <consumer group>.dlq.")]
Reason = Annotated[str | None, typer.Option(help="Only letters with this reason.")]
Job = Annotated[str | None, typer.Option(help="Only letters of this job.")]


@dlq.command("list")
@faults
def dlq_list(flow: Flow, reason: Reason = None, job: Job = None, topic: Topic = None) -> None:
    """Count the failed items by reason, step and job; letters that came twice count once (by origin)."""
    from lovelace_streams.letters import read_letters, summary

    settings = Settings()
    letters = read_letters(settings, topic or dead_letter_topic(settings, flow))
    rows = summary((each for each in letters if each.matches(reason, job)), reason)
    _show(("reason", "step", "job", "letters", "items"), rows)


@dlq.command("show")
@faults
def dlq_show(
    flow: Flow,
    reason: Reason = None,
    job: Job = None,
    topic: Topic = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    value: Annotated[bool, typer.Option(help="Print the original value too: it may hold personal data.")] = False,
) -> None:
    """Show single letters, one JSON object a line: origin, reason, failed items; no value unless asked for."""
    from lovelace_streams.letters import read_letters

    settings = Settings()
    letters = read_letters(settings, topic or dead_letter_topic(settings, flow), with_values=value)
    for letter in islice((each for each in letters if each.matches(reason, job)), limit):
        print(json.dumps(letter.shown(with_value=value)))


@app.command()
@faults
def check(flow: Flow) -> None:
    """Connect to what a flow needs, compare its rows with the real table; writes nothing."""
    from lovelace_streams.submit import check_topic
    from lovelace_streams.writers.postgres import PostgresWriter

    source, settings = source_of(flow), Settings()
    writer = PostgresWriter(settings.postgres, *source.rows)
    try:
        writer.open()
    finally:
        writer.close()
    print(f"{writer.name}: the table is as {', '.join(row.__name__ for row in source.rows)} say")
    partitions = check_topic(settings.kafka, source.topic)
    print(f"{settings.kafka_brokers}: topic {source.topic} with {partitions} partitions")


@app.command()
@faults
def init(
    name: Annotated[str, typer.Argument(help="The new flow's name; dataflows/<name>.py is written.")],
    topic: Annotated[str, typer.Option(help="The topic it reads.")],
    table: Annotated[str, typer.Option(help="The table it writes; the row is taken from it where it exists.")],
) -> None:
    """Write a flow of your own for your own topic and table, without jobs: read it, run it, change it."""
    from lovelace_streams.init import write_flow

    path = write_flow(Settings(), name, topic, table, Path("dataflows"))
    print(f"wrote {path}; run it:  python -m bytewax.run dataflows.{name}")


def main() -> None:
    """Run the command line."""
    app()
