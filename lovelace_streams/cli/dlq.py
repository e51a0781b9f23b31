"""The dead-letter topic: what failed, why, and where it came from."""

import json
from itertools import islice
from typing import Annotated

import typer

from lovelace_streams.cli.shared import Flow, dead_letter_topic, faults, show
from lovelace_streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help=__doc__)

Topic = Annotated[str | None, typer.Option(help="Its name; default DEAD_LETTER_TOPIC or <consumer group>.dlq.")]
Reason = Annotated[str | None, typer.Option(help="Only letters with this reason.")]
Job = Annotated[str | None, typer.Option(help="Only letters of this job.")]


@app.command("list")
@faults
def dlq_list(flow: Flow, reason: Reason = None, job: Job = None, topic: Topic = None) -> None:
    """Count the failed items by reason, step and job; letters that came twice count once (by origin)."""
    from lovelace_streams.letters import read_letters, summary

    settings = Settings()
    letters = read_letters(settings, topic or dead_letter_topic(settings, flow))
    rows = summary((each for each in letters if each.matches(reason, job)), reason)
    show(("reason", "step", "job", "letters", "items"), rows)


@app.command("show")
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
