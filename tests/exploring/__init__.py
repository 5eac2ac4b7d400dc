"""Tests of `kinesis_nb.exploring`."""
