"""Tests of `kinesis_nb.syncing`."""
