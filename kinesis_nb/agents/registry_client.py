"""How a part of a job, in a thread of an agent's worker, reports to the job registry and obeys it."""

from __future__ import annotations

import pickle
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from kinesis_nb.agents.protocol import REPORT, Instruction, PartReport
from kinesis_nb.errors import Fenced, TableError

if TYPE_CHECKING:
    from distributed import Worker

    from kinesis_nb.core.running import Stoppable
    from kinesis_nb.errors import KinesisError

REPORT_SECONDS = 0.25
RESPONSE_SECONDS = 5.0

_leaving = threading.Event()  # set when this process is to end: its parts then commit and end, whatever they are told


class RegistryClient:
    """The connection of one part to the job registry.

    Parameters
    ----------
    key
        The key of the part's task.

    Attributes
    ----------
    mark, children_for_others
        From the last reply, see :class:`~kinesis_nb.agents.protocol.PartInstructions`.
    """

    def __init__(self, key: str, worker: Worker) -> None:
        self._key, self._worker = key, worker
        self.mark = self.children_for_others = 0

    def report(
        self,
        status: object = None,
        reached: int = 0,
        children_for_others: int = 0,
        *,
        note: str = "",
        error: str = "",
        failure: KinesisError | None = None,
    ) -> Instruction:
        """Report, and return what to do next.

        Without a response a running part continues: only the fence in the table may stop a sync.
        """
        from distributed import Status
        from distributed.utils import sync

        if _leaving.is_set():
            return Instruction.HAND_OVER
        worker = self._worker
        if worker.status in (Status.closed, Status.failed, Status.closing):
            return Instruction.NOT_YOURS
        message = PartReport(
            self._key,
            worker.address,
            _pickled(status),
            reached,
            children_for_others,
            note,
            error,
            _pickled(failure),
        )
        try:
            reply = sync(worker.loop, REPORT.send, worker.scheduler, message, callback_timeout=RESPONSE_SECONDS)
        except Exception:  # noqa: BLE001 - whatever ails the connection to the scheduler, the rows continue
            self.pause()
            return Instruction.NO_RESPONSE
        self.mark, self.children_for_others = reply.mark, reply.children_for_others
        return reply.instruction

    def pause(self) -> None:
        """Wait until the next report is due."""
        time.sleep(REPORT_SECONDS)

    def may_start(self, note: str = "", error: str = "") -> bool:
        """Return whether the part may take the shards, or the journal, that it is to write; False when it is to end.

        A part that runs continues without a response; one that is to start waits for it. Raises as :func:`is_over`.
        """
        while (instruction := self.report(note=note, error=error)) is Instruction.NO_RESPONSE:
            pass
        return not is_over(owning_nothing(instruction))


def leave() -> None:
    """Let all parts of this process commit and end."""
    _leaving.set()


def owning_nothing(instruction: Instruction) -> Instruction:
    """Return what an instruction means to a part that owns no shards to continue with."""
    return Instruction.NOT_YOURS if instruction is Instruction.UNKNOWN_JOB else instruction


def is_over(instruction: Instruction, running: Stoppable | None = None) -> bool:
    """Do what the registry says, and return whether the part is over.

    Raises
    ------
    Reschedule
        When the part is to be handed over: that is how a task of Dask's asks to run elsewhere.
    Fenced
        When another agent runs the part.
    """
    from distributed import Reschedule

    match instruction:
        case Instruction.STOP:
            if running is not None:
                running.stop()
            return True
        case Instruction.HAND_OVER:
            if running is not None:
                with suppress(TableError):  # storage is away: the next agent reads again what could not be committed
                    running.stop()
            raise Reschedule
        case Instruction.NOT_YOURS:
            raise Fenced("another agent runs this part", hint="nothing is lost: it continues there")
        case _:
            return False


def _pickled(value: object) -> bytes:
    return b"" if value is None else pickle.dumps(value)
