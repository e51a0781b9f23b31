"""The progress service on a real port and a real database: what each endpoint answers, and to whom."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from psycopg import sql

from lovelace_streams.api import ApiSettings
from lovelace_streams.api.__main__ import main
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local.processes import free_port
from lovelace_streams.records import Envelope, Outcome, Record, Settled
from lovelace_streams.reporting.reporter import Reporter
from lovelace_streams.settings import KafkaSettings, ProgressSettings, Settings
from lovelace_streams.sources.kafka import KafkaSource
from tests.servers.service import TOKEN, part, ready, report, running, until

pytestmark = pytest.mark.xdist_group("api")  # one service for all of the file


@pytest.fixture(scope="module")
def service(postgres_server):
    """One service for the tests of this file; each of them names jobs and topics of its own."""
    name = f"api_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with running(postgres_server.dsn_of(name), heartbeat=0.2) as client:
        client.dsn = postgres_server.dsn_of(name)
        yield ready(client)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def job():
    """A job id, and the topic id of its messages, of the test's own."""
    return uuid.uuid4().hex


def opening(client, job, key=None, **fields):
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/jobs", json={"job_id": job, "source": "discord", **fields}, headers=headers)


def send(client, job, *ranges, **where):
    """Report ranges of the job's own topic; its state, if it is open."""
    answer = client.post("/progress", json=report(*ranges, **{"topic_id": job, **where}))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_job_from_opening_to_completion(service, job):
    opened = opening(service, job, total_items=5)
    assert (opened.status_code, opened.json()["status"], opened.json()["version"]) == (201, "open", 1)
    failed = {"succeeded": 0, "failed": 1, "failed_items": [{"first": 0, "last": 0, "reason": "check"}]}

    [state] = send(service, job, part(0, 2, job), part(3, 3, job, **failed))["jobs"]
    assert (state["succeeded"], state["failed"], state["status"], state["completed_at"]) == (3, 1, "open", None)

    answer = send(service, job, part(0, 2, job), part(4, 4, job, succeeded=0, skipped=1))
    assert answer["known"] == 3
    assert answer["jobs"][0].items() <= service.get(f"/jobs/{job}").json().items()
    assert (answer["jobs"][0]["skipped"], answer["jobs"][0]["status"]) == (1, "completed")
    assert set(answer["jobs"][0]) == {
        "job_id", "attempt", "version", "source", "workflow_id", "total_items", "succeeded", "failed", "skipped",
        "status", "created_at", "completed_at", "signalled_at",
    }  # fmt: skip
    assert service.get(f"/progress/flow/{job}").json() == {"partitions": {"0": [[0, 4]]}}


def test_progress_before_the_job_is_opened_is_kept(service, job):
    assert send(service, job, part(0, 9, job)) == {"jobs": [], "known": 0, "overlaps": []}
    assert service.get(f"/jobs/{job}").status_code == 404

    opened = opening(service, job, total_items=10).json()
    assert (opened["succeeded"], opened["status"]) == (10, "completed")


def test_opened_twice_a_total_that_changes_and_a_contradiction(service, job):
    assert opening(service, job).status_code == 201
    assert opening(service, job, total_items=7).json()["total_items"] == 7
    assert opening(service, job, total_items=2).status_code == 200
    assert opening(service, job).json()["total_items"] == 2
    assert opening(service, job, pipelines=["other"]).status_code == 409

    send(service, job, part(0, 1, job))
    assert opening(service, job, total_items=2).status_code == 200
    refused = opening(service, job, total_items=3)
    assert (refused.status_code, "total_items" in refused.json()["detail"]) == (409, True)


def test_a_total_of_zero_completes_at_once(service, job):
    assert opening(service, job, total_items=0).json()["status"] == "completed"


