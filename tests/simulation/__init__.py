"""The reader, tables, exports and jobs in simulated worlds: `make sim`, `make sim-life`."""
