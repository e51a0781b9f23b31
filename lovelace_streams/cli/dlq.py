"""The dead-letter topic: what failed, why, and where it came from; and sending it through the flow again."""

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from lovelace_streams.cli.shared import Flow, bar, err, faults, show, time_option
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.flows.discovery import topology
from lovelace_streams.records import Reason as Reasons
from lovelace_streams.sources.kafka import KafkaSource

if TYPE_CHECKING:
    from lovelace_streams.dead_letters.reader import Filter, StoredDeadLetter
    from lovelace_streams.dead_letters.replay import FailedItemIndex, ReplayDecision
    from lovelace_streams.flows.topology import Topology

app = typer.Typer(no_args_is_help=True, help=__doc__)

Topic = Annotated[str | None, typer.Option(help="Its name; default DEAD_LETTER_TOPIC or <consumer group>.dlq.")]
Reason = Annotated[Reasons | None, typer.Option(help="Only letters with this reason, of any of their items.")]
Job = Annotated[str | None, typer.Option(help="Only letters of this job.")]
Step = Annotated[str | None, typer.Option(help="Only letters of this step (decode, normalize, upsert).")]
OriginTopic = Annotated[str | None, typer.Option(help="Only letters of messages that were first read from this topic.")]
Partition = Annotated[int | None, typer.Option(min=0, help="Only letters of messages of this partition of it.")]
Offsets = Annotated[str | None, typer.Option(help="Only letters of these offsets of it: 42, or 42-99.")]
Since = Annotated[
    str | None, typer.Option(help="Only what was dead-lettered from this time on: 2026-01-31T09:00:00Z, or -2h.")
]
Until = Annotated[str | None, typer.Option(help="Only what was dead-lettered before this time.")]

EXIT_NONE = 1
"""Nothing matched what was asked for."""


@app.command("list")
@faults
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
) -> None:
    """Count the failed items by reason, step and job; letters that came twice count once (by origin)."""
    from lovelace_streams.dead_letters.reader import summary

    wanted = _filter(reason, job, step, origin_topic, partition, offsets, since, until)
    letters, _ = _letters(topology(flow).source, topic)
    rows = summary((each for each in letters if wanted.takes(each)), reason)
    show(("reason", "step", "job", "letters", "items"), rows)


@app.command("show")
@faults
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
    limit: Annotated[int, typer.Option(min=1)] = 20,
    value: Annotated[bool, typer.Option(help="Print the original value too: it may hold personal data.")] = False,
) -> None:
    """Show single letters, one JSON object a line: origin, reason, failed items; no value unless asked for."""
    wanted = _filter(reason, job, step, origin_topic, partition, offsets, since, until)
    letters, _ = _letters(topology(flow).source, topic, with_values=value)
    for letter in islice((each for each in letters if wanted.takes(each)), limit):
        print(json.dumps(letter.shown(with_value=value)))


@app.command("replay")
@faults
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
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many letters, the newest first.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="At most so many letters a second.")] = None,
    max_replays: Annotated[
        int, typer.Option(min=1, help="Leave out what was replayed so often and failed each time.")
    ] = 3,
    again: Annotated[
        bool, typer.Option(help="Send also what was replayed before, is resolved or void: it changes nothing twice.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and what would stay and why.")] = False,
) -> None:
    """Send dead letters through the flow again, after their cause is mended: once each, newest first.

    A table says what goes and what stays, by reason; the last line is a JSON object. May be interrupted and repeated.
    """
    from lovelace_streams.dead_letters.replay import ReplaySender, ReplayStatus, counts_of, plan_replay

    wanted = _filter(reason, job, step, origin_topic, partition, offsets, since, until)
    it = topology(flow)
    source, replays = it.source, f"{it.source.pipeline}.replay"
    letters, name = _letters(source, topic)
    replays_sent, ledger = ({}, None) if again else _known(it, letters, wanted, replays)
    decisions = plan_replay(
        letters,
        wanted,
        ledger=ledger,
        sent=replays_sent,
        topics={each for lane in it.lanes for each in lane.source.topics},
        max_replays=max_replays,
        limit=limit,
    )
    going = [decision for decision in decisions if decision.status is ReplayStatus.REPLAY]
    show(("fate", "reason", "letters", "items"), counts_of(decisions))
    matching = [decision for decision in decisions if decision.status is not ReplayStatus.FILTERED]
    if letters and not matching:
        err.print(
            f"none of the {len(letters)} letters of {name} is one of those asked for", style="red", highlight=False
        )
        raise typer.Exit(EXIT_NONE)
    sent = 0
    if going and not dry_run:
        sending = ReplaySender(source.settings, name, replays, rate=rate)
        with bar() as progress:
            task = progress.add_task(f"{name} → {replays}", total=len(going))
            try:
                sent = sending.run(going, lambda: progress.advance(task))
            except KeyboardInterrupt:
                err.print(
                    f"interrupted: {sending.delivered} of {len(going)} letters were sent; run it again for the rest"
                )
                raise typer.Exit(130) from None
    print(json.dumps(_told(decisions, going, sent) | {"pipeline": source.pipeline, "dry_run": dry_run}))


def _known(
    it: "Topology", letters: Sequence["StoredDeadLetter"], wanted: "Filter", replays: str
) -> tuple[dict[str, int], "FailedItemIndex | None"]:
    """What tells which letters need no replay: what was sent before, and the progress service where there is one."""
    from lovelace_streams.dead_letters.replay import FailedItemIndex, replays_sent

    sent = replays_sent(it.source.settings, replays)
    if it.progress is None:
        err.print(
            "the flow has no progress service (it ends in `commit`, or PROGRESS_API_URL is not set): "
            "nobody can tell which letters are void or resolved",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
        return sent, None
    origins = [letter.source for letter in letters if wanted.takes(letter)]
    places = [(origin.topic_id, origin.partition, origin.offset) for origin in origins if origin is not None]
    return sent, FailedItemIndex.ask(it.progress, str(it.source.pipeline), places)


def _told(decisions: Sequence["ReplayDecision"], going: Sequence["ReplayDecision"], sent: int) -> dict[str, object]:
    stay: dict[str, int] = {}
    for decision in decisions[len(going) :]:
        stay[decision.status] = stay.get(decision.status, 0) + 1
    return {"letters": len(going), "items": sum(decision.length for decision in going), "sent": sent, "left_out": stay}


def _letters(
    source: KafkaSource, topic: str | None, *, with_values: bool = False
) -> tuple[list["StoredDeadLetter"], str]:
    """The letters and their topic; before the flow's first start the topic is not there, and that is well."""
    from lovelace_streams.dead_letters.reader import read_letters
    from lovelace_streams.kafka.topic_reader import NoSuchTopic

    name = topic or source.settings.dead_letter_topic or f"{source.pipeline}.dlq"
    try:
        return list(read_letters(source.settings, name, with_values=with_values)), name
    except NoSuchTopic:
        if topic is not None:
            raise
        err.print(f"no dead letters: the topic {name!r} is made when the flow starts", highlight=False, soft_wrap=True)
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
        raise DeploymentFault(f"--offsets {offsets!r} are none: write 42, or 42-99")
    return int(first), int(last)
