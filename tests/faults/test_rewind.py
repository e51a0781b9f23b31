"""A group moved back on real servers: rows are written again, counts are not, and nobody is told twice."""

import json
import subprocess

import pytest

from tests.faults.conftest import FAILED, SKIPPED, Job
from tests.faults.harness import ROOT, Group, ends, eventually, query
from tests.servers.command import lovelace

FLOW = "tests.faults.members"


def rewind(job: Job, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    place = {**job.fleet.environment, "PROGRESS_API_URL": job.service.url, "PROGRESS_API_TOKEN": job.service.token}
    return lovelace(ROOT, place | more, "rewind", FLOW, *arguments)


def refused(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 78, done
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_rows_again_counts_not_again(job: Job) -> None:
    group = Group(job.brokers, job.topic)
    job.open(300, workflow_id="waits")
    worker = job.fleet.start()
    job.submit(300)
    eventually(job.done)
    eventually(lambda: group.committed(job.topic) == ends(job.brokers, job.topic))
    before, end = job.state, ends(job.brokers, job.topic)

    alive = refused(rewind(job, "--to", "earliest", "--yes"))
    assert "has 1 member (" in alive
    assert "stop the workers first" in alive
    assert worker.terminate()[0] == 0
    query(job.database, "truncate discord_members")

    assert "there is no partition 9" in refused(rewind(job, "--to", "earliest", "--partition", "9"))
    assert "--to 5000 is out of range" in refused(rewind(job, "--to", "5000", "--yes"))
    assert "'yesterday' is no time" in refused(rewind(job, "--to", "yesterday"))
    assert "add --yes" in refused(rewind(job, "--to", "-1h"))
    looked = rewind(job, "--to", "-1h", "--dry-run")
    assert json.loads(looked.stdout.splitlines()[-1])["rewound"] is False
    assert group.committed(job.topic) == end
    assert "topic\tpartition\tfrom\tto\trecords\tnote\n" in looked.stderr
    told = json.loads(rewind(job, "--to", "-1h", "--dry-run", "--json").stdout)
    assert [move["partition"] for move in told["moves"]] == [0, 1, 2]
    assert [(move["from"], move["to"], move["records"]) for move in told["moves"]] == [(n, 0, n) for n in end]

    done = rewind(job, "--to", "-1h", "--yes")
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    assert json.loads(last) == {"group": job.topic, "partitions": 3, "records": sum(end), "rewound": True}
    assert [line.split("\t")[:5] for line in table] == [
        [job.topic, str(partition), str(upto), "0", str(upto)] for partition, upto in enumerate(end)
    ]
    assert "no job counts them again" in done.stderr
    assert group.committed(job.topic) == [0, 0, 0]

    again = job.fleet.start()
    eventually(lambda: group.committed(job.topic) == end)
    assert {(it["start"], it["by"]) for it in again.events("assigned") if it["topic"] == job.topic} == {
        (0, "committed")
    }
    assert job.rows() == 300 - FAILED - SKIPPED
    assert job.state == before
    assert query(job.database, "select count(*) from lovelace.outbox where job_id = %s", job.job_id) == [(1,)]
    assert again.terminate()[0] == 0

    to_end = rewind(job, "--to", "2100-01-01T00:00:00Z", "--yes")
    assert json.loads(to_end.stdout.splitlines()[-1]) == {
        "group": job.topic, "partitions": 0, "records": 0, "rewound": False,
    }  # fmt: skip
    assert group.committed(job.topic) == end, "never forward"
