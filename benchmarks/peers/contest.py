"""The contest: a topic, a table and one contender at a time, and somebody else who watches the rows come.

What is measured: rows that became visible, by the time that took, from the moment the rows of the warm-up are there to
the moment all are. Both moments are told by looking for some 200 of the rows by their keys, 50 times a second, which
costs the database little (0.3 ms); how many rows there are is counted once at each. Start-up and what was read ahead
meanwhile count for nobody, and a virtual machine has had some time to warm up. CPU is that of the contender's whole
process tree in the same time.

A row counts when it is as new as this measurement, so it does not matter whether it was there before. Where rows are
bad, the end is when all good ones are there and all bad ones are dead letters; a message then counts either way.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from uuid import uuid4

import psutil
import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.common import COLUMNS, GUILD, PARTITIONS, TABLE, Servers, make_table, peak_memory, rounds, say
from benchmarks.peers.contenders import Contender
from benchmarks.peers.records import NAME_LENGTH, Load, fill, user, values
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.local.processes import Program
from lovelace_streams.submit import open_job

LOOK_SECONDS = 0.02
PATIENCE = 40.0
"""Seconds without a new row among them after which a contender is given up."""
LIMIT = 300.0
"""Seconds after which it is given up in any case."""
RULES = {
    "check": f";\nalter table {TABLE.name} add constraint name_length check (char_length(username) <= {NAME_LENGTH})",
    "trigger": f""";
        create or replace function refuse_impostors() returns trigger language plpgsql as
        $$begin if new.username = 'everyone' then raise 'no member is called that'; end if; return new; end$$;
        create trigger impostors before insert or update on {TABLE.name}
        for each row execute function refuse_impostors()""",
}
"""What refuses rows, by the kind of badness."""


@dataclass(frozen=True)
class Moment:
    """What was there when."""

    at: float
    rows: int
    letters: int
    cpu: float

    @property
    def settled(self) -> int:
        """Messages that are through, either way."""
        return self.rows + self.letters


class Running(Program):
    """The contender's process: nobody waits long for it to end, its topic is gone anyway."""

    grace: ClassVar[float] = 5.0


class Contest:
    """One set of servers, and what everybody has to do."""

    def __init__(self, servers: Servers, load: Load, limit: float = LIMIT) -> None:
        self.servers = servers
        self.load = load
        self.limit = limit
        self.brokers = servers.settings.kafka_brokers
        self._contents: tuple[Any, list[bytes]] = (None, [])

    def run(self, contenders: Sequence[Contender], runs: int, minutes: float | None = None) -> Iterator[dict[str, Any]]:
        """Every contender, once a run, in the same order: new rows, then the same rows again."""
        for run in rounds(runs, minutes):
            for contender in contenders:
                self.make_table(contender.setup)
                for state in ("new", "existing"):
                    result = {
                        "benchmark": "peers",
                        "what": f"{contender.name}, {state} rows",
                        "run": run,
                        **self.measure(contender),
                    }
                    say(f"run {run} of {runs}: {result['what']}: {describe(result)}")
                    yield result
                    if not result["complete"]:
                        break

    def make_table(self, setup: str = "") -> None:
        """Empty, with the rule that refuses the bad ones."""
        make_table(self.servers, RULES.get(self.load.badness, ""))
        with self.servers.connect() as connection:
            connection.execute("drop cast if exists (text as bigint[])")  # of another's setup
            if setup:
                connection.execute(setup.encode())

    def measure(self, contender: Contender) -> dict[str, Any]:
        """Produce the messages, start the contender, and watch the rows come."""
        name = f"peers-{uuid4().hex[:12]}"
        with self.topic(name, dead_letters=not contender.makes_dead_letters):
            opened = {"job_id": name, "source": "discord", "total_items": self.load.total, "pipelines": [name]}
            open_job(self.servers.settings.progress, opened)
            with self.servers.connect() as connection:
                [(since,)] = connection.execute("select date_trunc('second', clock_timestamp())").fetchall()
            fill(self.brokers, name, self.contents(contender), headers(name))
            with (
                self.running(contender, name) as program,
                self.servers.connect() as connection,
                closing(Watch(self, program, connection, name, since)) as watch,
            ):
                return watch.result() | {"rows_digest": self.digest()}

    @contextmanager
    def running(self, contender: Contender, topic: str) -> Iterator[Running]:
        """A contender at work on a topic."""
        environment = contender.variables(topic, self.brokers, self.servers.dsn, bad=bool(self.load.bad))
        program = Running(
            self.servers.stack.home, "contender", list(contender.command), environment=environment
        ).start()
        try:
            yield program
        finally:
            program.stop()

    def contents(self, contender: Contender) -> list[bytes]:
        """The values of a topic in the form that a contender reads; the last ones are kept."""
        if self._contents[0] is not contender.form:
            self._contents = (contender.form, list(values(self.load, contender.form)))
        return self._contents[1]

    @contextmanager
    def topic(self, name: str, *, dead_letters: bool) -> Iterator[None]:
        """A topic for as long as it is needed, and one for dead letters where nobody else makes it."""
        admin = AdminClient({"bootstrap.servers": self.brokers})
        made = [NewTopic(name, PARTITIONS), *([NewTopic(f"{name}.dlq", 1)] if dead_letters else [])]
        for creating in admin.create_topics(made).values():
            creating.result(30)
        try:
            yield
        finally:
            for deleted in admin.delete_topics([name, f"{name}.dlq", f"{name}.replay"]).values():
                deleted.exception(30)

    def digest(self) -> str:
        """All rows but for the version, whose resolution differs between the contenders."""
        columns = ", ".join(name for name in COLUMNS if name not in {TABLE.version, "left_at"})
        ordered = (
            f"select md5(string_agg(t::text, '|' order by user_id)) from (select {columns} from {TABLE.name}) as t"
        )
        with self.servers.connect() as connection:
            [(digest,)] = connection.execute(ordered.encode()).fetchall()
        return str(digest)


