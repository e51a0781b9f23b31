"""Failed items on the page: counted by reason, listed one by one, with the commands that replay them."""

import asyncio
import shlex
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse

from lovelace_streams.api.models import JOB_ID, Cursor, Failure
from lovelace_streams.api.page.dependencies import CurrentSession, PageContext, TextQuery, set_session_cookie
from lovelace_streams.api.page.html import base, query
from lovelace_streams.api.page.samples import Samples, samples_of
from lovelace_streams.api.page.session import SAMPLES
from lovelace_streams.dead_letters.reader import Filter
from lovelace_streams.records import Reason

WITHIN_SECONDS = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "any": None}
SINCE_OPTIONS = {"hour": "-1h", "day": "-24h", "week": "-168h", "any": None}
"""The same, as `lovelace dlq` takes it for `--since`."""
STATES = {"open": True, "replayed": False, "any": None}
FAILURES_MAX = 50

OptionQuery = Annotated[str, Query(max_length=16)]
JobQuery = Annotated[str, Query(pattern=f"{JOB_ID}|^$")]


class FailureFilter(msgspec.Struct, frozen=True):
    """The filters of the form; "" accepts any value."""

    pipeline: str = ""
    job: str = ""
    reason: str = ""
    state: str = "any"
    within: str = "week"

    @property
    def arguments(self) -> dict[str, Any]:
        """As `Store.failures` takes them."""
        return {
            "pipeline": self.pipeline or None,
            "job_id": self.job or None,
            "reason": self.reason or None,
            "open": STATES[self.state],
            "seconds": WITHIN_SECONDS[self.within],
        }

    def query(self, **changed: str) -> dict[str, str]:
        """Make the query of a link to these filters, some of them changed."""
        values = msgspec.structs.asdict(self) | changed
        return {name: value for name, value in values.items() if value}

    def commands(self, pipeline: str) -> list[str]:
        """Write the commands that show these letters and what a replay of them would do."""
        options = {"--reason": self.reason, "--job": self.job, "--since": SINCE_OPTIONS[self.within]}
        given = [f"{name}={value}" for name, value in options.items() if value]
        return [
            shlex.join(["lovelace", "dlq", "show", pipeline, *given]),
            shlex.join(["lovelace", "dlq", "replay", pipeline, *given, "--dry-run"]),
        ]


def failure_filter(
    pipeline: TextQuery = None,
    job: JobQuery = "",
    reason: OptionQuery = "",
    state: OptionQuery = "any",
    within: OptionQuery = "week",
) -> FailureFilter:
    """Read the form's fields. Raises `RequestValidationError` for a value that the form does not offer."""
    offered = {"reason": {"", *Reason}, "state": STATES, "within": WITHIN_SECONDS}
    given = {"reason": reason, "state": state, "within": within}
    if faults := [
        _invalid(name, "not an option of the form") for name, value in given.items() if value not in offered[name]
    ]:
        raise RequestValidationError(faults)
    return FailureFilter(pipeline or "", job, reason, state, within)


WantedFailures = Annotated[FailureFilter, Depends(failure_filter)]


def _invalid(name: str, message: str) -> dict[str, Any]:
    return {"loc": ("query", name), "msg": message, "type": "value_error"}


def add_failures(app: FastAPI, page: PageContext) -> None:
    """Add `/failures` and `/samples`."""
    store = page.store
    router = APIRouter()

    @router.get("/failures")
    async def failures(
        request: Request,
        session: CurrentSession,
        wanted: WantedFailures,
        after: Annotated[str | None, Query(max_length=4096)] = None,
    ) -> Response:
        """Failed items by reason, and one by one in the order of pipeline and partition."""
        found = await store.failures(wanted.arguments, cursor_of(after), FAILURES_MAX)
        reasons = (await store.failure_reasons(wanted.arguments)).reasons
        return page.templates.render(
            request,
            "failures",
            session,
            wanted=wanted,
            choices={"reason": list(Reason), "state": list(STATES), "within": list(WITHIN_SECONDS)},
            reasons=reasons,
            most=max((each.failed for each in reasons), default=1),
            failures=found.failures,
            topics=await topic_names(page, found.failures),
            commands=[
                line for name in dict.fromkeys(each.pipeline for each in reasons) for line in wanted.commands(name)
            ],
            offered=page.offers_samples,
            after=after,
            next=found.next,
        )

    @router.get("/samples")
    async def samples(
        request: Request, session: CurrentSession, wanted: Annotated[FailureFilter, Depends(failure_filter)]
    ) -> Response:
        """Values of failed items, for a session of the samples' scope."""
        found = await find_samples(page, wanted) if session.sees_samples else None
        return page.templates.render(
            request, "samples", session, wanted=wanted, samples=found, offered=page.offers_samples, refused=None
        )

    @router.post("/samples")
    async def open_samples(request: Request, wanted: WantedFailures) -> Response:
        """Give a visitor with the token for samples a session of their scope, for an hour."""
        fields = await page.form(request)
        refused = page.refusal(request, page.sessions.is_samples_token(fields.get("token", "").strip()))
        if refused is not None:
            context = {"wanted": wanted, "samples": None, "offered": page.offers_samples, "refused": refused.text}
            return page.templates.render(request, "samples", page.session(request), refused.status, **context)
        entry = RedirectResponse(f"{base(request)}/samples{query(**wanted.query())}", 303)
        set_session_cookie(request, entry, page.sessions.issue(SAMPLES))
        return entry

    app.include_router(router)


async def find_samples(page: PageContext, wanted: FailureFilter) -> Samples:
    """Read samples, for one visitor at a time, because reading a topic takes a thread and a connection."""
    if page.settings.kafka is None:
        return Samples([], "The service has no broker to read dead letters from: set KAFKA_BROKERS.")
    filters = Filter(reason=wanted.reason or None, job=wanted.job or None)
    async with page.samples_lock:
        return await asyncio.to_thread(samples_of, page.settings.kafka, wanted.pipeline, filters)


async def topic_names(page: PageContext, failures: Iterable[Failure]) -> dict[str, str]:
    """Look up topic id → name, among the topics that workers reported."""
    rows = await page.store.query("topic_names", {"topic_ids": sorted({each.topic_id for each in failures})})
    return {row["topic_id"]: row["topic"] for row in rows}


def cursor_of(cursor: str | None) -> Cursor | None:
    """Read the key that the page before ended with. Raises `RequestValidationError`."""
    try:
        return None if cursor is None else Cursor.decode(cursor)
    except ValueError:
        raise RequestValidationError([_invalid("after", "not the `next` of a page")]) from None
