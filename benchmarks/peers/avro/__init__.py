"""The members job with Avro in Confluent's frame."""