class Watch:
    """Somebody who looks at the table while a contender works, from outside."""

    def __init__(
        self, contest: Contest, program: Running, connection: psycopg.Connection[Any], topic: str, since: Any
    ) -> None:
        self.load = contest.load
        self.program = program
        self.connection = connection
        self.topic = topic
        self.since = since
        self.brokers = contest.brokers
        self.until = time.monotonic() + contest.limit
        self.marks = [user(number) for number in self.load.marks]
        self.good = self.load.total - self.load.bad_ones()
        # one for all times that it is asked: to make one and let it go took 75 of 85 ms, a tenth of a whole measurement
        self.asking = Consumer({"bootstrap.servers": self.brokers, "group.id": "letters"}) if self.load.bad else None

    def result(self) -> dict[str, Any]:
        """The speed between the two moments; what was reached where a contender ended or got stuck before."""
        enough = self.load.warm / self.load.total * len(self.load.marks)
        began = self.wait(lambda: self.seen() >= enough)
        first = self.moment() if began else None
        ended = self.wait(lambda: self.seen() == len(self.load.marks) and self.all()) if began else None
        now = self.moment()
        if ended:
            now = replace(now, at=ended)
        settled = now.settled - first.settled if first else 0
        return {
            "rows": settled,
            "rows_per_second": round(settled / (now.at - first.at)) if first and settled else 0,
            "cpu_us_per_row": round((now.cpu - first.cpu) / settled * 1e6, 2) if first and settled else None,
            "peak_mb": round(sum(map(peak_of, family(self.program))) / 2**20, 1),
            "complete": ended is not None,
            "written": now.rows,
            "good": self.good,
            "dead_letters": now.letters,
            "bad": self.load.bad_ones(),
        }

    def close(self) -> None:
        """Ask no more."""
        if self.asking is not None:
            self.asking.close()

    def wait(self, there: Callable[[], bool]) -> float | None:
        """When something is there; None where it does not come any more."""
        seen, changed = 0, time.monotonic()
        while True:
            at = time.monotonic()
            if there():
                return at
            if self.program.poll() is not None or at > self.until:
                return None
            if (now := self.seen()) != seen:
                seen, changed = now, at
            if at - changed > PATIENCE:
                return None
            time.sleep(LOOK_SECONDS)

    def moment(self) -> Moment:
        """What is there now."""
        letters, cpu = self.letters(), cpu_of(family(self.program))
        at = time.monotonic()  # a statement sees what was there when it began
        return Moment(at, self.count(), letters, cpu)

    def all(self) -> bool:
        """Whether nothing is missing."""
        return self.count() >= self.good and self.letters() >= self.load.bad_ones()

    def seen(self) -> int:
        """How many of the rows that are looked for are there."""
        return self._ask("and user_id = any(%s)", self.marks)

    def count(self) -> int:
        """How many rows are."""
        return self._ask("")

    def _ask(self, more: str, *arguments: Any) -> int:
        query = f"select count(*) from {TABLE.name} where guild_id = %s and {TABLE.version} >= %s {more}"
        [(found,)] = self.connection.execute(query.encode(), (GUILD, self.since, *arguments)).fetchall()
        return int(found)

    def letters(self) -> int:
        """How many dead letters there are, by the end of their topic."""
        if self.asking is None:
            return 0
        try:
            topic = f"{self.topic}.dlq"
            found = self.asking.list_topics(topic, 10).topics[topic].partitions
            return sum(self.asking.get_watermark_offsets(TopicPartition(topic, each), 10)[1] for each in found)
        except KafkaException:
            return 0  # it is not there yet


def headers(job: str) -> list[tuple[str, bytes]]:
    """What a message of a job says of itself; peers let it pass."""
    return [("lovelace-job-id", job.encode()), ("lovelace-job-attempt", b"1"), ("lovelace-items", b"1")]


def family(program: Program) -> list[psutil.Process]:
    """A program's processes; none where it has ended."""
    with suppress(psutil.NoSuchProcess, DeploymentFault):
        process = program.process()
        return [process, *process.children(recursive=True)]
    return []


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    """User and system seconds so far."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def peak_of(process: psutil.Process) -> int:
    """The most that was ever resident, in bytes; nothing of a process that has ended."""
    with suppress(OSError):
        return peak_memory(process.pid)
    return 0


def describe(result: dict[str, Any]) -> str:
    """A result in a line."""
    speed = f"{result['rows_per_second']:,} rows/s"
    if result["complete"]:
        return speed
    return f"gave up at {result['written']:,} of {result['good']:,} rows ({speed})"
