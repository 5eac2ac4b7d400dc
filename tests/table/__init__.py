"""Tests of `kinesis_nb.table`."""
