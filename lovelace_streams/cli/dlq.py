"""List, show and replay dead letters: the messages that failed, each with its reason and origin."""

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from lovelace_streams.cli.shared import Flow, err, print_objects, print_table, progress_bar, report_faults, time_option
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import topology
from lovelace_streams.records import Reason as Reasons
from lovelace_streams.sources.kafka import KafkaSource

if TYPE_CHECKING:
    from lovelace_streams.dead_letters.reader import Filter, StoredDeadLetter
    from lovelace_streams.dead_letters.replay import FailedItemIndex, ReplayDecision
    from lovelace_streams.flows.topology import Topology

app = typer.Typer(no_args_is_help=True, help=__doc__)

Topic = Annotated[str | None, typer.Option(help="The dead-letter topic; by default DEAD_LETTER_TOPIC or GROUP.dlq.")]
Reason = Annotated[Reasons | None, typer.Option(help="Only letters of which an item has this reason.")]
Job = Annotated[str | None, typer.Option(help="Only letters of this job.")]
Step = Annotated[str | None, typer.Option(help="Only letters of this step, for example upsert.")]
OriginTopic = Annotated[str | None, typer.Option(help="Only letters of messages from this topic.")]
Partition = Annotated[int | None, typer.Option(min=0, help="Only letters of messages from this partition.")]
Offsets = Annotated[str | None, typer.Option(help="Only letters of messages from these offsets: 42, or 42-99.")]
Since = Annotated[str | None, typer.Option(help="Only letters from this time on: 2026-01-31T09:00:00Z, or -2h.")]
Until = Annotated[str | None, typer.Option(help="Only letters before this time.")]

EXIT_NONE = 1
"""Exit code: there are letters, and none matches the filters."""


