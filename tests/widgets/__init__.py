"""Tests of `kinesis_nb.widgets`."""
