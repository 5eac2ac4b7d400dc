"""Jobs of agents in the world of `tests.simulation.life`: schedulers restart, agents die, freeze or are cut off.

What is real: the job registry, the parts (`tests.simulation.life` says what is behind them), the specs that agents
keep, and the handle of a job, from `submit` to `wait` and `stop`. What is played in addition: Dask, as far as those
use it (`tests.simulation.life_jobs.dask`), the loop of an agent (`tests.simulation.life_jobs.world`), and what happens
to all of them (`tests.simulation.life_jobs.moves`).

Run many seeds with ``python -m tests.simulation.life_jobs --seeds 5000``.
"""
