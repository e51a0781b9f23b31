"""Sources: where a flow's records come from. Kafka, or a source of one's own."""
