"""One seed from its beginning to the verdict."""

from __future__ import annotations

import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from kinesis_nb.agents.spec_store import CAP_SECONDS
from kinesis_nb.agents.states import JobState
from kinesis_nb.errors import KinesisError
from tests.simulation.life.run import Run, _remembered, _told
from tests.simulation.life_jobs.moves import NAMES, JobMoves
from tests.simulation.life_jobs.world import JobLife
from tests.simulation.reader import Failure, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kinesis_nb.agents.job import AgentSync
    from kinesis_nb.agents.job_records import JobRecord
    from tests.simulation.life.world import Cell, Process

MOVES = 8, 17  # of one seed
NEVER = "never submitted"
UNCOMMITTED = "rows that were read are not in the table"  # when a job stops while its storage is away
BACK_SECONDS = 12.0  # until agents have joined, the lost ones are noticed, and jobs are resubmitted
SUBMITTED_SECONDS = 70.0  # for a line, which waits for the job before it
THROUGH_SECONDS = 180.0  # until all is in the table where nothing fails
STOPPED_SECONDS = 30.0


class JobRun(Run):
    """One seed."""

    life: JobLife
    moves: JobMoves

    def __init__(self, seed: int, root: Path) -> None:
        self.life = JobLife(seed, root)
        self.moves = JobMoves(self.life)

    def go(self) -> None:
        """Play."""
        life, moves = self.life, self.moves
        with life.installed(), _remembered():
            for _ in range(life.random.randint(0, 3)):
                life.put()
            life.begin_scheduler()
            for _ in range(life.random.randint(1, 3)):
                life.begin_agent()
            moves.run(1.5)
            moves.line()
            moves.run(3.0)
            for _ in range(life.random.randint(*MOVES)):
                moves.play()
                self._check_ends()
            moves.calm_down()
            life.put()
            life.fibers.run(BACK_SECONDS)
            self._check_ends()
            self._check_resubmitted()
            process = life.begin_process(life.machines[0])
            sync = self._submitted(process)
            self._wait(process, sync)
            self._check_table(process, sync)
            self._check_parts(sync, process)
            self._stop(process, sync)

    # --- what must not happen

    def _check_ends(self) -> None:
        super()._check_ends()
        if self.moves.broken:
            raise Violation(self.moves.broken[0])
        for cell in self.moves.cells:
            if cell.error is not None and not isinstance(cell.error, KinesisError):
                raise Violation(f"a cell shows an error that is not ours: {_told(cell.error)}")
        for name, record in self._jobs().items():
            errors = [part.error for part in record.parts.values() if part.over == JobState.FAILED]
            was_stopped = any("asked to stop" in line for line in record.log)
            may_fail = [f"the job was {NEVER}", *([UNCOMMITTED] if was_stopped else [])]
            if record.state is JobState.FAILED and not any(one in error for one in may_fail for error in errors):
                raise Violation(f"{name} has failed: {errors}; {list(record.log)}")

    def _jobs(self) -> Mapping[str, JobRecord]:
        return self.life.dask.registry._jobs if self.life.dask is not None else {}

    # --- the end

    def _done(self, process: Process, name: str, work: Callable[[], object], seconds: float) -> Cell:
        cell = process.run(name, work)
        self.life.fibers.run(seconds, lambda: cell.is_done)
        self._check_ends()
        if cell.error is not None or not cell.is_done:
            logs = {job: list(record.log)[-12:] for job, record in self._jobs().items()}
            raise Violation(f"{name} fails although nothing else does: {_told(cell.error)}; {logs}")
        return cell

    def _check_resubmitted(self) -> None:
        """Check that the scheduler knows all jobs that an agent remembers, whatever became of them."""

        def forgotten() -> set[str]:
            return {name for agent in self.life.agents for name in agent.specs._specs} - self._jobs().keys()

        self.life.fibers.run(CAP_SECONDS, lambda: not forgotten())
        if left := forgotten():
            raise Violation(f"jobs that nobody resubmitted: {left}")

    def _submitted(self, process: Process) -> AgentSync:
        spec = self.life.spec(self.moves.start, self.moves.interval)
        return self._done(process, "the last line", lambda: self.life.submit(process, spec), SUBMITTED_SECONDS).value

    def _wait(self, process: Process, sync: AgentSync) -> None:
        cell = self._done(process, "wait", lambda: self.moves.check_wait(sync, THROUGH_SECONDS), THROUGH_SECONDS + 10.0)
        if not cell.value:
            logs = {job: list(record.log)[-12:] for job, record in self._jobs().items()}
            raise Violation(f"it does not catch up: {logs}")

    def _check_table(self, process: Process, sync: AgentSync) -> None:
        truth = self._truth()
        self._check_rows(truth)
        if missing := self._missing(truth):
            raise Violation(f"lost: {missing[:6]} of {len(missing)}; told: {list(map(str, truth.gaps))}")
        verdict = self._done(process, "verify", sync.verify, 30.0).value
        if (not verdict and not self.life.erased) or verdict.rows != len(truth.rows):
            raise Violation(f"{verdict!r}")

    def _check_parts(self, sync: AgentSync, process: Process) -> None:
        """Check that one job runs, each of its parts on one agent that lives, and nothing else writes the table."""
        life = self.life
        life.fibers.run(BACK_SECONDS)
        status = self._done(process, "status", sync.status, 10.0).value
        if status.state != "running":
            raise Violation(f"a job is not called running: {status}; {sync.name}")
        active = [name for name, record in self._jobs().items() if record.state.is_active]
        if active != [sync.name]:
            raise Violation(f"not exactly one job runs: {active}")
        assert life.dask is not None
        record = self._jobs()[sync.name]
        places = {key: life.dask.tasks[key].processing_on for key in record.parts}
        if any(place is None or not place.agent.is_alive for place in places.values()):
            raise Violation(f"parts without an agent: {places}")
        shards = [
            shard.shard_id for one in self._living() for shard in one.status().shards if shard.state.value != "ended"
        ]
        if len(shards) != len(set(shards)):
            raise Violation(f"shards that are read twice: {sorted(shards)}")

    def _stop(self, process: Process, sync: AgentSync) -> None:
        """Stop the job: it is over, nothing writes, and no agent resubmits it."""
        self._done(process, "stop", sync.stop, STOPPED_SECONDS)
        life = self.life
        state = self._done(process, "status", sync.status, 10.0).value.state
        if state != JobState.STOPPED or self._living():
            raise Violation(f"it is not stopped: {state}, {self._living()}")
        life.fibers.run(BACK_SECONDS)
        if left := [agent.name for agent in life.agents if agent.specs._specs]:
            raise Violation(f"specs of a job that is over: {left}")
        if self._living():
            raise Violation(f"a job that was stopped runs again: {self._living()}")


def simulate(seed: int) -> tuple[Counter[str], Failure | None]:
    """Run one seed; return how often each thing happened, and what went wrong if something did."""
    shm = Path("/dev/shm")
    run: JobRun | None = None
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as root:
        try:
            run = JobRun(seed, Path(root))
            run.go()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be named
            reason = str(error) if isinstance(error, Violation) else "".join(traceback.format_exception(error)[-8:])
            return run.life.happened if run else Counter(), Failure(seed, reason, list(run.life.trace) if run else [])
    counts = {"records": sum(map(len, run.life.arrivals.values())), "turns": run.life.fibers.turns}
    return run.life.happened + Counter(counts), None


HAPPENS = [
    *(f"move: {name}" for name in NAMES),
    "power is cut",
    "wait: True",
    "wait: False",
    "job resubmitted",
]


def never(happened: Counter[str]) -> list[str]:
    """Name what never happened although it should."""
    return [name for name in HAPPENS if not happened[name]]
