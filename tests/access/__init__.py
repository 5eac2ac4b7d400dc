"""Tests of `kinesis_nb.access`."""