def test_a_restart_opens_one_attempt_a_key(service, job):
    opening(service, job, total_items=2)
    send(service, job, part(0, 1, job))
    again = opening(service, job, key="second", total_items=2, restart=True)
    assert (again.status_code, again.json()["attempt"], again.json()["succeeded"]) == (201, 2, 0)
    repeated = opening(service, job, key="second", total_items=2, restart=True)
    assert (repeated.status_code, repeated.json()["attempt"]) == (200, 2)

    [state] = send(service, job, part(2, 3, job))["jobs"]
    assert (state["succeeded"], state["status"]) == (0, "open"), "a late range of the first attempt"
    [state] = send(service, job, part(4, 5, job, attempt=2))["jobs"]
    assert (state["succeeded"], state["status"]) == (2, "completed")
    assert opening(service, job, key="third", restart=True).json()["attempt"] == 3
    assert opening(service, job, key="second", restart=True).status_code == 409


def test_pipelines_that_a_job_does_not_name_count_nothing(service, job):
    opening(service, job, total_items=3, pipelines=["flow"])
    [state] = send(service, job, part(0, 2, job), pipeline="shadow")["jobs"]
    assert state["succeeded"] == 0
    [state] = send(service, job, part(0, 2, job))["jobs"]
    assert (state["succeeded"], state["status"]) == (3, "completed")


def test_a_replayed_letter_moves_one_count_once(service, job):
    opening(service, job, total_items=1_000)
    items = [{"first": 0, "last": 998, "reason": "not_json"}, {"first": 999, "last": 999, "reason": "check"}]
    send(service, job, part(7, 7, job, succeeded=0, failed=1_000, failed_items=items))
    origin = {"topic_id": job, "partition": 0, "offset": 7}
    for offset in (0, 1):
        resolves = [{**origin, "item": item} for item in (998, 999, 1_000)]
        replayed = part(offset, offset, None, succeeded=0, resolves=resolves)
        [state] = send(service, job, replayed, topic_id=f"{job}.replay")["jobs"]
        assert (state["succeeded"], state["failed"], state["status"]) == (2, 998, "completed")


def test_failed_items_by_place_by_reason_and_of_messages(service, job):
    """What the ledger knows of failures: listed in pages, counted by reason, and asked for by origin."""
    opening(service, job, total_items=100)
    chunk = [{"first": 0, "last": 4, "reason": "check"}, {"first": 7, "last": 7, "reason": "null"}]
    send(service, job, part(3, 3, job, succeeded=2, failed=6, failed_items=chunk), pipeline=job)
    one = [{"first": 0, "last": 0, "reason": "check"}]
    send(service, job, part(9, 9, job, succeeded=0, failed=1, failed_items=one), partition=1, pipeline=job)
    resolves = [{"topic_id": job, "partition": 0, "offset": 3, "item": item} for item in (1, 2, 7)]
    send(service, job, part(0, 0, None, succeeded=0, resolves=resolves), topic_id=f"{job}.replay", pipeline=job)

    def listed(**query):
        found, after = [], {}
        while True:
            answer = service.get("/failures", params={"pipeline": job, "limit": 1, **query, **after})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [(f["partition"], f["offset"], f["first"], f["last"], f["reason"]) for f in page["failures"]]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}

    everything = [(0, 3, 0, 4, "check"), (0, 3, 7, 7, "null"), (1, 9, 0, 0, "check")]
    assert listed() == listed(job_id=job, attempt=1) == everything
    assert listed(reason="null") == listed(open=False) == everything[1:2]
    assert listed(open=True) == [everything[0], everything[2]]
    assert listed(attempt=2) == listed(job_id="another") == []
    assert service.get("/failures", params={"after": "no page gave this"}).status_code == 422
    assert service.get("/failures/reasons", params={"pipeline": job}).json() == {
        "reasons": [
            {"pipeline": job, "reason": "check", "failed": 6, "resolved": 2},
            {"pipeline": job, "reason": "null", "failed": 1, "resolved": 1},
        ]
    }

    origins = [{"topic_id": job, "partition": 0, "offset": offset} for offset in (3, 4, 3)]
    found = service.post("/failures/find", json={"pipeline": job, "origins": origins}).json()["failures"]
    assert [(f["first"], f["last"], f["resolved"]) for f in found] == [(0, 4, [[1, 2]]), (7, 7, [[7, 7]])]
    assert service.post("/failures/find", json={"pipeline": "flow", "origins": origins}).json() == {"failures": []}
    assert service.post("/failures/find", json={"pipeline": job, "origins": origins * 2000}).status_code == 422


