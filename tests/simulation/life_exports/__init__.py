"""Streaming exports of a synced table, in the world of `tests.simulation.life`.

What is real: `start_export` and all behind it (registry, journal and its file, row sources, lanes), the sync that
fills the table, and the files of both on a disk that forgets what was not fsynced. What is played in addition: the
output stream and the way to it (`tests.simulation.life_exports.world`), and what happens to exports
(`tests.simulation.life_exports.moves`).

Run many seeds with ``python -m tests.simulation.life_exports --seeds 5000``.
"""
