"""Jobs of agents in the world of `tests.life`: a scheduler that comes and goes, agents that die, freeze or are cut off.

What is real: the desk, the parts (`tests.life` says what is behind them), the orders that agents remember, and the
handle of a job, from `submit` to `wait` and `stop`. What is played in addition: Dask, as far as those use it
(`tests.life_jobs.dask`), the loop of an agent (`tests.life_jobs.world`), and what happens to all of them
(`tests.life_jobs.moves`).

Run many seeds with ``python -m tests.life_jobs --seeds 5000``.
"""
