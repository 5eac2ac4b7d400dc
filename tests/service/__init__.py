"""Tests of `kinesis_nb.service`."""
