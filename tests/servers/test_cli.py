"""The `lovelace` command against real servers: what it prints, what it refuses, and its exit codes."""

import gzip
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflows import discord, discord_sample
from lovelace_streams.writers.postgres.ddl import create_table
from tests.faults.conftest import FAILED, SKIPPED, Job, Service
from tests.faults.harness import ROOT, eventually, query, read_all, send
from tests.servers.command import lovelace

GUILD = "41771983423143937"
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(brokers: str, database: str) -> Run:
    """`lovelace …` in the project, on the test's servers."""
    environment = {"KAFKA_BROKERS": brokers, "POSTGRES_DSN": database, "PROGRESS_API_URL": "", "CONSUMER_GROUP_ID": ""}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess:
        return lovelace(ROOT, environment | more, *arguments)

    return run


def with_jobs(service: Service, **more: str) -> dict[str, str]:
    return {"PROGRESS_API_URL": service.url, "PROGRESS_API_TOKEN": service.token, **more}


def refused(done: subprocess.CompletedProcess, code: int = 78) -> str:
    """The one line of a refusal."""
    assert done.returncode == code, done
    [line] = done.stderr.strip().splitlines()
    return line


@pytest.fixture
def topic(make_topic) -> str:
    return make_topic(partitions=2)


@pytest.fixture
def flow(topic: str, run: Run) -> Run:
    """`lovelace …` where the members flow reads the test's own topic."""
    return lambda *arguments, **more: run(*arguments, **{"TOPIC": topic} | more)


FLOW = "tests.faults.members"


# -- tables ------------------------------------------------------------------------------------------------------------


def test_ddl_is_what_the_check_accepts(flow: Run, database: str, topic: str) -> None:
    missing = refused(flow("check", FLOW))
    assert "discord_members" in missing
    assert "lovelace ddl" in missing

    printed = flow("ddl", "discord")
    assert printed.stdout.strip() == create_table(*discord_sample.ROWS)
    query(database, printed.stdout)
    checked = flow("check", FLOW)

    assert checked.returncode == 0, checked.stderr
    assert "the table is as Member, MemberJoined, MemberLeft say" in checked.stdout
    assert f"topic {topic} with 2 partitions" in checked.stdout
    query(database, "alter table discord_members drop column avatar")
    assert "avatar" in refused(flow("check", FLOW))


def test_check_names_a_missing_topic_and_servers_that_are_away(flow: Run, database: str) -> None:
    query(database, create_table(*discord_sample.ROWS))

    assert "has no topic 'nowhere'" in refused(flow("check", FLOW, TOPIC="nowhere"))
    away = refused(flow("check", FLOW, POSTGRES_DSN="postgresql://me:secret@127.0.0.1:1/db"), 75)
    assert "127.0.0.1:1/db" in away
    assert "secret" not in away


def test_a_flow_that_is_not_there(run: Run) -> None:
    line = refused(run("ddl", "nosuch"))

    assert "no dataflow 'nosuch'" in line
    assert "discord" in line


def test_explain_needs_no_server(run: Run) -> None:
    nowhere = {"KAFKA_BROKERS": "127.0.0.1:1", "POSTGRES_DSN": "postgresql://127.0.0.1:1/none"}
    columns = run("explain", "discord", COLUMNAR="on", **nowhere)
    items = json.loads(run("explain", "discord", "--json", COLUMNAR="off", **nowhere).stdout)

    assert columns.returncode == 0, columns.stderr
    assert columns.stdout.startswith("kafka: discord.members.raw: messages pass as columns")
    assert "event\tGUILD_MEMBERS_CHUNK\tMemberJoined\tcolumns\t" in columns.stdout.splitlines()
    assert [(source["way"], source["reasons"]) for source in items["sources"]] == [("items", ["COLUMNAR=off"])]
    assert "no dataflow 'nosuch'" in refused(run("explain", "nosuch"))


# -- submit ------------------------------------------------------------------------------------------------------------


