"""Tests of `kinesis_nb.wire`."""