def test_reports_that_name_the_same_jobs_at_once(service, job):
    """Partitions and jobs in every order: nobody waits for each other for ever, nothing is lost or counted twice."""
    jobs = [f"{job}.{n}" for n in range(6)]
    for each in jobs:
        opening(service, each, total_items=200)
    start = threading.Barrier(8)

    def reporter(n):
        start.wait(10)
        for step in range(20):
            named = jobs[n % 6 :] + jobs[: n % 6]
            order = sorted(range(4), reverse=n % 2 == 1)
            parts = [
                {"topic": "raw", "topic_id": job, "partition": p,
                 "ranges": [part(step * 6 + at, step * 6 + at, each) for at, each in enumerate(sorted(named))]}
                for p in order
            ]  # fmt: skip
            answer = service.post("/progress", json={"pipeline": "flow", "reports": parts})
            assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(reporter, range(8)))
    states = [service.get(f"/jobs/{each}").json() for each in jobs]
    assert [(state["succeeded"], state["status"]) for state in states] == [(80, "open")] * 6


def test_inputs_that_do_not_stream(service, job):
    assert service.post(f"/jobs/{job}/input-received", json={}).status_code == 404
    opening(service, job)
    for _ in range(2):
        state = service.post(f"/jobs/{job}/input-received", json={"input_id": "form"}).json()
        assert (state["succeeded"], state["total_items"], state["status"]) == (1, 1, "completed")


def test_closing_by_hand(service, job):
    assert service.post(f"/jobs/{job}/close", json={"reason": "x"}).status_code == 404
    opening(service, job, total_items=9)
    assert service.post(f"/jobs/{job}/close", json={"reason": "ten never came"}).json()["status"] == "closed"
    assert service.get(f"/jobs/{job}").json()["closed_reason"] == "ten never came"
    assert service.post(f"/jobs/{job}/signal").status_code == 409, "nobody waits for it"
    assert service.post(f"/jobs/{job}/signal").json()["detail"] == "the job has no signal to send"


