"""Topic ids as a broker gives them, or does not."""

from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaException

from lovelace_streams.kafka import topic_ids as topics
from lovelace_streams.kafka.topic_ids import TopicIds


class Silent:
    """An admin client whose broker has gone away."""

    def describe_topics(self, _topics, request_timeout):
        return {"orders": Future()}


def test_a_broker_that_does_not_answer_is_a_fault_of_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "REQUEST_SECONDS", 0.01)

    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        TopicIds(Silent()).now(["orders"])
