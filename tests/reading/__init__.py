"""Tests of `kinesis_nb.reading`."""
