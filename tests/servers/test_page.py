"""The page in a real browser, on the real service: who gets in, what moves, what the keyboard reaches, what may run."""

import json
import re
import uuid
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from confluent_kafka import Producer
from playwright.sync_api import expect
from psycopg import sql

from lovelace_streams.settings import KafkaSettings
from tests.servers.browser import chromium, log_in, looking
from tests.servers.service import TOKEN, part, ready, report, running, until

expect.set_options(timeout=20_000)


pytestmark = pytest.mark.xdist_group("page")  # one service and one browser for all of the file


@pytest.fixture(scope="module")
def service(postgres_server):
    """One service for the tests of this file; each of them names jobs of its own."""
    name = f"page_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with running(postgres_server.dsn_of(name)) as client:
        client.dsn = postgres_server.dsn_of(name)
        yield ready(client)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def browser():
    with chromium() as it:
        yield it


@pytest.fixture
def page(browser, service):
    """A page that is logged in; nothing of the test may have asked elsewhere or been complained about."""
    with looking(browser, str(service.base_url)) as it:
        yield log_in(it)
        origin = urlsplit(str(service.base_url)).netloc
        assert {urlsplit(url).netloc for url in it.seen.urls} <= {origin}
        assert it.seen.complaints == []


@pytest.fixture
def job():
    return uuid.uuid4().hex


@pytest.fixture
def visitor(service):
    """A client without the token, which keeps cookies."""
    with httpx.Client(base_url=service.base_url, trust_env=False, timeout=20) as client:
        yield client


def opening(service, job, **fields):
    answer = service.post("/jobs", json={"job_id": job, "source": "discord", **fields})
    assert answer.status_code == 201, answer.text


def send(service, job, *ranges, **where):
    answer = service.post("/progress", json=report(*ranges, **{"topic_id": job, **where}))
    assert answer.status_code == 200, answer.text


def test_the_page_opens_with_the_token_only(browser, service):
    with looking(browser, str(service.base_url)) as page:
        log_in(page, "not the token")
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")

        page.goto("/ui/jobs")
        expect(page).to_have_url(re.compile("/ui/login$"))

        log_in(page)
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        [cookie] = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")

        page.get_by_role("button", name="Log out").click()
        page.goto("/ui/jobs")
        expect(page).to_have_url(re.compile("/ui/login$"))


def test_a_bar_moves_when_a_worker_reports(page, service, job):
    opening(service, job, total_items=200)
    row = page.get_by_role("listitem").filter(has_text=job)  # it came while the page was open
    expect(row).to_contain_text("200 to go")

    send(service, job, part(0, 98, job), part(99, 99, job, succeeded=0, skipped=1))
    expect(row).to_contain_text("99 succeeded")
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    expect(row.locator("rect.succeeded")).to_have_attribute("width", "49.5")

    send(service, job, part(100, 199, job))
    expect(row.locator(".status")).to_have_text("completed")
    expect(row).to_contain_text("took")
    expect(page.get_by_text(f"{job} is completed")).to_be_attached()


def test_a_job_is_closed_with_the_keyboard_alone(page, service, job):
    opening(service, job, total_items=10)
    page.goto("/ui/jobs")

    def tab_to(name):
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name")
            if focused == name:
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{name}: one can't see where one is"
                return
        raise AssertionError(f"{name} is not reached")

    tab_to("Skip to the content")
    page.keyboard.press("Enter")
    tab_to(job)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=job)).to_be_visible()
    tab_to("Close this job")
    page.keyboard.press("Enter")
    tab_to("reason")
    page.keyboard.type("sent twice by mistake")
    page.keyboard.press("Enter")

    expect(page.locator(".status").first).to_have_text("closed")
    expect(page.get_by_text("sent twice by mistake")).to_be_visible()
    assert service.get(f"/jobs/{job}").json()["closed_reason"] == "sent twice by mistake"


