"""Rows that are written to a stream, in order per key."""