def test_pages_of_jobs(service, job):
    for n in range(5):
        assert service.post("/jobs", json={"job_id": f"{job}.{n}", "source": job}).status_code == 201
    opening(service, f"{job}.other")
    found, before = [], {}
    while True:
        page = service.get("/jobs", params={"source": job, "limit": 2, "status": "open", **before}).json()
        found += [each["job_id"] for each in page["jobs"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert found == [f"{job}.{n}" for n in (4, 3, 2, 1, 0)]
    assert service.get("/jobs", params={"source": job, "status": "completed"}).json() == {"jobs": [], "next": None}


def events_of(response):
    """The states of a stream of server-sent events."""
    return (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line.startswith("data: "))


def test_a_job_s_events_end_with_the_job(service, job):
    assert service.get(f"/jobs/{job}/events").status_code == 404
    opening(service, job, total_items=3)
    with service.stream("GET", f"/jobs/{job}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_of(response)
        assert next(events)["succeeded"] == 0
        send(service, job, part(0, 1, job))
        assert next(events)["succeeded"] == 2
        send(service, job, part(2, 2, job))
        assert next(events)["status"] == "completed"
        assert list(events) == []


def test_an_event_is_one_line_whatever_a_source_is_called(service, job):
    source = "one\u2028two\u0085three"
    opening(service, job, source=source, total_items=0)
    with service.stream("GET", f"/jobs/{job}/events") as response:
        text = b"".join(response.iter_raw()).decode()
    [name, data, number, *rest] = text.split("\n")
    assert (name, number, rest) == ("event: job", "id: 2", ["", ""])
    assert json.loads(data.removeprefix("data: "))["source"] == source


def test_a_stream_that_a_client_leaves_is_given_up(service, job):
    opening(service, job, total_items=3)
    for path in (f"/jobs/{job}/events", "/events"):
        with service.stream("GET", path) as response:
            lines = response.iter_lines()
            next(lines)
            assert len(service.events._subscriptions) == 1
        until(lambda: not service.events._subscriptions)


def test_all_events_and_heartbeats(service, job):
    with service.stream("GET", "/events") as response:
        lines = response.iter_lines()
        assert next(lines) == ": listening"
        assert next(line for line in lines if line.startswith(": still")), "a silent stream says that it lives"
        opening(service, job, total_items=0)
        states = [next(line for line in lines if job in line)]
        assert json.loads(states[0].removeprefix("data: "))["status"] == "completed"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/progress"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/events"),
    ],
)
def test_without_the_token(service, method, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": "é"}):
        encoded = {name: value.encode() for name, value in headers.items()}
        answer = httpx.request(method, f"{service.base_url}{path}", headers=encoded, content=b"not json")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.get(f"{service.base_url}/healthz").status_code == 200
    assert httpx.get(f"{service.base_url}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("field", "ranges"),
    [
        ("ranges.0.first", [{"first": -1, "last": 0}]),
        ("ranges.0.last", [{"first": 0, "last": 2**63 - 1}]),
        ("ranges.0", [{"first": 5, "last": 4}]),
        ("ranges.0", [{"first": 0, "last": 1_000_000, "succeeded": 1}]),
        ("ranges.0.succeeded", [{"first": 0, "last": 0, "succeeded": 100_001}]),
        ("ranges.0.attempt", [{"first": 0, "last": 0, "attempt": 0}]),
        ("ranges.0.job_id", [{"first": 0, "last": 0, "job_id": "a b"}]),
        ("ranges.0.job_id", [{"first": 0, "last": 0, "job_id": "x\n"}]),
        ("ranges.0.first", [{"first": "secret", "last": 0}]),
        ("ranges.0.first", [{"first": True, "last": 1}]),
        ("ranges.0", [{"first": 0, "last": 0, "failed": 1}]),
        ("ranges.0", [{"first": 0, "last": 1, "failed": 1,
                       "failed_items": [{"first": 0, "last": 0, "reason": "check"}]}]),
        ("ranges.0", [{"first": 0, "last": 0, "failed_items": [{"first": 0, "last": 0, "reason": "check"}]}]),
        ("ranges.0.failed_items.0.reason", [{"first": 0, "last": 0, "failed": 1,
                                             "failed_items": [{"first": 0, "last": 0, "reason": "secret"}]}]),
        ("ranges.0", [{"first": 0, "last": 0, "failed": 2, "failed_items": [
            {"first": 0, "last": 0, "reason": "check"}, {"first": 0, "last": 0, "reason": "null"}]}]),
        ("ranges.0", [{"job_id": "a", "first": 0, "last": 0, "succeeded": 1,
                       "resolves": [{"topic_id": "T", "partition": 0, "offset": 1, "item": 0}]}]),
        ("ranges.0.secret", [{"first": 0, "last": 0, "secret": 1}]),
        ("", [{"first": 0, "last": 3}, {"first": 3, "last": 4}]),
        ("", [{"first": 5, "last": 6}, {"first": 0, "last": 1}]),
    ],
)  # fmt: skip
def test_a_range_that_is_wrong_is_named_without_its_value(service, job, field, ranges):
    answer = service.post("/progress", json=report(*ranges, topic_id=job))
    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert ".".join(map(str, fault["loc"])) == ".".join(filter(None, ("body.reports.0", field)))
    assert set(fault) == {"loc", "msg", "type"}
    assert "secret" not in fault["msg"]
    assert service.get(f"/progress/flow/{job}").json() == {"partitions": {}}, "all of it is refused"


def sums(job, spans, *said, **where):
    """A request with one report in sums."""
    at = {"topic": "raw", "topic_id": job, "partition": 0, **where}
    pieces = [{"first": first, "last": last} for first, last in spans]
    return {"pipeline": "flow", "reports": [{**at, "spans": pieces, "sums": list(said)}]}


def test_sums_count_as_their_ranges_would_and_only_where_nothing_is_covered(service, job):
    opening(service, job, total_items=12)
    failed = [
        {"offset": 4, "first": 0, "last": 1, "reason": "check"},
        {"offset": 6, "first": 3, "last": 3, "reason": "null"},
    ]
    said = {"job_id": job, "succeeded": 4, "failed": 3, "failed_items": failed}
    answer = service.post(
        "/progress", json=sums(job, [(0, 4), (6, 7)], said, {"job_id": f"{job}-b", "skipped": 1})
    ).json()
    [state] = answer.pop("jobs")
    assert answer == {"known": 0, "overlaps": []}
    assert (state["succeeded"], state["failed"], state["skipped"]) == (4, 3, 0)
    found = service.get("/failures", params={"job_id": job}).json()["failures"]
    assert [(each["offset"], each["first"], each["last"], each["reason"]) for each in found] == [
        (4, 0, 1, "check"),
        (6, 3, 3, "null"),
    ]

    again = sums(job, [(5, 5), (7, 9)], {"job_id": job, "succeeded": 4})
    again["reports"] += sums(job, [(0, 4)], {"job_id": job, "succeeded": 5}, partition=1)["reports"]
    answer = service.post("/progress", json=again).json()
    assert answer["overlaps"] == [{"topic_id": job, "partition": 0}], "nothing of that one, all of the other"
    assert service.get(f"/progress/flow/{job}").json() == {"partitions": {"0": [[0, 4], [6, 7]], "1": [[0, 4]]}}
    assert (answer["jobs"][0]["succeeded"], answer["jobs"][0]["status"]) == (9, "completed")


class Reporting:
    """A worker's reporter of the job's own topic, from an offset on; every seventh message is dead-lettered."""

    def __init__(self, service, job, start):
        self.source = KafkaSource(KafkaSettings("127.0.0.1:1"), ["raw"])
        self.source.pipeline = "flow"
        self.held = self.source.in_flight.assign("raw", job, 0, start)
        self.reporter = Reporter(self.source, ProgressSettings(str(service.base_url), TOKEN))
        self.job = job

    def work(self, end):
        """Read and settle up to an offset, and have it accepted."""
        envelopes = []
        for at in range(self.held.next, end):
            record = Record("raw", 0, at, at, self.held.number, None, b"", [], -1, f"{self.job}-{at % 3}", items=1)
            self.source.in_flight.read(record)
            if at % 7:
                envelopes.append(Envelope(record, 0, None))
            else:
                self.source.in_flight.fail(record, {0: "check"})
        self.reporter.take([Settled(Outcome.WRITTEN, envelopes)])
        until(lambda: self.reporter.serve(idle=True, between_windows=True) or not self.source.in_flight.unaccepted)
        assert self.source.fault is None


def test_workers_that_begin_in_the_middle_of_what_was_accepted_count_each_item_once(service, job):
    """Jobs interleaved, so that sums are sent; the second worker has crashed with nothing committed after 50."""
    for n in range(3):
        opening(service, f"{job}-{n}", total_items=120)
    for start, end in ((0, 200), (50, 300), (250, 360)):
        worker = Reporting(service, job, start)
        worker.work(end)
        worker.reporter.close()

    assert service.get(f"/progress/flow/{job}").json() == {"partitions": {"0": [[0, 359]]}}
    for n in range(3):
        state = service.get(f"/jobs/{job}-{n}").json()
        failed = sum(at % 7 == 0 for at in range(n, 360, 3))
        assert (state["succeeded"], state["failed"], state["status"]) == (120 - failed, failed, "completed")
        assert len(service.get("/failures", params={"job_id": f"{job}-{n}"}).json()["failures"]) == failed


ITEM = {"offset": 0, "first": 0, "last": 0, "reason": "check"}


@pytest.mark.parametrize(
    ("field", "report"),
    [
        ("spans.0", {"spans": [{"first": 5, "last": 4}]}),
        ("", {"spans": [{"first": 0, "last": 3}, {"first": 3, "last": 4}]}),
        ("", {"spans": [{"first": 0, "last": 1_000_000}]}),
        ("", {"spans": [{"first": 0, "last": 0}], "ranges": [{"first": 1, "last": 1}]}),
        ("", {"sums": [{"job_id": "a"}]}),
        ("", {"spans": [{"first": 0, "last": 0}], "sums": [{"job_id": "a"}, {"job_id": "b"}]}),
        ("", {"spans": [{"first": 0, "last": 1}], "sums": [{"job_id": "a"}, {"job_id": "a", "attempt": 1}]}),
        ("", {"spans": [{"first": 0, "last": 1}], "sums": [{"job_id": "a", "succeeded": 200_001}]}),
        ("", {"spans": [{"first": 0, "last": 1}],
              "sums": [{"job_id": "a", "skipped": 200_000}, {"job_id": "b", "skipped": 1}]}),
        ("sums.0.succeeded", {"spans": [{"first": 0, "last": 1}], "sums": [{"job_id": "a", "succeeded": -1}]}),
        ("sums.0", {"spans": [{"first": 0, "last": 0}], "sums": [{"job_id": "a", "failed": 1}]}),
        ("sums.0", {"spans": [{"first": 0, "last": 0}], "sums": [{"job_id": "a", "failed_items": [ITEM]}]}),
        ("", {"spans": [{"first": 1, "last": 2}, {"first": 4, "last": 4}],
              "sums": [{"job_id": "a", "failed": 1, "failed_items": [ITEM | {"offset": 3}]}]}),
        ("", {"spans": [{"first": 1, "last": 2}],
              "sums": [{"job_id": "a", "failed": 1, "failed_items": [ITEM | {"offset": 3}]}]}),
        ("", {"spans": [{"first": 0, "last": 2}],
              "sums": [{"job_id": "a", "failed": 2, "failed_items": [ITEM, ITEM]}]}),
        ("", {"spans": [{"first": 0, "last": 2}],
              "sums": [{"job_id": "a", "failed": 1, "failed_items": [ITEM]},
                       {"job_id": "b", "failed": 1, "failed_items": [ITEM | {"first": 1, "last": 1}]}]}),
        ("", {"spans": [{"first": 0, "last": 9}],
              "sums": [{"failed": 100_001, "failed_items": [ITEM | {"last": 100_000}]}]}),
    ],
)  # fmt: skip
def test_sums_that_are_wrong_are_refused_whole(service, job, field, report):
    where = {"topic": "raw", "topic_id": job, "partition": 0}
    answer = service.post("/progress", json={"pipeline": "flow", "reports": [where | report]})
    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert ".".join(map(str, fault["loc"])) == ".".join(filter(None, ("body.reports.0", field)))
    assert service.get(f"/progress/flow/{job}").json() == {"partitions": {}}


def test_a_partition_twice_in_a_request(service, job):
    body = report(part(0, 0, job), topic_id=job)
    body["reports"] *= 2
    assert service.post("/progress", json=body).status_code == 422


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"nonsense", b'{"job_id": "a", "source": "\\u0000"}',
                                  b'{"job_id": "a", "source": "\\ud800"}', b'{"job_id": "a\\u0000", "source": "s"}',
                                  b'{"job_id": "a", "source": "s", "total_items": -1}'])  # fmt: skip
