"""A stream that is written to a table, exactly once."""
