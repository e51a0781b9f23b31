"""Where partitions of a real topic begin, and that a ledger that takes its time holds up nobody."""

import threading

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from lovelace_streams.kafka.start_offsets import Covers, StartOffset, StartOffsets
from lovelace_streams.runtime.offsets import Offsets
from tests.faults.harness import eventually, send

ID = "the topic's id"


def test_the_committed_the_covered_and_the_earliest(brokers: str, make_topic) -> None:
    topic = make_topic(partitions=4)
    send(brokers, topic, [(str(n).encode(), b"{}") for n in range(100)])
    asked: list[str] = []
    answer = threading.Event()

    def ledger(topic_id: str) -> Covers:
        asked.append(topic_id)
        answer.wait()
        return {1: Offsets([(0, 6), (9, 9)]), 2: Offsets([(3, 5)])}

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic})
    try:
        committed = [
            TopicPartition(topic, 0, 5, metadata=ID),
            TopicPartition(topic, 3, 5, metadata="another topic's id"),
        ]
        eventually(lambda: consumer.commit(offsets=committed, asynchronous=False) is not None)
        starts = StartOffsets(consumer, AdminClient({"bootstrap.servers": brokers}), ledger, [topic])

        found, waiting = starts.find([TopicPartition(topic, p) for p in range(4)], {topic: ID})

        assert found == [StartOffset(topic, ID, 0, 5, "committed")]
        assert sorted(p.partition for p in waiting) == [1, 2, 3]
        assert starts.find(waiting, {topic: ID})[0] == []
        answer.set()
        rest: list[StartOffset] = []

        def all_found() -> bool:
            nonlocal waiting
            more, waiting = starts.find(waiting, {topic: ID})
            rest.extend(more)
            return not waiting

        eventually(all_found)
        by_partition = {start.partition: (start.offset, start.by) for start in rest}
        assert by_partition == {1: (7, "ledger"), 2: (0, "earliest"), 3: (0, "earliest")}
        assert asked == [ID]  # once a topic
    finally:
        answer.set()
        consumer.close()
