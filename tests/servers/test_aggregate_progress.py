"""What the workers of a job publish of it, read back from the real topic."""

import json

from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from tests.faults.conftest import FAILED, SKIPPED, Job
from tests.faults.harness import Group, ends, eventually, read_all

TOTAL = 1500


def published(job: Job) -> list[dict]:
    """The progress topic's messages of the job, in the order written."""
    messages = read_all(job.brokers, f"{job.topic}.progress")
    assert {message.key() for message in messages} <= {job.job_id.encode()}
    return [json.loads(message.value()) for message in messages]


def settled(job: Job) -> bool:
    """Whether the workers have finished with the topic."""
    return Group(job.brokers, job.topic).committed(job.topic) == ends(job.brokers, job.topic)


def test_two_workers_tell_of_one_job_and_its_highest_version_is_its_state(job: Job) -> None:
    job.open(TOTAL)
    first, second = job.fleet.start(), job.fleet.start()
    eventually(lambda: first.events("assigned") and second.events("assigned"))
    job.submit(TOTAL)
    eventually(job.done)
    codes = [worker.terminate()[0] for worker in (first, second)]  # a drain waits for what was not published

    last = max(published(job), key=lambda each: each["version"])
    assert (last["status"], last["done"], last["total_items"]) == ("completed", TOTAL, TOTAL)
    assert (last["failed"], last["skipped"]) == (FAILED, SKIPPED)
    assert last["succeeded"] == TOTAL - FAILED - SKIPPED
    assert last["estimated_end"] is None
    assert codes == [0, 0]
    admin = AdminClient({"bootstrap.servers": job.brokers})
    topic = ConfigResource(ResourceType.TOPIC, f"{job.topic}.progress")
    assert admin.describe_configs([topic])[topic].result(20)["cleanup.policy"].value == "compact"


def test_a_topic_that_can_not_be_written_holds_up_nothing(job: Job) -> None:
    name = f"{job.topic}.progress"
    admin = AdminClient({"bootstrap.servers": job.brokers})
    admin.create_topics([NewTopic(name, 1, config={"max.message.bytes": "1"})])[name].result(20)
    job.open(TOTAL)
    worker = job.fleet.start()
    job.submit(TOTAL)

    eventually(job.done)
    eventually(lambda: settled(job))
    complaint = "progress can't be published; records are not held up"
    eventually(lambda: bool(worker.events(complaint)))
    code, _ = worker.terminate()

    job.check(TOTAL, FAILED, SKIPPED)
    assert (code, len(worker.events(complaint)), published(job)) == (0, 1, [])
