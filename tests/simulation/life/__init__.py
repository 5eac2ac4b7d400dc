"""Several machines and processes on one table and one stream, in virtual time and from one seed.

What is real: `start_sync` and everything behind it (registry, committer, ownership, ledger, scheduler, consumers,
upkeep, verify), with its own threads, events, conditions and locks, and a real Delta table in a folder. What is played:
time, whose turn it is (`tests.simulation.life.fibers`), what a disk remembers (`tests.simulation.life.disk`), and what
happens to processes, machines, the storage and the stream (`tests.simulation.life.world`,
`tests.simulation.life.moves`).

Run many seeds with ``python -m tests.simulation.life --seeds 5000``.
"""
