"""Tests of `kinesis_nb.jsontext`."""
