"""JSON text of records as columns."""