def test_names_are_text_whatever_they_say(page, service, job):
    evil = '<img src=x onerror="document.title=1"><script>document.title=1</script>"\'`{{7*7}}'
    opening(service, job, total_items=10, source=evil, workflow_id=evil, pipelines=[evil])
    send(service, job, part(0, 0, job), pipeline=evil)

    for path in ("/ui/jobs", f"/ui/jobs/{job}"):
        page.goto(path)
        expect(page.get_by_text(evil).first).to_be_visible()
        assert page.locator("main img, main script").count() == 0
        assert page.title().endswith("Lovelace Streams")


def failed(offset, reason, job, items=1):
    named = [{"first": 0, "last": items - 1, "reason": reason}]
    return part(offset, offset, job, succeeded=0, failed=items, failed_items=named)


def test_failures_are_shown_by_reason_and_one_by_one(page, service, job):
    opening(service, job, total_items=10)
    mended = part(7, 7, None, succeeded=0, resolves=[{"topic_id": job, "partition": 0, "offset": 2, "item": 0}])
    send(service, job, failed(0, "not_json", job, items=3), failed(1, "missing", job), failed(2, "missing", job))
    send(service, job, mended)
    page.goto(f"/ui/jobs/{job}")
    expect(page.get_by_role("row").filter(has_text="not_json")).to_contain_text("3")

    page.get_by_role("link", name="missing").click()
    expect(page.get_by_label("Job", exact=True)).to_have_value(job)
    rows = page.get_by_role("region", name="Dead letters").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text(f"{job} / 0 / 1")
    expect(rows.nth(1).locator(".status")).to_have_text("open")
    expect(rows.nth(2).locator(".status")).to_have_text("replayed")
    expect(page.get_by_text(f"lovelace dlq replay flow --reason=missing --job={job} --dry-run")).to_be_visible()

    page.get_by_label("State").select_option("open")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(2)


def standing(partition, **fields):
    return {"topic": "raw", "topic_id": "T", "partition": partition, "position": 90, **fields}


def test_partitions_show_where_workers_stand(page, service, job):
    where = {"pipeline": job, "reports": []}
    page.goto(f"/ui/partitions?pipeline={job}")
    expect(page.get_by_text("No worker has reported yet")).to_be_visible()

    waits = {"waiting_for": "schema 9: schema registry <b> (500)"}
    told = [standing(0, end=1590, pending=12, oldest_unsettled_ms=61_000, **waits), standing(1)]
    service.post("/progress", json={**where, "partitions": told}).raise_for_status()
    row = page.get_by_role("row").filter(has_text="1,590")  # the page asks again by itself
    expect(row.get_by_role("cell")).to_contain_text(["raw", "0", "90", "1,590", "1,500", "12", "1 min 1 s", "ago"])
    expect(row).to_contain_text("waits: schema 9: schema registry <b> (500)")
    service.post("/progress", json={**where, "partitions": [{**told[0], "waiting_for": None}]}).raise_for_status()
    expect(row).not_to_contain_text("waits")
    expect(page.get_by_role("region", name=f"Pipeline {job}")).to_contain_text("1,500 behind")

    with psycopg.connect(service.dsn, autocommit=True) as database:
        database.execute(
            "update lovelace.standings set heard_at = now() - interval '1 hour' where pipeline = %s", [job]
        )
    expect(page.get_by_text("2 not heard from")).to_be_visible()