def test_a_flow_that_counts_for_no_job_takes_none(run: Run, brokers: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "payloads.jsonl"
    file.write_bytes(b"{}")

    line = refused(run("submit", "tests.servers.flows", str(file), "--job", "j", TOPIC=topic))

    assert "ends in `commit`" in line
    assert read_all(brokers, topic) == []


def test_submit_sends_every_line_as_it_is(
    flow: Run, service: Service, brokers: str, topic: str, tmp_path: Path
) -> None:
    spaced = b'{ "op": 0, "t": "GUILD_MEMBER_ADD", "d": {"guild_id": "1", "user": {"id": "2"}} }'
    chunk = json.dumps(
        discord_sample.dispatch("GUILD_MEMBERS_CHUNK", {"guild_id": "1", "members": [{}] * 3, "chunk_index": 4})
    ).encode()
    lines = [spaced, chunk, b"{broken", b"\xff\xfe", b"17", b'"text"', b'{"a":18446744073709551617}']
    file = tmp_path / "payloads.jsonl"
    file.write_bytes(b"\n".join([*lines[:3], b"", *lines[3:]]))

    done = flow("submit", FLOW, str(file), "--job", "j-1", "--workflow", "w-1", **with_jobs(service))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"job_id": "j-1", "attempt": 1, "total_items": 9}
    sent = {message.value(): dict(message.headers()) | {"key": message.key()} for message in read_all(brokers, topic)}
    assert set(sent) == set(lines)
    assert {headers["lovelace-job-id"] for headers in sent.values()} == {b"j-1"}
    assert {headers["lovelace-job-attempt"] for headers in sent.values()} == {b"1"}
    assert [sent[line]["lovelace-items"] for line in lines] == [b"1", b"3", *[b"1"] * 5]
    assert (sent[spaced]["key"], sent[chunk]["key"], sent[b"{broken"]["key"]) == (b"1:2", b"1:4", None)
    state = service.job("j-1")
    assert (state["total_items"], state["workflow_id"], state["source"]) == (9, "w-1", "discord")

    again = flow("submit", FLOW, str(file), "--job", "j-1", "--workflow", "w-1", **with_jobs(service))
    assert json.loads(again.stdout)["attempt"] == 2
    resumed = flow("submit", FLOW, str(file), "--job", "j-1", "--workflow", "w-1", "--resume", **with_jobs(service))
    assert json.loads(resumed.stdout)["attempt"] == 2


