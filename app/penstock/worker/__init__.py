"""A worker process: one member of the consumer group."""
