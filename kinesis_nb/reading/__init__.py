"""From a shard to rows: the scheduler, one consumer per shard, and what `read()` and `tail()` are made of."""