@pytest.mark.parametrize("path", ["jobs", "failures", "partitions"])
def test_a_page_fits_a_phone(browser, service, job, path):
    opening(service, job, total_items=10, source="a-source-with-a-name-that-does-not-break" * 3)
    send(service, job, failed(0, "not_json", job), pipeline="a_pipeline_with_a_name_that_does_not_break" * 3)
    with looking(browser, str(service.base_url), viewport={"width": 360, "height": 740}) as page:
        log_in(page).goto(f"/ui/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_signal_nobody_takes_is_sent_again_by_hand(page, service, job):
    opening(service, job, total_items=0, workflow_id="gone")
    with psycopg.connect(service.dsn, autocommit=True) as database:
        database.execute("update lovelace.outbox set state = 'undeliverable' where job_id = %s", [job])

    page.goto(f"/ui/jobs/{job}")
    page.get_by_role("button", name="Send again").click()

    expect(page.get_by_text("pending", exact=True)).to_be_visible()
    assert service.get(f"/jobs/{job}").json()["signal"] == "pending"


def test_what_is_not_ours_does_not_run(page):
    page.evaluate(
        """() => {
            document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = 1"}));
            document.body.append(Object.assign(new Image(), {src: "https://example.invalid/x.png"}));
        }"""
    )

    until(lambda: page.evaluate("window.ran") is None and len(page.seen.complaints) >= 2)
    assert all("Content Security Policy" in complaint for complaint in page.seen.complaints)
    assert page.evaluate("window.ran") is None
    page.seen.forget()


def test_a_session_reads_the_api_and_changes_nothing_without_a_form_of_its_own(service, visitor, job):
    opening(service, job, total_items=10)
    assert visitor.get(f"/jobs/{job}").status_code == 401
    assert visitor.post("/ui/login", data={"token": TOKEN}).status_code == 303

    assert visitor.get(f"/jobs/{job}").json()["job_id"] == job
    with visitor.stream("GET", f"/jobs/{job}/events") as events:
        lines = events.iter_lines()
        event = dict(next(lines).split(": ", 1) for _ in range(3))
        assert (event["event"], event["id"], json.loads(event["data"])["job_id"]) == ("job", "1", job)
    assert visitor.post(f"/jobs/{job}/close", json={"reason": "by cookie"}).status_code == 401
    refused = visitor.post(f"/ui/jobs/{job}/close", data={"reason": "of another site"})
    assert (refused.status_code, "not made for your session" in refused.text) == (403, True)
    assert service.get(f"/jobs/{job}").json()["status"] == "open"


def test_what_the_page_streams_is_kept_by_nobody(visitor):
    visitor.post("/ui/login", data={"token": TOKEN})
    for path in ("/ui/events", "/events"):
        with visitor.stream("GET", path) as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            assert (events.headers["cache-control"], events.headers["x-accel-buffering"]) == ("no-store", "no")
            assert next(events.iter_lines()) == ": listening"


@pytest.mark.parametrize("cookie", ["", "x", "9999999999..nonce.mac", "....", "é"])
def test_a_cookie_that_is_not_ours_opens_nothing(service, visitor, cookie):
    headers = [("cookie", f"lovelace_session={cookie}".encode())]

    assert visitor.get("/jobs", headers=headers).status_code == 401
    assert visitor.get("/ui/jobs", headers=headers).headers["location"] == "/ui/login"


@pytest.mark.parametrize(
    "path", ["/ui/jobs/none-such", "/ui/none-such", "/ui/jobs?status=odd", "/ui/login", "/ui/static/x"]
)
def test_every_answer_of_the_page_says_what_may_run(visitor, path):
    visitor.post("/ui/login", data={"token": TOKEN})
    answer = visitor.get(f"/ui/{path}")

    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "text/html" in answer.headers["content-type"]


def test_nothing_is_shown_or_done_without_a_session(service, visitor, job):
    opening(service, job, total_items=10)
    shown = ["jobs", f"jobs/{job}", "failures", "samples", "partitions", "events"]
    done = [f"jobs/{job}/close", f"jobs/{job}/signal", "samples", "logout"]
    answers = [visitor.get(f"/ui/{path}") for path in shown]
    answers += [visitor.post(f"/ui/{path}", data={"reason": "none", "token": TOKEN}) for path in done]

    to = {(answer.status_code, answer.headers["location"].partition("?")[0]) for answer in answers}
    assert to == {(303, "/ui/login")}
    assert service.get(f"/jobs/{job}").json()["status"] == "open"


def test_a_login_leads_to_a_page_of_ours_only(visitor):
    for wanted, to in [("/jobs/a", "/ui/jobs/a"), ("//elsewhere", "/ui/jobs"), ("https://elsewhere", "/ui/jobs")]:
        answer = visitor.post("/ui/login", data={"token": TOKEN, "next": wanted})
        assert answer.headers["location"] == to


@pytest.fixture
def letters(brokers, make_topic, job):
    """A dead-letter topic: a member with a bad field, one that can't be decoded, and another job's."""
    topic = make_topic(partitions=1)
    user = {"id": "7", "username": "Ada", "email": "ada@example.invalid", "avatar": "portrait-of-ada"}
    member = {"guild_id": "<b>12</b>", "user": user, "nick": "Countess", "roles": "none", "joined_at": None}
    event = json.dumps({"op": 0, "t": "GUILD_MEMBER_ADD", "s": 1, "d": member})
    producer = Producer({"bootstrap.servers": brokers})
    for offset, (value, reason, of) in enumerate(
        [(event, "wrong_type", job), ("{not json: Ada}", "not_json", job), (event, "wrong_type", "another")]
    ):
        headers = {
            "lovelace-origin": f"T/discord.members.raw/0/{offset}",
            "lovelace-origin-timestamp": "1",
            "lovelace-reason": reason,
            "lovelace-failed-items": f"0-0:{reason}",
            "lovelace-job-id": of,
            "lovelace-detail": "expected int at $.d.guild_id",
        }
        producer.produce(topic, value.encode(), headers=headers)
    assert producer.flush(20) == 0
    return topic


def test_samples_are_for_their_own_token_and_show_nothing_personal(browser, database, brokers, letters, job):
    kafka = KafkaSettings(brokers, dead_letter_topic=letters)
    with running(database, samples_token="for samples", kafka=kafka) as service:
        opening(ready(service), job, total_items=10)
        send(service, job, failed(0, "wrong_type", job), failed(1, "not_json", job), pipeline="discord")
        with looking(browser, str(service.base_url)) as page:
            log_in(page).goto(f"/ui/failures?job={job}")
            page.get_by_role("link", name="Samples of wrong_type").click()
            page.get_by_label("Token for samples").fill(TOKEN)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_have_text("This is not the token.")
            page.get_by_label("Token for samples").fill("for samples")
            page.keyboard.press("Enter")

            sample = page.get_by_role("region", name="wrong_type at discord.members.raw/0/0, item 0")
            expect(sample).to_be_visible()
            names, values = (sample.locator(part).all_inner_texts() for part in ("dt", "dd"))
            assert dict(zip(names, values, strict=True)) == {
                "$.d.guild_id": '"<b>12</b>"',
                "$.d.user.id": '"7"',
                "$.d.user.username": "•••",
                "$.d.nick": "•••",
                "$.d.user.global_name": "absent",
                "$.d.roles": '"none"',
                "$.d.joined_at": "null",
                "$.d.user.avatar": "•••",
                "$.d.left_at": "absent",
            }
            expect(sample).to_contain_text("expected int at $.d.guild_id")
            expect(page.get_by_role("region", name="discord.members.raw/0/2")).to_have_count(0)

            page.goto(f"/ui/samples?pipeline=discord&job={job}")
            expect(page.get_by_role("region", name="not_json")).to_contain_text("cannot be decoded")
            everything = page.content().lower()
            # whole words: the page's own tokens are drawn from letters and digits
            assert not re.search(r"\b(ada|countess|portrait|example\.invalid)\b", everything)

            page.goto("/ui/samples?pipeline=os")
            expect(page.get_by_text("there is no dataflow of this pipeline's name")).to_be_visible()
            assert page.seen.complaints == [
                "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
            ]


def test_without_a_token_for_them_nobody_sees_samples(page, service, job):
    opening(service, job, total_items=10)
    send(service, job, failed(0, "not_json", job))

    page.goto(f"/ui/failures?job={job}")
    expect(page.get_by_role("link", name="not_json")).to_be_visible()
    expect(page.get_by_role("link", name="Samples")).to_have_count(0)
    page.goto("/ui/samples")
    expect(page.get_by_text("This service shows no samples")).to_be_visible()


def test_guessing_tokens_is_slowed_down(postgres_server, database):
    with running(database) as client:
        refused = [client.post("/ui/login", data={"token": f"guess {n}"}).status_code for n in range(6)]
        waiting = client.post("/ui/login", data={"token": TOKEN})

        assert refused == [401] * 5 + [429]
        assert (waiting.status_code, int(waiting.headers["retry-after"]) > 0) == (429, True)
