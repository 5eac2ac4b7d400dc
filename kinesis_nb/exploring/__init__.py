"""What there is in a source: streams, shards and their lineage."""
