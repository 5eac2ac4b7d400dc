"""What handles, agents and the job registry say to each other, and the runner that stands in for the local one."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import kinesis_nb as kn
from kinesis_nb.agents import protocol
from kinesis_nb.agents.protocol import (
    DRAIN,
    HOLD,
    JOBS,
    JOIN,
    KNOWS,
    LEAVE,
    MARK,
    REGISTER,
    REPORT,
    STOP,
    WITHDRAW,
    AgentInfo,
    Instruction,
    JobInfo,
    JobRef,
    JobSnapshot,
    NewJob,
    PartInstructions,
    PartReport,
    PartSnapshot,
    RegisteredJob,
    RegistryCall,
    Roster,
    Withdrawal,
)
from kinesis_nb.agents.runner import AgentRunner
from kinesis_nb.agents.states import JobState
from kinesis_nb.runner import LocalRunner

if TYPE_CHECKING:
    from pathlib import Path

INFO = JobInfo("sync", "orders", "/data/orders")
PART = PartSnapshot("job-1-run-12", "tls://h:1", "agent-1", b"\x80", 3, "", "no", b"\x80", "Sun 03:00")
JOB = JobSnapshot("job-1", INFO, "setup", "run", JobState.RUNNING, False, (PART,), ("submitted, 1 parts",))
NEW = NewJob("job-1", INFO, b"\x00spec", "setup", "run", (PART.key,), is_resubmission=True)
CONVERSATIONS: list[tuple[RegistryCall[Any, Any], Any, Any]] = [
    (REGISTER, NEW, RegisteredJob(JOB, is_new=True)),
    (HOLD, JobRef("job-1", "run"), True),
    (WITHDRAW, Withdrawal("job-1", "run", "why"), None),
    (STOP, JobRef("job-1"), None),
    (MARK, JobRef("job-1"), 7),
    (JOBS, "", {"job-1": JOB}),
    (REPORT, PartReport(PART.key, "tls://h:1", b"\x80", 1, 2, "note"), PartInstructions(Instruction.HAND_OVER, 1, 2)),
    (JOIN, AgentInfo("agent-1", "client", ("Sun 03:00-04:00",)), Roster({"a": ("x",)}, {"job-1": b"\xff"}, ("old",))),
    (LEAVE, "agent-1", None),
    (KNOWS, "tls://h:1", True),
    (DRAIN, "tls://h:1", 2),
]


class Scheduler:
    """A connection to a scheduler with one handler."""

    def __init__(self, call: RegistryCall[Any, Any], handler: Any) -> None:
        setattr(self, call.handler, handler)


@pytest.mark.parametrize(("call", "request_", "response"), CONVERSATIONS, ids=lambda one: getattr(one, "name", ""))
def test_what_travels_arrives_as_it_was(call: RegistryCall[Any, Any], request_: Any, response: Any) -> None:
    """Each request reaches its handler, and each response the caller, as equal values of the same types; no more."""
    heard: list[Any] = []

    def handle(request: Any) -> Any:
        heard.append(request)
        return response

    async def handle_later(request: Any) -> Any:
        return handle(request)

    for handler in (handle, handle_later):
        found = asyncio.run(call.send(Scheduler(call, call.served_by(handler)), request_))
        assert (found, type(found)) == (response, type(response))
    assert heard == [request_] * 2
    assert PART.number == 12


def test_every_call_and_message_is_frozen_and_tried() -> None:
    """No message can change on its way, and none is left out above."""
    messages = [kind for kind in vars(protocol).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    assert all(kind.__struct_config__.frozen for kind in messages)
    calls = [call for call in vars(protocol).values() if isinstance(call, RegistryCall)]
    assert {call.name for call in calls} == {call.name for call, _, _ in CONVERSATIONS}


@pytest.mark.parametrize("response", [b"\xc0", msgspec.msgpack.encode({"instruction": "fly"}), b""])
def test_a_registry_of_another_version(response: bytes) -> None:
    """A response that is not understood is an error of ours in two lines, which says what to do."""

    async def handler(message: bytes) -> bytes:
        assert message
        return response

    with pytest.raises(kn.AgentError, match="do not understand each other") as raised:
        asyncio.run(REPORT.send(Scheduler(REPORT, handler), PartReport("job-1-run-0", "tls://h:1")))
    assert "same version" in raised.value.hint


# --- runners


def test_both_runners_have_the_same_methods() -> None:
    """A source with agents calls its runner exactly as one without."""

    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(one).parameters) for name, one in found if not name.startswith("_")}

    assert methods(AgentRunner) == methods(LocalRunner) != {}


def test_agents_refuse_an_end(tmp_path: Path) -> None:
    """A sync with end= is refused in two lines before the agents or the stream are asked for anything."""
    source = kn.connect(region="us-east-1", agents="tcp://127.0.0.1:9")  # where nobody listens
    with pytest.raises(kn.ConfigError, match="does not accept end=") as raised:
        source.sync("orders", tmp_path / "table", end="now")
    assert "leave end= out" in raised.value.hint
    assert str(raised.value).count("\n") == 1
    assert not (tmp_path / "table").exists()


def test_a_source_without_agents_has_no_jobs() -> None:
    """What runs in this process ends with it, so there is nothing to list; the error says how to get agents."""
    with pytest.raises(kn.ConfigError, match="has no agents") as raised:
        kn.connect(region="us-east-1").jobs()
    assert "agents=" in raised.value.hint
