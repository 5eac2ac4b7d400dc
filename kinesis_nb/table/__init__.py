"""A synced Delta table: where it is, its log, its files, and whether it is complete."""
