"""Defects in the jobs of agents that a simulated world must notice: schedulers and agents that come and go."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

MUTANTS = [
    Mutant(
        "what was caught up with is not waited for",
        "agents/parts.py",
        "if reached != mark and next(caught_up):",
        "if reached != mark:",
    ),
    Mutant(
        "a part that lost its agent waits for that one",
        "agents/job_registry.py",
        "            self._scheduler.set_restrictions({key: None})\n",
        "",
    ),
    Mutant(
        "a spec is kept when its job is over",
        "agents/spec_store.py",
        "        for job in self._specs.keys() & set(over):\n            self.forget(job)\n",
        "",
    ),
    Mutant(
        "a lost job is not resubmitted",
        "agents/spec_store.py",
        "lost = {job: body for job, body in self._specs.items() if job not in known}",
        "lost: dict[str, bytes] = {}",
    ),
    Mutant(
        "a part whose disk is full ends its job",
        "table/failures.py",
        'retryable="://" in uri or _may_pass(said)',
        'retryable="://" in uri',
    ),
    Mutant(
        "the parts of a stopped job go on",
        "agents/job_registry.py",
        "if part.over or not record.state.is_active:\n            return Instruction.STOP",
        "if part.over:\n            return Instruction.STOP",
    ),
    Mutant(
        "other options do not end the job that runs",
        "agents/submit.py",
        "cluster.ask(STOP, JobRef(name, known.run))",
        "pass",
    ),
]

SUITE = Suite(MUTANTS, simulation="tests.simulation.life_jobs", seeds=60)
