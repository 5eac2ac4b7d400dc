"""What happens to the jobs of one world, and to all that they rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinesis_nb.core.position import StartingPosition
from kinesis_nb.table.storage import LOG
from tests.simulation.life.moves import Moves

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinesis_nb.agents.job import AgentSync
    from tests.simulation.life.world import Cell, Process, Record
    from tests.simulation.life_jobs.world import Agent, JobLife

MOST_AGENTS, MOST_NOTEBOOKS = 4, 3


class JobMoves(Moves):
    """Everything that may happen in a world with agents."""

    life: JobLife

    def __init__(self, life: JobLife) -> None:
        super().__init__(life)
        self.start = StartingPosition.trim_horizon()
        self.interval = 1.0
        self.broken: list[str] = []  # promises, seen in a cell
        self.cells: list[Cell] = []

    def all(self) -> dict[Callable[[], object], int]:
        return {
            self.line: 6,
            self.line_with_other_options: 3,
            self.wait_for_job: 6,
            self.stop: 2,
            self.notebook_dies: 2,
            self.agent_begins: 4,
            self.agent_leaves: 4,
            self.agent_dies: 5,
            self.agent_freezes: 4,
            self.agent_is_cut_off: 6,
            self.scheduler_dies: 5,
            self.scheduler_freezes: 2,
            self.cut: 2,
            self.clock_step: 2,
            self.storm: 3,
            self.disk_full: 2,
            self.reshard: 5,
            self.optimize: 1,
            self.delete: 1,
        }

    # --- notebooks

    def _notebooks(self) -> list[Process]:
        others = {*self.life.agents, self.life.scheduler_group}
        return [one for one in self._idle() if one not in others]

    def begin_job(self, process: Process) -> Cell:
        """Run the line of a sync in a notebook."""
        spec = self.life.spec(self.start, self.interval)
        cell = process.run(f"line {self.interval}", lambda: self.life.submit(process, spec))
        self.cells.append(cell)
        return cell

    def line(self) -> object:
        if self._is_away:
            return False
        idle = self._notebooks()
        if len(idle) < MOST_NOTEBOOKS and (not idle or self.random.random() < 0.5):
            idle = [self.life.begin_process(self.random.choice(self.life.machines[:-1]))]
        return self.begin_job(self.random.choice(idle))

    def line_with_other_options(self) -> object:
        self.interval = self.random.choice([one for one in (1.0, 2.0, 4.0) if one != self.interval])
        return self.line()

    def _handles(self) -> list[tuple[Process, AgentSync]]:
        found = [(one, one.cell.value) for one in self._notebooks() if one.cell is not None]
        return [(process, value) for process, value in found if hasattr(value, "stop")]

    def _in_handle(self, name: str, work: Callable[[AgentSync], object]) -> Cell | bool:
        """Run a cell with the handle of a job, and give the handle back to the notebook."""
        if not (found := self._handles()):
            return False
        process, sync = self.random.choice(found)

        def call() -> AgentSync:
            work(sync)
            return sync

        self.cells.append(cell := process.run(name, call))
        return cell

    def wait_for_job(self) -> object:
        """Wait for what is in the stream now, and see whether it is in the table."""
        seconds = self.random.choice([2.0, 10.0, 30.0])
        return self._in_handle(f"wait {seconds}", lambda sync: self.check_wait(sync, seconds))

    def check_wait(self, sync: AgentSync, seconds: float) -> bool:
        """Wait, and check what it says."""
        there = {(key, number) for key, times in self.life.arrivals.items() for number in range(1, len(times) + 1)}
        is_through = sync.wait(seconds)
        if is_through and (missing := there - self.rows() - self.life.erased):
            self.broken.append(f"wait() says that all is there, and {sorted(missing)[:5]} of {len(missing)} are not")
        self.life.happened[f"wait: {is_through}"] += 1
        return is_through

    def rows(self) -> set[Record]:
        """Return what the table holds."""
        if not (self.life.place / LOG).exists():
            return set()
        return {(key, number) for key, _, number, _ in self.life.rows()}

    def stop(self) -> object:
        return self._in_handle("stop", lambda sync: sync.stop())

    def notebook_dies(self) -> object:
        """Kill a notebook, maybe in the middle of its call."""
        others = {*self.life.agents, self.life.scheduler_group}
        if not (found := [one for one in self.life.processes if one not in others]):
            return False
        notebook = self.random.choice(found)
        if self.life.dask is not None:
            for task in list(self.life.dask.tasks.values()):
                self.life.dask.client_releases_keys([task.key], str(notebook))
        notebook.kill()
        return True

    # --- agents

    def agent_begins(self) -> object:
        return self.life.begin_agent() if len(self.life.agents) < MOST_AGENTS else False

    def _agent(self) -> Agent | None:
        found = [one for one in self.life.agents if not one.is_leaving]
        return self.random.choice(found) if found else None

    def agent_leaves(self) -> object:
        """Ask an agent to end: it hands over first."""
        if (agent := self._agent()) is None:
            return False
        agent.is_leaving = True
        return agent.run("leave", agent.leave)

    def agent_dies(self) -> object:
        """Kill an agent, now or in the middle of what it does with the table; another one comes after a while."""
        if (agent := self._agent()) is None:
            return False
        if self.random.random() < 0.4:
            agent.kill()
        else:
            agent.doom = self.random.randint(0, 30), agent.kill
        self._later(self.random.choice([1.0, 8.0]), self.agent_begins)
        return True

    def agent_freezes(self) -> object:
        if (agent := self._agent()) is None:
            return False
        agent.frozen_until = self.life.manual.now() + self.random.choice([2.0, 6.0, 15.0, 40.0])
        return True

    def agent_is_cut_off(self) -> object:
        """Take its network to the scheduler away; it has that to the stream and to the table."""
        if (agent := self._agent()) is None:
            return False
        agent.cut_until = self.life.manual.now() + self.random.choice([2.0, 6.0, 15.0, 40.0])
        return True

    # --- the scheduler

    def scheduler_dies(self) -> object:
        """Kill the scheduler; the next one knows nothing."""
        if self.life.dask is None:
            return False
        self.life.scheduler_group.kill()
        self._later(self.random.choice([0.5, 3.0, 20.0]), self.revive)
        return True

    def revive(self) -> None:
        """Have a scheduler."""
        if self.life.dask is None:
            self.life.begin_scheduler()

    def scheduler_freezes(self) -> object:
        self.life.scheduler_group.frozen_until = self.life.manual.now() + self.random.choice([1.0, 4.0, 15.0])
        return True

    def _cut(self) -> None:
        super()._cut()
        self._later(1.0, self.revive)
        for seconds in (1.0, 5.0):
            self._later(seconds, self.agent_begins)

    # --- the end

    def calm_down(self) -> None:
        super().calm_down()
        for agent in self.life.agents:
            agent.cut_until = 0.0
        self.revive()
        if not [one for one in self.life.agents if not one.is_leaving]:
            self.life.begin_agent()


NAMES = [
    "line",
    "line with other options",
    "wait for job",
    "stop",
    "notebook dies",
    "agent begins",
    "agent leaves",
    "agent dies",
    "agent freezes",
    "agent is cut off",
    "scheduler dies",
    "scheduler freezes",
    "cut",
    "clock step",
    "storm",
    "disk full",
    "reshard",
    "optimize",
    "delete",
]
