"""Failed items on the page: by reason, one by one, with the commands that work them off."""

import asyncio
import shlex
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse

from lovelace_streams.api.models import JOB_ID, Failure, Place
from lovelace_streams.api.page.html import base, query
from lovelace_streams.api.page.samples import Samples, samples_of
from lovelace_streams.api.page.session import SAMPLES
from lovelace_streams.api.page.visit import Page, Signed, TextQuery, keep
from lovelace_streams.dead_letters.reader import Filter
from lovelace_streams.records import Reason

WITHIN = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "any": None}
SINCE = {"hour": "-1h", "day": "-24h", "week": "-168h", "any": None}
"""The same as `lovelace dlq` takes it."""
STATES = {"open": True, "replayed": False, "any": None}
PAGE = 50

Choice = Annotated[str, Query(max_length=16)]
JobQuery = Annotated[str, Query(pattern=f"{JOB_ID}|^$")]


class Wanted(msgspec.Struct, frozen=True):
    """The filters of the form, "" where anything will do."""

    pipeline: str = ""
    job: str = ""
    reason: str = ""
    state: str = "any"
    within: str = "week"

    @property
    def asked(self) -> dict[str, Any]:
        """As the store takes it."""
        return {
            "pipeline": self.pipeline or None,
            "job_id": self.job or None,
            "reason": self.reason or None,
            "open": STATES[self.state],
            "seconds": WITHIN[self.within],
        }

    def query(self, **changed: str) -> dict[str, str]:
        """What a link to this, with something changed, says."""
        values = msgspec.structs.asdict(self) | changed
        return {name: value for name, value in values.items() if value}

    def commands(self, pipeline: str) -> list[str]:
        """What to type to look at these letters, and to see what a replay would do."""
        options = {"--reason": self.reason, "--job": self.job, "--since": SINCE[self.within]}
        given = [f"{name}={value}" for name, value in options.items() if value]
        return [
            shlex.join(["lovelace", "dlq", "show", pipeline, *given]),
            shlex.join(["lovelace", "dlq", "replay", pipeline, *given, "--dry-run"]),
        ]


def wanted_of(
    pipeline: TextQuery = None,
    job: JobQuery = "",
    reason: Choice = "",
    state: Choice = "any",
    within: Choice = "week",
) -> Wanted:
    """The form's fields. Raises `RequestValidationError` for a choice that is none."""
    if state not in STATES or within not in WITHIN or reason not in {"", *Reason}:
        raise RequestValidationError([])
    return Wanted(pipeline or "", job, reason, state, within)


def add_failures(app: FastAPI, page: Page) -> None:
    """`/failures`."""
    store = page.store
    router = APIRouter()

    @router.get("/failures")
    async def failures(
        request: Request,
        session: Signed,
        wanted: Annotated[Wanted, Depends(wanted_of)],
        after: Annotated[str | None, Query(max_length=4096)] = None,
    ) -> Response:
        """Failed items by reason, and one by one in the order of pipeline and place."""
        found = await store.failures(wanted.asked, place_of(after), PAGE)
        reasons = (await store.failure_reasons(wanted.asked)).reasons
        return page.pages.render(
            request,
            "failures",
            session,
            wanted=wanted,
            choices={"reason": list(Reason), "state": list(STATES), "within": list(WITHIN)},
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
    async def samples(request: Request, session: Signed, wanted: Annotated[Wanted, Depends(wanted_of)]) -> Response:
        """Values of failed items, for who may see them."""
        found = await looked_up(page, wanted) if session.sees_samples else None
        return page.pages.render(
            request, "samples", session, wanted=wanted, samples=found, offered=page.offers_samples, refused=None
        )

    @router.post("/samples")
    async def open_samples(request: Request, wanted: Annotated[Wanted, Depends(wanted_of)]) -> Response:
        """A session of the samples' own scope, for an hour, of whoever has their token."""
        fields = await page.form(request)
        refused = page.refusal(request, page.sessions.is_samples_token(fields.get("token", "").strip()))
        if refused is not None:
            context = {"wanted": wanted, "samples": None, "offered": page.offers_samples, "refused": refused.text}
            return page.pages.render(request, "samples", page.session(request), refused.status, **context)
        entry = RedirectResponse(f"{base(request)}/samples{query(**wanted.query())}", 303)
        keep(request, entry, page.sessions.issue(SAMPLES))
        return entry

    app.include_router(router)


async def looked_up(page: Page, wanted: Wanted) -> Samples:
    """One at a time: reading a topic takes a thread and a connection."""
    if page.settings.kafka is None:
        return Samples([], "The service knows no broker: set KAFKA_BROKERS.")
    filters = Filter(reason=wanted.reason or None, job=wanted.job or None)
    async with page.looking_up:
        return await asyncio.to_thread(samples_of, page.settings.kafka, wanted.pipeline, filters)


async def topic_names(page: Page, failures: Iterable[Failure]) -> dict[str, str]:
    """Topic id → name, as far as a worker has said it."""
    rows = await page.store.query("topic_names", {"topic_ids": sorted({each.topic_id for each in failures})})
    return {row["topic_id"]: row["topic"] for row in rows}


def place_of(cursor: str | None) -> Place | None:
    """Where the page before ended. Raises `RequestValidationError`."""
    try:
        return None if cursor is None else Place.from_cursor(cursor)
    except ValueError:
        raise RequestValidationError([]) from None
