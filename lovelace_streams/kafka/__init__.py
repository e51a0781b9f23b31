"""Clients of Kafka: the consumer of a group, topics, headers, settings for librdkafka."""
