"""Syncs and exports that run on other processes and machines: agents, which are workers of Dask.

Nothing else of the package imports ``distributed``, and nothing in here does before it is needed.
"""
