"""Kafka's clients: the consumer of a group, reading a topic without one, topics, headers, settings for librdkafka."""
