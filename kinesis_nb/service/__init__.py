"""The only rooms that know AWS."""
