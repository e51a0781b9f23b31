"""Pictures of the page, of a service with generated data: `python -m tests.servers.screenshots` writes docs/images."""

import contextlib
import json
import random
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from lovelace_streams.local.kafka import Kafka
from lovelace_streams.local.postgres import Postgres
from lovelace_streams.settings import KafkaSettings
from tests.servers.browser import chromium, log_in, looking
from tests.servers.service import TOKEN, part, ready, running

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDE, PHONE = {"width": 1180, "height": 760}, {"width": 390, "height": 800}


class Data:
    """Jobs that look like a day's: one that runs, one that nobody heard of, some that have ended."""

    def __init__(self, client: httpx.Client, dsn: str) -> None:
        self.client, self.dsn = client, dsn
        self.random = random.Random(7)
        self.offsets: dict[str, int] = {}

    def post(self, path: str, **body: Any) -> None:
        self.client.post(path, json=body).raise_for_status()

    def job(self, job_id: str, total: int | None, **fields: Any) -> None:
        named = {"job_id": job_id, "source": "discord", "workflow_id": f"onboarding-{job_id}", **fields}
        self.post("/jobs", **named, **({} if total is None else {"total_items": total}))

    def report(self, job_id: str | None, pipeline: str, succeeded: int = 0, skipped: int = 0, **failed: int) -> None:
        """So many items of a job, from where the pipeline is."""
        at = self.offsets.get(pipeline, 0)
        ranges = []
        for reason, count in failed.items():
            for _ in range(count):
                named = [{"first": 0, "last": 0, "reason": reason}]
                ranges.append(part(at, at, job_id, succeeded=0, failed=1, failed_items=named))
                at += 1
        for outcome, count in (("succeeded", succeeded), ("skipped", skipped)):
            if count:
                ranges.append(part(at, at + count - 1, job_id, **{"succeeded": 0, outcome: 1}))
                at += count
        self.offsets[pipeline] = at
        where = {"topic": f"{pipeline}.raw", "topic_id": f"id-of-{pipeline}", "partition": 0}
        self.post("/progress", pipeline=pipeline, reports=[{**where, "ranges": ranges}])

    def stand(self, pipeline: str, *lags: int) -> None:
        """Where a pipeline's partitions stand."""
        told = [
            {
                "topic": f"{pipeline}.raw",
                "topic_id": f"id-of-{pipeline}",
                "partition": partition,
                "position": 1_204_000 + 17_413 * partition,
                "end": 1_204_000 + 17_413 * partition + lag,
                "pending": min(lag, 480) // 3,
                "oldest_unsettled_ms": 0 if lag < 100 else 740 + 35 * lag // 10,
            }
            for partition, lag in enumerate(lags)
        ]
        self.post("/progress", pipeline=pipeline, reports=[], partitions=told)

    def fill(self) -> None:
        """All but what moves."""
        self.job("intake-forms-0311", 240, source="forms", pipelines=["forms"])
        self.report("intake-forms-0311", "forms", succeeded=240)
        self.job("guild-1180-members", 18_204)
        self.report("guild-1180-members", "discord", succeeded=18_120, skipped=61, wrong_type=14, missing=9)
        self.job("guild-0934-messages", 96_400, source="messages", pipelines=["messages"])
        self.report("guild-0934-messages", "messages", succeeded=31_010, skipped=1_204, not_json=4)
        self.job("guild-2207-members", 7_730)
        self.report("guild-2207-members", "discord", succeeded=2_310, unique=9)
        self.post("/jobs/guild-2207-members/close", reason="the guild has left")
        self.job("guild-3141-members", 240_000)
        self.report(
            "guild-3141-members",
            "discord",
            succeeded=91_000,
            skipped=1_210,
            wrong_type=27,
            missing=11,
            version_in_future=1,
        )
        self.stand("discord", 3_820, 2_911, 4_402, 12)
        self.stand("messages", 0, 41, 7)
        self.age()

    def age(self) -> None:
        """Times of a morning's work."""
        with psycopg.connect(self.dsn, autocommit=True) as database:
            for job, opened, ended in (
                ("intake-forms-0311", 402, 401),
                ("guild-1180-members", 131, 119),
                ("guild-0934-messages", 64, None),
                ("guild-2207-members", 37, 22),
                ("guild-3141-members", 1, None),
            ):
                database.execute(
                    "update lovelace.game_onboarding_progress set created_at = now() - make_interval(mins => %s), "
                    "completed_at = now() - make_interval(mins => %s::int), changed_at = now() where job_id = %s",
                    (opened, ended, job),
                )
            database.execute(
                "update lovelace.game_onboarding_progress set status = 'stalled' where job_id = 'guild-0934-messages'"
            )
            database.execute("update lovelace.outbox set state = 'sent', sent_at = now()")
            database.execute("update lovelace.outbox set state = 'undeliverable' where job_id = 'guild-2207-members'")

    @contextmanager
    def moving(self) -> Iterator[None]:
        """A worker that reports while pictures are taken, ever the same number of items a second."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.25):
                failed = {"wrong_type": 1} if self.random.random() < 0.5 else {}
                self.report("guild-3141-members", "discord", succeeded=300, skipped=3, **failed)

        thread = threading.Thread(target=work)
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(ended.set)
            yield


def letters(brokers: str, topic: str) -> None:
    """Dead letters of members, of which some fields are personal."""
    user = {"id": "80351110224678912", "username": "ada", "global_name": "Ada L.", "avatar": "a_f1e2d3"}
    member = {
        "guild_id": "3141",
        "user": user,
        "nick": "Countess",
        "roles": "none",
        "joined_at": "2026-11-02T09:14:00Z",
    }
    event = json.dumps({"op": 0, "t": "GUILD_MEMBER_ADD", "s": 1, "d": member})
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": brokers})
    for offset, value, reason, detail in (
        (1204117, event, "wrong_type", "expected list, got str at $.d.roles"),
        (1198206, event[:-9], "not_json", "expected JSON, got an end at byte 236"),
    ):
        headers = {
            "lovelace-origin": f"T/discord.raw/2/{offset}",
            "lovelace-origin-timestamp": "1",
            "lovelace-reason": reason,
            "lovelace-failed-items": f"0-0:{reason}",
            "lovelace-job-id": "guild-3141-members",
            "lovelace-detail": detail,
        }
        producer.produce(topic, value, headers=headers)
    producer.flush(20)


def main() -> None:
    """Light and dark, wide and narrow."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        postgres, kafka = Postgres(Path(home)), Kafka(Path(home))
        for server in (postgres, kafka):
            server.start()
            stack.callback(server.stop)
        letters(kafka.brokers, "discord.dlq")
        settings = {"job_stall_seconds": 1e6, "samples_token": TOKEN, "kafka": KafkaSettings(kafka.brokers)}
        with running(postgres.dsn, **settings) as client:
            data = Data(ready(client), postgres.dsn)
            data.fill()
        with running(postgres.dsn, **settings) as client, chromium() as browser:  # rates begin anew
            data.client = ready(client)
            url = str(client.base_url)
            with data.moving():
                take(browser, url, "jobs", "jobs", settle=8)
                take(browser, url, "jobs-dark", "jobs", settle=2, color_scheme="dark")
                take(browser, url, "jobs-phone", "jobs", settle=2, viewport=PHONE, device_scale_factor=1.5)
                take(browser, url, "job", "jobs/guild-3141-members", settle=2)
                data.stand("discord", 3_820, 2_911, 4_402, 12)
                take(browser, url, "partitions", "partitions")
                take(browser, url, "failures", "failures")
            take(browser, url, "samples", "samples?pipeline=discord")


def take(browser: Any, url: str, name: str, path: str, settle: float = 0.5, **options: Any) -> None:
    """One picture, once what moves has moved for a while."""
    with looking(browser, url, **{"viewport": WIDE, "device_scale_factor": 1.25, "locale": "en-GB", **options}) as page:
        log_in(page).goto(f"/ui/{path}")
        if (token := page.get_by_label("Token for samples")).count():
            token.fill(TOKEN)
            token.press("Enter")
            page.get_by_role("region").first.wait_for()
        page.wait_for_timeout(1000 * settle)
        target = IMAGES / f"{name}.png"
        page.screenshot(path=target)
        print(f"{target.name}: {target.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
