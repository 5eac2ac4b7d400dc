"""Tests of `kinesis_nb.exporting`."""
