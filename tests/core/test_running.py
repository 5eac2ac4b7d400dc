"""What runs in the background: the same call gives the same one back, and all end with the process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

import kinesis_nb as kn
from kinesis_nb.core import running
from kinesis_nb.core.running import Newest, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 10.0  # seconds


class Thing:
    """Something that runs, and writes down what happens to it and to others of its kind."""

    def __init__(self, name: str, told: list[str], at_start: Callable[[], object] = lambda: None) -> None:
        self.name, self.told, self.at_start = name, told, at_start
        self.is_active = self.has_trouble = False
        self.stop_fails = False

    def start(self) -> None:
        self.told.append(f"{self.name} starts")
        self.is_active = True
        try:
            self.at_start()
        except BaseException:
            self.is_active = False
            raise

    def stop(self) -> None:
        self.told.append(f"{self.name} stops")
        self.is_active = False
        if self.stop_fails:
            raise kn.TableError("rows that were read are not in the table")

    def request_stop(self) -> None:
        self.told.append(f"{self.name} is asked to stop")
        self.is_active = False

    def join(self, timeout: float) -> bool:
        self.told.append(f"{self.name} is waited for")
        assert timeout <= running.EXIT_SECONDS
        return True


class Things:
    """A registry, and how things are started there."""

    def __init__(self) -> None:
        self.registry: Registry[Thing] = Registry()
        self.told: list[str] = []

    def start(self, name: str, key: str = "key", setup: object = 1, *, fails: BaseException | None = None) -> Thing:
        def prepare() -> Callable[[], Thing]:
            if fails:
                raise fails
            return lambda: Thing(name, self.told)

        return self.registry.start(key, setup, prepare)


@pytest.fixture
def things() -> Things:
    return Things()


def test_the_same_call_gives_the_same_one(things: Things) -> None:
    """The second one is not even made, and other keys are other things."""
    first = things.start("a")
    assert things.start("b") is first
    assert things.start("c", key="other") is not first
    assert things.told == ["a starts", "c starts"]


def test_other_options_replace_the_one_that_runs(things: Things) -> None:
    """It is stopped before the other one starts, also when it could not finish what was under way."""
    first = things.start("a")
    first.stop_fails = True
    second = things.start("b", setup=2)
    assert things.told == ["a starts", "a stops", "b starts"]
    assert things.start("c", setup=2) is second


def test_one_in_trouble_is_replaced(things: Things) -> None:
    """The same line cures what was in trouble: the new one may have credentials that are good."""
    first = things.start("a")
    first.has_trouble = True
    assert things.start("b") is not first
    assert things.told == ["a starts", "a stops", "b starts"]


def test_one_that_has_ended_is_not_returned(things: Things) -> None:
    """Nothing is stopped then: it is over."""
    things.start("a").is_active = False
    things.start("b")
    assert things.told == ["a starts", "b starts"]


@pytest.mark.parametrize("fails", [kn.TableError("no such place"), KeyboardInterrupt()])
def test_what_runs_stays_when_the_other_one_cannot_be_made(things: Things, fails: BaseException) -> None:
    """A call with other options that fails before anything is made leaves the old one running."""
    first = things.start("a")
    with pytest.raises(type(fails)):
        things.start("b", setup=2, fails=fails)
    assert first.is_active
    assert things.start("c") is first


def test_one_in_trouble_stays_when_nothing_better_can_be_made(things: Things) -> None:
    """The same line, while the place is away, gives the one that keeps trying; another line says what is wrong."""
    first = things.start("a")
    first.has_trouble = True
    assert things.start("b", fails=kn.TableError("away")) is first
    with pytest.raises(kn.TableError, match="away"):
        things.start("c", setup=2, fails=kn.TableError("away"))
    assert things.told == ["a starts"]


@pytest.mark.parametrize("fails", [kn.TableError("no"), KeyboardInterrupt(), RuntimeError()])
def test_a_start_that_fails_is_forgotten(things: Things, fails: BaseException) -> None:
    """The next call makes another one."""

    def fail() -> None:
        raise fails

    with pytest.raises(type(fails)):
        things.registry.start("key", 1, lambda: lambda: Thing("a", things.told, fail))
    assert things.start("b").name == "b"


def test_a_start_that_hangs_blocks_no_other(things: Things) -> None:
    """While one place does not respond others start; a second call for that place waits, and gets the same one."""
    hangs, may_go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        assert may_go_on.wait(SOON)

    got: list[Thing] = []

    def start() -> None:
        got.append(things.registry.start("slow", 1, lambda: lambda: Thing("slow", things.told, hang)))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert hangs.wait(SOON)
    assert things.start("b", key="other").is_active
    assert got == []
    may_go_on.set()
    for thread in threads:
        thread.join(SOON)
    assert got[0] is got[1]
    assert things.told.count("slow starts") == 1


def test_all_are_asked_to_stop_before_one_is_waited_for(things: Things) -> None:
    """So the end of the process waits for the slowest of them, not for one after the other."""
    for name in "ab":
        things.start(name, key=name)
    things.registry.stop_all()
    assert sorted(things.told[2:4]) == ["a is asked to stop", "b is asked to stop"]
    assert sorted(things.told[4:]) == ["a is waited for", "b is waited for"]


def test_one_that_starts_when_the_process_ends_is_stopped(things: Things) -> None:
    """A start that hangs is known already when everything is stopped."""

    def end() -> None:
        things.registry.stop_all()

    things.registry.start("key", 1, lambda: lambda: Thing("a", things.told, end))
    assert things.told == ["a starts", "a is asked to stop", "a is waited for"]


def test_a_child_of_the_process_has_nothing_that_runs() -> None:
    """After a fork the child makes its own, also when the parent was just starting one."""
    code = (
        "import os\n"
        "from tests.core.test_running import Thing, Things\n"
        "things = Things()\n"
        "first = things.start('a')\n"
        "def fork():\n"
        "    if os.fork() == 0:\n"
        "        os._exit(things.start('c', key='k') is first or things.start('b') is first)\n"
        "    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "things.registry.start('k', 1, lambda: lambda: Thing('f', things.told, fork))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


class Named:
    """Something that the next one of its name stops; without rows, it is false."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1

    def __len__(self) -> int:
        return 0


def test_the_next_one_of_a_name_stops_the_one_before() -> None:
    """Those of other names continue; one that nobody holds is forgotten; a failed start leaves none behind."""
    newest: Newest[Named] = Newest()
    first, other = newest.replace("a", Named), newest.replace("b", Named)
    second = newest.replace("a", Named)
    assert (first.stops, second.stops, other.stops) == (1, 0, 0)
    with pytest.raises(ZeroDivisionError):
        newest.replace("a", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert second.stops == 1
    held = weakref.ref(newest.replace("c", Named))
    gc.collect()
    assert held() is None
    newest._forget()  # as in a child of the process
    newest.replace("b", Named)
    assert other.stops == 0
