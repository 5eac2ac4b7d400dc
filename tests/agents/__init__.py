"""Tests of `kinesis_nb.agents`."""