def test_submit_wraps_bare_members_of_a_guild(
    flow: Run, service: Service, brokers: str, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "members.json"
    file.write_text(json.dumps([discord_sample.member(n) for n in (11, 12)], indent=2))

    refusal = refused(flow("submit", FLOW, str(file), "--job", "bare", **with_jobs(service)))
    assert "--option guild=" in refusal
    assert service.job("bare") is None
    assert read_all(brokers, topic) == []
    done = flow("submit", FLOW, str(file), "--job", "bare", "--option", f"guild={GUILD}", **with_jobs(service))

    assert json.loads(done.stdout)["total_items"] == 2
    payloads = [json.loads(message.value()) for message in read_all(brokers, topic)]
    assert {(p["t"], p["d"]["guild_id"], p["d"]["user"]["id"]) for p in payloads} == {
        ("GUILD_MEMBER_ADD", GUILD, "11"),
        ("GUILD_MEMBER_ADD", GUILD, "12"),
    }


def test_the_option_that_named_a_product_goes_on_working_and_says_so(
    flow: Run, service: Service, brokers: str, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "members.json"
    file.write_text(json.dumps([discord_sample.member(11)]))

    done = flow("submit", FLOW, str(file), "--job", "old", "--guild", GUILD, **with_jobs(service))

    assert done.returncode == 0
    assert json.loads(done.stdout)["total_items"] == 1
    assert f"--guild is deprecated: write --option guild={GUILD}" in done.stderr
    [sent] = read_all(brokers, topic)
    assert json.loads(sent.value())["d"]["guild_id"] == GUILD
    assert "--guild" not in flow("submit", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--option", "shop=7"], "takes no option 'shop': its messages() takes 'guild'"),
        (["--option", "guild"], "'guild' is invalid: write NAME=VALUE"),
        (["--option", "guild=1", "--option", "guild=2"], "guild=… is given twice"),
    ],
)
def test_submit_says_which_option_a_flow_takes(flow: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    file = tmp_path / "members.json"
    file.write_text("[]")

    assert says in refused(flow("submit", FLOW, str(file), "--job", "j", *arguments))


def test_submit_refuses_in_one_line(flow: Run, service: Service, brokers: str, topic: str, tmp_path: Path) -> None:
    broken, fine = tmp_path / "broken.json", tmp_path / "fine.jsonl"
    broken.write_text('[{"secret-value": 1}, {')
    fine.write_text("{}")

    array = refused(flow("submit", FLOW, str(broken), "--job", "j", **with_jobs(service)))
    assert "no JSON array" in array
    assert "secret-value" not in array
    assert "PROGRESS_API_URL" in refused(flow("submit", FLOW, str(fine), "--job", "j"))
    assert "401" in refused(
        flow("submit", FLOW, str(fine), "--job", "j", **with_jobs(service, PROGRESS_API_TOKEN="no"))
    )
    named = refused(flow("submit", FLOW, str(fine), "--job", "no job", **with_jobs(service)))
    assert "--job 'no job' is invalid" in named
    gone = flow("submit", FLOW, str(fine), "--job", "j", **with_jobs(service, PROGRESS_API_URL="http://127.0.0.1:1"))
    assert "http://127.0.0.1:1" in refused(gone, 75)
    assert read_all(brokers, topic) == []


def test_submit_reads_a_file_by_its_bytes(
    flow: Run, service: Service, brokers: str, topic: str, tmp_path: Path
) -> None:
    line = json.dumps(discord_sample.dispatch("GUILD_MEMBER_ADD", {"guild_id": "1", "user": {"id": "2"}})).encode()
    mark = b"\xef\xbb\xbf"
    for name, content in {"mark.jsonl": mark + line, "zipped": gzip.compress(mark + line)}.items():
        (tmp_path / name).write_bytes(content)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(line,), daemon=True).start()

    for file in ("mark.jsonl", "zipped", "pipe"):
        done = flow("submit", FLOW, str(tmp_path / file), "--job", file, **with_jobs(service))
        assert (done.returncode, json.loads(done.stdout or "{}").get("total_items")) == (0, 1), done.stderr

    assert [message.value() for message in read_all(brokers, topic)] == [line] * 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"id": "secret-value"}\n'.encode("utf-16"), "it is UTF-16: convert it to UTF-8 first"),
        (gzip.compress(os.urandom(900).hex().encode())[:-300], "its gzip data end early"),
        (b"PK\x03\x04secret-value", "it is a zip archive: unpack it first"),
        (b'{\n "secret-value": 1\n}\n', "its first payload takes several lines"),
    ],
    ids=["utf-16", "cut-off", "zip", "pretty"],
)
def test_submit_refuses_what_it_can_not_read_and_sends_nothing(
    flow: Run, service: Service, brokers: str, topic: str, tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "payloads.jsonl"
    file.write_bytes(content)

    line = refused(flow("submit", FLOW, str(file), "--job", "j", **with_jobs(service)))

    assert f"{file}: {says}" in line
    assert "secret-value" not in line
    assert (read_all(brokers, topic), service.job("j")) == ([], None)


def test_submit_says_what_the_topic_does_not_take(
    flow: Run, service: Service, brokers: str, make_topic, tmp_path: Path
) -> None:
    small = make_topic(partitions=1, max_message_bytes=2000)
    file = tmp_path / "payloads.jsonl"
    file.write_bytes(b'{"a": "%s"}' % os.urandom(9000).hex().encode())

    done = flow("submit", FLOW, str(file), "--job", "large", TOPIC=small, **with_jobs(service))

    assert done.returncode == 78
    *_bar, line = done.stderr.strip().splitlines()
    assert f"the topic {small!r} (MSG_SIZE_TOO_LARGE): raise max.message.bytes of it; submit the file again" in line


# -- jobs and dead letters ---------------------------------------------------------------------------------------------


def test_jobs_and_letters_of_a_job(job: Job, run: Run) -> None:
    total = 300
    job.open(total)
    job.fleet.start()
    job.submit(total)
    eventually(job.done)
    place = with_jobs(job.service, TOPIC=job.topic, CONSUMER_GROUP_ID=job.topic)

    listed = run("jobs", **place)
    assert listed.returncode == 0, listed.stderr
    succeeded = str(total - FAILED - SKIPPED)
    row = [job.job_id, "1", "discord", "completed", succeeded, str(FAILED), str(SKIPPED), str(total)]
    assert listed.stdout.strip().split("\t") == row
    head = ["job_id", "attempt", "source", "status", "succeeded", "failed", "skipped", "total_items"]
    assert listed.stderr.strip().split("\t") == head
    assert json.loads(run("jobs", "--json", **place).stdout)["job_id"] == job.job_id
    assert run("jobs", "--status", "open", **place).stdout == ""
    assert run("jobs", "--status", "nonsense", **place).returncode == 2

    letters = job.dead_letters()
    rows = [line.split("\t") for line in run("dlq", "list", "discord", **place).stdout.splitlines()]
    assert sum(int(items) for *_, items in rows) == len(letters) == FAILED
    assert {reason: int(items) for reason, *_, items in rows if reason == "check"} == {"check": 1}
    assert {job_id for _, _, job_id, *_ in rows} == {job.job_id}
    only = run("dlq", "list", "discord", "--reason", "check", **place).stdout.split()
    assert only == ["check", "upsert", job.job_id, "1", "1"]
    counted = run("dlq", "list", "discord", "--reason", "check", "--json", **place)
    assert json.loads(counted.stdout) == {
        "reason": "check", "step": "upsert", "job": job.job_id, "letters": 1, "items": 1,
    }  # fmt: skip
    assert counted.stderr == ""
    assert run("dlq", "list", "discord", "--job", "another", **place).stdout == ""

    [shown] = run("dlq", "show", "discord", "--reason", "check", **place).stdout.splitlines()
    letter = json.loads(shown)
    assert (letter["reason"], letter["detail"], letter["failed"]) == ("check", "name_length", "0-0:check")
    assert re.fullmatch(rf"[\w-]+/{job.topic}/\d/\d+", letter["origin"])
    assert not {"value", "value_base64", "key"} & letter.keys()
    assert "x" * 33 not in shown
    [full] = run("dlq", "show", "discord", "--reason", "check", "--value", **place).stdout.splitlines()
    assert json.loads(json.loads(full)["value"])["d"]["user"]["username"] == "x" * 33
    [binary] = run("dlq", "show", "discord", "--reason", "not_utf8", "--value", **place).stdout.splitlines()
    assert "value_base64" in json.loads(binary)
    assert len(run("dlq", "show", "discord", "--limit", "3", **place).stdout.splitlines()) == 3


def test_letters_of_others_and_no_letters_at_all(run: Run, brokers: str, make_topic) -> None:
    topic = make_topic(partitions=1)
    strange = {
        "lovelace-origin": b"a/b/0/1",
        "lovelace-origin-timestamp": b"soon",
        "lovelace-replays": b"-",
        "lovelace-failed-items": b"0-x:check, 9999999-1:a",
    }
    send(brokers, topic, [(b"k", b"v")], headers=list(strange.items()))

    assert "no dataflow 'nosuch'" in refused(run("dlq", "list", "nosuch"))
    assert "write 42, or 42-99" in refused(run("dlq", "list", "discord", "--offsets", "42-"))
    [shown] = run("dlq", "show", "discord", "--topic", topic).stdout.splitlines()
    assert json.loads(shown)["origin"] == "a/b/0/1"
    assert run("dlq", "list", "discord", "--topic", topic).stdout == ""
    assert "PROGRESS_API_TOKEN" in refused(
        run("jobs", PROGRESS_API_URL="http://127.0.0.1:1", PROGRESS_API_TOKEN=""), 78
    )
    assert "08006" in refused(run("jobs", PROGRESS_API_URL="http://127.0.0.1:1", PROGRESS_API_TOKEN="t"), 75)


# -- the progress service ----------------------------------------------------------------------------------------------


def test_a_taken_port_is_named_with_its_setting(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = run("api", API_PORT=port, PROGRESS_API_TOKEN="t", TEMPORAL_ADDRESS="")

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f"another program listens on 127.0.0.1:{port}: stop it, or set API_PORT"


# -- help --------------------------------------------------------------------------------------------------------------


def test_every_command_says_what_it_does(run: Run) -> None:
    from typer.main import get_command

    from lovelace_streams.cli import app

    help_ = run("--help", NO_COLOR="1", COLUMNS="200")
    assert help_.returncode == 0
    for name, command in get_command(app).commands.items():
        assert re.search(rf"│ {name} ", help_.stdout), name
        for each in [command, *getattr(command, "commands", {}).values()]:
            assert each.help, each.name
            for option in each.params:
                assert option.name in {"help", "limit"} or getattr(option, "help", None), (each.name, option.name)
    assert discord.SOURCE.name == "discord"


def test_a_wrong_option_is_a_usage_error(run: Run) -> None:
    done = run("jobs", "--nonsense")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