def test_a_body_that_is_wrong(service, body):
    answer = service.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert all(fault["loc"] for fault in answer.json()["detail"])


def test_a_body_that_is_too_large(database):
    def chunks():
        for _ in range(300):
            yield b"x" * 1024

    with running(database, body_max=64 * 1024) as client:
        assert ready(client).post("/progress", content=b"x" * 100_000).status_code == 413
        try:
            answer = client.post("/progress", content=chunks(), headers={"Content-Type": "application/json"})
        except httpx.WriteError:
            return  # the service answered and hung up while we were still sending
        assert answer.status_code == 413


def test_counts_past_64_bits_are_refused(service, job):
    with psycopg.connect(service.dsn, autocommit=True) as conn:
        send(service, job, part(0, 0, job))
        conn.execute("update lovelace.counters set succeeded = 9223372036854775807 where job_id = %s", (job,))
    answer = service.post("/progress", json=report(part(1, 1, job), topic_id=job))
    assert answer.status_code == 422
    assert service.get(f"/progress/flow/{job}").json() == {"partitions": {"0": [[0, 0]]}}


def test_a_job_without_change_is_stalled_until_it_changes(database, job):
    with running(database, job_stall_seconds=0.5) as client:
        opening(ready(client), job, total_items=3)
        until(lambda: client.get(f"/jobs/{job}").json()["status"] == "stalled")
        assert client.get("/jobs", params={"status": "stalled"}).json()["jobs"][0]["job_id"] == job
        assert 'lovelace_jobs{status="stalled"} 1.0' in client.get("/metrics").text
        [state] = send(client, job, part(0, 0, job))["jobs"]
        assert state["status"] == "open"
        until(lambda: client.get(f"/jobs/{job}").json()["status"] == "stalled")
        [state] = send(client, job, part(1, 2, job))["jobs"]
        assert state["status"] == "completed"


