"""A restart in the middle of a test's flow: what the killed worker leaves behind, and what the next one repeats."""

import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import DeploymentFault, DestinationFault
from lovelace_streams.testing import MemoryWriter, Message, run
from lovelace_streams.writers.postgres import PostgresWriter


class Item(ls.Row, table="items", primary_key="id"):
    id: int
    name: str | None = None


def flow(settings: ls.Settings, target=Item, writer=None) -> Dataflow:
    source = ls.KafkaSource(settings.kafka, topics=["items", "more"])
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(target))
    items = ls.normalize("normalize", decoded.oks, target)
    batches = ls.batch("batch", items.oks, settings.batch)
    written = ls.upsert("upsert", batches, writer or PostgresWriter(settings.postgres, Item), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.progress("progress", source, settings.progress, written.settled, dead.settled, decoded.skipped, items.skipped)
    return flow


def items(count: int, **more) -> list[Message]:
    return [Message({"id": n}, **more) for n in range(count)]


class Counting(MemoryWriter):
    """Knows how often each row was written."""

    def __init__(self) -> None:
        super().__init__(Item)
        self.writes: list[int] = []

    def write(self, block):
        self.writes += [entry.row.id for entry in block]
        return super().write(block)


def test_what_was_written_and_not_committed_is_repeated() -> None:
    writer = Counting()

    result = run(flow, items(5), restart_after=3, writers=[writer])

    assert writer.writes == [0, 1, 2, 0, 1, 2, 3, 4]
    assert result.outcomes == {"written": 8}
    assert result.repeated == {("items", 0): 3}
    assert result.rows() == run(flow, items(5)).rows()
    assert result.committed["items", 0] == 5
    assert str(result) == "8 written; 3 read again in items-0"


def test_windows_before_the_last_are_committed() -> None:
    result = run(flow, items(9), restart_after=7, poll_size=3)

    assert result.repeated == {("items", 0): 1}
    assert result.outcomes == {"written": 10}


@pytest.mark.parametrize("jobs", [None, {"j": 400}])
def test_a_large_block_that_a_thread_writes_is_written_before_the_worker_dies(jobs) -> None:
    writer = Counting()

    result = run(flow, items(400, job="j"), restart_after=(150, 150), jobs=jobs, writers=[writer], batch_size=150)

    assert writer.writes == [*range(150), *range(150), *range(400)]
    assert result.repeated == {("items", 0): 300}
    assert result.committed["items", 0] == 400


def test_each_worker_is_killed_after_what_it_has_read_itself() -> None:
    result = run(flow, items(6), restart_after=(2, 3), poll_size=1)

    assert result.repeated == {("items", 0): 2}  # offset 1, by the second; offset 3, by the third
    assert result.outcomes == {"written": 8}


def test_every_partition_goes_on_at_its_own_offset() -> None:
    messages = [Message({"id": n}, partition=n % 2, topic=("items", "more")[n // 4]) for n in range(8)]

    result = run(flow, messages, restart_after=5, poll_size=4)

    assert result.repeated == {("more", 0): 1}
    assert result.committed == {("items", 0): 2, ("items", 1): 2, ("more", 0): 2, ("more", 1): 2}


def test_jobs_are_counted_once() -> None:
    for restart_after in ((1,), (3,), (4, 2), (5,), (6,)):
        messages = [*items(4, job="j"), Message("{", job="j", items=2), Message(None, job="j")]

        result = run(flow, messages, jobs={"j": 7}, restart_after=restart_after, poll_size=2)

        job = result.jobs["j"]
        assert (job.status, job.succeeded, job.failed, job.skipped) == ("completed", 4, 2, 1)
        assert [signal["signal_id"] for signal in result.signals] == ["j#1"]


def test_a_letter_that_was_not_sent_is_sent_by_the_next_worker() -> None:
    messages = ["{", {"id": "x"}, {"id": 2}, "[", {"id": 4}]
    for restart_after in range(1, 6):
        for poll_size in (1, 2, 2000):
            result = run(flow, messages, restart_after=restart_after, poll_size=poll_size)

            letters = sorted((letter.origin, letter.reason) for letter in result.letters)
            assert [reason for _, reason in letters] == ["not_json", "wrong_type", "not_json"]
            assert [row["id"] for row in result.rows()] == [2, 4]
            assert result.committed["items", 0] == 5


def test_skips_of_both_workers_are_counted() -> None:
    assert run(flow, [None, {"id": 1}], restart_after=1).skipped == {"tombstone": 2}


def test_state_of_the_process_is_lost() -> None:
    """What a restart is there to show: a function that remembers gives other rows after it."""

    def made(settings: ls.Settings) -> Dataflow:
        seen: list[int] = []

        def numbered(raw):
            seen.append(raw["id"])
            return Item(id=len(seen), name=None)

        return flow(settings, numbered)

    assert [row["id"] for row in run(made, items(3)).rows()] == [1, 2, 3]
    assert [row["id"] for row in run(made, items(3), restart_after=2, poll_size=1).rows()] == [1, 2]


def test_tables_outlive_a_worker_whoever_made_their_writer() -> None:
    def own(settings: ls.Settings) -> Dataflow:
        return flow(settings, writer=MemoryWriter(Item))

    result = run(own, items(4), restart_after=2, poll_size=1)

    assert [row["id"] for row in result.rows()] == [0, 1, 2, 3]
    assert result.repeated == {("items", 0): 1}


def test_a_worker_that_waits_for_its_destination_is_killed_when_it_goes_on() -> None:
    class Away(Counting):
        def write(self, block):
            self.writes.append(-1)
            if len(self.writes) < 3:
                raise DestinationFault("08006", "away")
            return super().write(block)

    writer = Away()
    result = run(flow, items(2), restart_after=2, writers=[writer])

    assert writer.writes == [-1, -1, -1, 0, 1, -1, 0, 1]
    assert result.repeated == {("items", 0): 2}


def test_a_fault_of_the_deployment_is_raised_whichever_worker_meets_it() -> None:
    messages = [Message({"id": None}, job=f"job-{n % 2}") for n in range(1000)]

    with pytest.raises(DeploymentFault, match="a thousand items in a row were refused by 'normalize'"):
        run(flow, messages, restart_after=10)
    with pytest.raises(DeploymentFault, match="a thousand items in a row were refused by 'normalize'"):
        run(flow, messages, restart_after=1000, poll_size=999)


def test_a_flow_that_is_built_can_not_be_restarted() -> None:
    built = flow(ls.Settings())

    with pytest.raises(TypeError, match=r"items is built already.* hand over the function .*run\(flow, "):
        run(built, items(1), restart_after=1)
    with pytest.raises(TypeError, match="items: a restart builds the flow again, and the function gave the same one"):
        run(lambda: built, items(1), restart_after=1)


def test_a_restart_that_never_comes_is_an_error() -> None:
    with pytest.raises(ValueError, match="restart_after=6: the worker was never killed, it has read 5 messages"):
        run(flow, items(5), restart_after=6)
    with pytest.raises(ValueError, match="restart_after=0 counts the messages that a worker reads: expected 1 or more"):
        run(flow, items(5), restart_after=0)