@app.command("list")
@report_faults
def dlq_list(
    flow: Flow,
    reason: Reason = None,
    job: Job = None,
    step: Step = None,
    origin_topic: OriginTopic = None,
    partition: Partition = None,
    offsets: Offsets = None,
    since: Since = None,
    until: Until = None,
    topic: Topic = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Count the failed items by reason, step and job. Letters with the same origin count once."""
    from lovelace_streams.dead_letters.reader import summary

    wanted = _filter(reason, job, step, origin_topic, partition, offsets, since, until)
    letters, _ = _letters(topology(flow).source, topic)
    rows = summary((each for each in letters if wanted.takes(each)), reason)
    (print_objects if as_json else print_table)(("reason", "step", "job", "letters", "items"), rows)


@app.command("show")
@report_faults
def dlq_show(
    flow: Flow,
    reason: Reason = None,
    job: Job = None,
    step: Step = None,
    origin_topic: OriginTopic = None,
    partition: Partition = None,
    offsets: Offsets = None,
    since: Since = None,
    until: Until = None,
    topic: Topic = None,
    limit: Annotated[int, typer.Option(min=1, help="Print at most this many letters.")] = 20,
    value: Annotated[bool, typer.Option(help="Print the original value too. It may hold personal data.")] = False,
) -> None:
    """Print letters one by one, each as a JSON object: origin, reason, failed items; the value only with --value."""
    wanted = _filter(reason, job, step, origin_topic, partition, offsets, since, until)
    letters, _ = _letters(topology(flow).source, topic, with_values=value)
    for letter in islice((each for each in letters if wanted.takes(each)), limit):
        print(json.dumps(letter.shown(with_value=value)))


@app.command("replay")
@report_faults
def dlq_replay(
    flow: Flow,
    reason: Reason = None,
    job: Job = None,
    step: Step = None,
    origin_topic: OriginTopic = None,
    partition: Partition = None,
    offsets: Offsets = None,
    since: Since = None,
    until: Until = None,
    topic: Topic = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send at most this many letters, the newest first.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Send at most this many letters a second.")] = None,
    max_replays: Annotated[int, typer.Option(min=1, help="Leave out letters that failed after this many replays.")] = 3,
    again: Annotated[
        bool,
        typer.Option(help="Send letters that were sent before, resolved or void, too; nothing changes twice."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and what would stay and why; send nothing.")
    ] = False,
) -> None:
    """Send dead letters through their flow again, once each, the newest first. Mend their cause first.

    A table shows which letters are sent and which stay, by reason. The last line is a JSON object. The command may be
    interrupted and repeated.
    """
    from lovelace_streams.dead_letters.replay import ReplayStatus, counts_of, plan_replay

    wanted = _filter(reason, job, step, origin_topic, partition, offsets, since, until)
    built = topology(flow)
    source, replays = built.source, f"{built.source.pipeline}.replay"
    letters, name = _letters(source, topic)
    replays_sent, ledger = ({}, None) if again else _known(built, letters, wanted, replays)
    plan = plan_replay(
        letters,
        wanted,
        ledger=ledger,
        sent=replays_sent,
        topics=set(built.topics),
        max_replays=max_replays,
        limit=limit,
    )
    going = [decision for decision in plan if decision.status is ReplayStatus.REPLAY]
    print_table(("fate", "reason", "letters", "items"), counts_of(plan))
    if letters and all(decision.status is ReplayStatus.FILTERED for decision in plan):
        err.print(
            f"none of the {len(letters)} letters of {name} matches the options: leave one out",
            style="red",
            highlight=False,
        )
        raise typer.Exit(EXIT_NONE)
    sent = _send(source, name, replays, going, rate) if going and not dry_run else 0
    print(json.dumps(_totals(plan, going, sent) | {"pipeline": source.pipeline, "dry_run": dry_run}))


def _send(source: KafkaSource, name: str, replays: str, going: Sequence["ReplayDecision"], rate: float | None) -> int:
    """Send the letters with a bar. Answers how many were sent; exits with 130 if it is interrupted."""
    from lovelace_streams.dead_letters.replay import ReplaySender

    sender = ReplaySender(source.settings, name, replays, rate=rate)
    with progress_bar() as progress:
        task = progress.add_task(f"{name} → {replays}", total=len(going))
        try:
            return sender.run(going, lambda: progress.advance(task))
        except KeyboardInterrupt:
            err.print(f"interrupted: {sender.delivered} of {len(going)} letters were sent; repeat it for the rest")
            raise typer.Exit(130) from None


def _known(
    built: "Topology", letters: Sequence["StoredDeadLetter"], wanted: "Filter", replays: str
) -> tuple[dict[str, int], "FailedItemIndex | None"]:
    """Read which letters need no replay: those sent before, and what the progress service knows of failed items."""
    from lovelace_streams.dead_letters.replay import FailedItemIndex, replays_sent

    sent = replays_sent(built.source.settings, replays)
    if built.progress is None:
        err.print(
            "the flow has no progress service (it ends in `commit`, or PROGRESS_API_URL is not set), "
            "so void and resolved letters can't be told from the others",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
        return sent, None
    origins = [letter.source for letter in letters if wanted.takes(letter)]
    places = [(origin.topic_id, origin.partition, origin.offset) for origin in origins if origin is not None]
    return sent, FailedItemIndex.ask(built.progress, str(built.source.pipeline), places)


def _totals(plan: Sequence["ReplayDecision"], going: Sequence["ReplayDecision"], sent: int) -> dict[str, object]:
    stay: dict[str, int] = {}
    for decision in plan[len(going) :]:
        stay[decision.status] = stay.get(decision.status, 0) + 1
    return {"letters": len(going), "items": sum(decision.length for decision in going), "sent": sent, "left_out": stay}


def _letters(
    source: KafkaSource, topic: str | None, *, with_values: bool = False
) -> tuple[list["StoredDeadLetter"], str]:
    """Read the letters; give them with their topic. Before the flow's first start the topic may be missing."""
    from lovelace_streams.dead_letters.reader import read_letters
    from lovelace_streams.kafka.topic_reader import NoSuchTopic

    name = topic or source.settings.dead_letter_topic or f"{source.pipeline}.dlq"
    try:
        return list(read_letters(source.settings, name, with_values=with_values)), name
    except NoSuchTopic:
        if topic is not None:
            raise
        err.print(
            f"no dead letters: the flow makes the topic {name!r} when it first starts", highlight=False, soft_wrap=True
        )
        return [], name


def _filter(
    reason: Reasons | None,
    job: str | None,
    step: str | None,
    origin_topic: str | None,
    partition: int | None,
    offsets: str | None,
    since: str | None,
    until: str | None,
) -> "Filter":
    from lovelace_streams.dead_letters.reader import Filter

    return Filter(
        reason=reason,
        job=job,
        step=step,
        topic=origin_topic,
        partition=partition,
        offsets=_range(offsets),
        since=time_option("--since", since),
        until=time_option("--until", until),
    )


def _range(offsets: str | None) -> tuple[int, int] | None:
    if offsets is None:
        return None
    first, dash, last = offsets.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()) or int(last) < int(first):
        raise DeploymentFault(f"--offsets {offsets!r} is invalid: write 42, or 42-99")
    return int(first), int(last)
