"""Tests of `kinesis_nb.core`."""
