"""Submit a job, and list jobs."""

import json
import re
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import msgspec
import typer

from lovelace_streams.cli.shared import Flow, err, print_table, progress_bar, report_faults, source_of
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import topology
from lovelace_streams.flows.spec import FlowSpec
from lovelace_streams.settings import Settings

app = typer.Typer()

JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
Status = Literal["open", "completed", "stalled", "closed"]


@app.command()
@report_faults
def submit(
    flow: Flow,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            allow_dash=True,
            help="A JSON array or one payload per line, also as gzip; - reads standard input.",
        ),
    ],
    job: Annotated[str, typer.Option(help="The job's id: at most 128 of A-Z a-z 0-9 . _ : -")],
    workflow: Annotated[
        str | None, typer.Option(help="The Temporal workflow to signal when the job is complete.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Pass an option to the flow's `messages`; repeat it for others."),
    ] = None,
    # The library names no product. This option did, and goes on working for one release.
    guild: Annotated[str | None, typer.Option(hidden=True, help="Deprecated: --option guild=VALUE.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the current attempt instead of starting a new one.")] = False,
) -> None:
    """Send the payloads of a file to a flow's topic, as one job: count the items, open the job, produce the messages.

    If it fails half-way, repeat the same command: it starts a new attempt, which counts from zero.
    """
    from lovelace_streams.admin.payloads import PayloadsError, open_payloads
    from lovelace_streams.admin.submit import check_options

    settings, source = Settings(), source_of(flow)
    _check_job(flow, source, job)
    options = _options(option or [], guild)
    check_options(source, options)
    try:
        with open_payloads(file) as payloads:
            total, told = _count(source, options, payloads)
            if told:
                err.print(f"{file}: {told}", style="yellow", markup=False, soft_wrap=True)
            wanted = {
                "job_id": job,
                "source": source.name,
                "workflow_id": workflow,
                "total_items": total,
                "pipelines": [settings.consumer_group_id or source.name],
                "restart": not resume,
            }
            attempt = _send(settings, source, options, payloads, wanted)
    except PayloadsError as error:
        raise DeploymentFault(f"{file}: {error}") from None
    except OSError as error:
        raise DeploymentFault(f"{file} can't be read: {error.strerror}") from None
    print(json.dumps({"job_id": job, "attempt": attempt, "total_items": total}))


def _count(source: FlowSpec, options: dict[str, str], file: IO[bytes]) -> tuple[int, str]:
    """Count the items of a file; give what a person should know of it, too."""
    from lovelace_streams.admin.submit import Told, read_file

    told = Told()
    return sum(message.items for message in read_file(file, source, options, told)), str(told)


def _send(settings: Settings, source: FlowSpec, options: dict[str, str], file: IO[bytes], job: dict[str, Any]) -> int:
    """Open the job, send its messages and give its attempt."""
    from lovelace_streams.admin.payloads import PayloadsError
    from lovelace_streams.admin.submit import check_topic, produce, read_file
    from lovelace_streams.reporting.client import open_job

    check_topic(settings.kafka, source.topic)
    attempt = int(open_job(settings.progress, job)["attempt"])
    total = job["total_items"]
    with progress_bar() as progress:
        task = progress.add_task(f"{job['job_id']} → {source.topic}", total=total)
        sent = produce(
            settings.kafka,
            source.topic,
            read_file(file, source, options),
            job=job["job_id"],
            attempt=attempt,
            on_delivered=lambda items: progress.advance(task, items),
        )
    if sent != total:
        raise PayloadsError(f"it had {total} items when they were counted and {sent} when sent: submit it again")
    return attempt


def _check_job(flow: str, source: FlowSpec, job: str) -> None:
    """Refuse a job that the service would not accept, or whose flow would never complete it."""
    if not JOB_ID.fullmatch(job):
        raise DeploymentFault(f"--job {job!r} is invalid: use 1 to 128 of the characters A-Z a-z 0-9 . _ : -")
    if not topology(flow).counts:
        raise DeploymentFault(
            f"the flow {source.name!r} ends in `commit`, so its jobs would never complete: "
            f"end it in `ls.progress(…, source, settings.progress, …)` instead"
        )


def _options(given: list[str], guild: str | None) -> dict[str, str]:
    """Split each NAME=VALUE at its first `=`. Raises `DeploymentFault` for another form and for a name given twice."""
    if guild is not None:
        err.print(f"--guild is deprecated: write --option guild={guild}", style="yellow", markup=False, soft_wrap=True)
        given = [*given, f"guild={guild}"]
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise DeploymentFault(f"--option {text!r} is invalid: write NAME=VALUE, as in --option shop=7")
        if name in options:
            raise DeploymentFault(f"--option {name}=… is given twice: give it once")
        options[name] = value
    return options


class JobList(msgspec.Struct):
    """A page of jobs; a list was the answer of earlier services."""

    jobs: list[dict[str, Any]]


@app.command()
@report_faults
def jobs(
    status: Annotated[Status | None, typer.Option(help="Only jobs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="List at most this many jobs.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List the jobs with their counts, newest first."""
    from lovelace_streams.reporting.client import ask_service

    query: dict[str, Any] = {"limit": limit} | ({"status": status} if status else {})
    found = ask_service(Settings().progress, "/jobs", query, JobList | list[dict[str, Any]])
    rows = found.jobs if isinstance(found, JobList) else found
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    names = ("job_id", "attempt", "source", "status", "succeeded", "failed", "skipped", "total_items")
    print_table(names, ([row.get(name) for name in names] for row in rows))
