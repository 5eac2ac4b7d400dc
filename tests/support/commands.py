"""The commands of agents, each a process of its own for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

from tests.agents_kill import hang_up, until

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

SECONDS = 60.0


class Command:
    """A command of ours that runs, and what it has said so far."""

    def __init__(self, *arguments: str, settings: Mapping[str, str] | None = None) -> None:
        command, env = [sys.executable, "-m", "kinesis_nb", *arguments], {**os.environ, **(settings or {})}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self._lines += iter(self.process.stderr.readline, "")  # list += takes them one by one

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something."""
        until(f"{pattern!r} of {self.process.args!r}", lambda: re.search(pattern, "".join(self._lines)), SECONDS)
        found = re.search(pattern, "".join(self._lines))
        assert found
        return found

    def listens_on(self) -> set[str]:
        """Return the addresses that it, its nanny and its workers can be reached at."""
        own = psutil.Process(self.process.pid)
        everything = [found for one in (own, *own.children()) for found in one.net_connections("inet")]
        return {found.laddr.ip for found in everything if found.status == psutil.CONN_LISTEN}

    def stop(self) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in (*psutil.Process(self.process.pid).children(), psutil.Process(self.process.pid)):
                process.kill()
        self.process.communicate()


@contextmanager
def cluster(
    *options: str, host: str = "127.0.0.1", agents: int, settings: Mapping[str, str] | None = None
) -> Generator[tuple[str, list[Command]]]:
    """Run a scheduler, and agents with settings of their own; yield its address and all of them."""
    with ExitStack() as stack:
        commands = [Command("scheduler", "--host", host, "--port", "0", *options)]
        stack.callback(commands[0].stop)
        address = commands[0].says(r"scheduler at (\S+):")[1]
        for number in range(1, agents + 1):
            commands.append(
                Command("agent", "--scheduler", address, "--name", f"agent-{number}", *options, settings=settings)
            )
            stack.callback(commands[-1].stop)
        for command in commands[1:]:
            command.says("serves")
        stack.callback(hang_up, address)
        yield address, commands