def test_a_database_that_is_not_there():
    with running(f"postgresql://postgres@127.0.0.1:{free_port()}/none", request_seconds=0.6) as client:
        assert client.get("/healthz").status_code == 200
        asked = [client.get(path) for path in ("/readyz", "/jobs", "/jobs/a/events")]
        for answer in (*asked, client.post("/progress", json=report(part(0)))):
            assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)


def test_a_database_that_freezes_and_comes_back(database, postgres_server, job):
    with running(database, request_seconds=1.0) as client:
        opening(ready(client), job, total_items=2)
        postgres_server.freeze()
        try:  # the client would wait for much longer
            answer = client.post("/progress", json=report(part(0, 0, job), topic_id=job))
        finally:
            postgres_server.thaw()
        assert answer.status_code == 503
        until(lambda: client.post("/progress", json=report(part(0, 1, job), topic_id=job)).status_code == 200)
        assert client.get(f"/jobs/{job}").json()["status"] == "completed"


def test_two_services_of_one_ledger(database, job):
    """Both migrate, both serve, and an event of one reaches the streams of the other."""
    with running(database) as one, running(database) as other:
        opening(ready(one), job, total_items=1)
        with ready(other).stream("GET", f"/jobs/{job}/events") as response:
            events = events_of(response)
            assert next(events)["status"] == "open"
            send(one, job, part(0, 0, job))
            assert next(events)["status"] == "completed"


def test_no_token_no_service(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROGRESS_API_TOKEN", raising=False)
    with pytest.raises(DeploymentFault, match="PROGRESS_API_TOKEN="):
        ApiSettings.from_settings(Settings())
    assert main() == 78
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_settings_show_no_secret():
    settings_ = ApiSettings(dsn="postgresql://u:secret@h/d", token="secret")
    assert "secret" not in repr(settings_)
