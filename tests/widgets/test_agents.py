"""Forms and live displays of what agents run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client

import kinesis_nb as kn
from kinesis_nb.agents.certificates import resolve
from kinesis_nb.widgets import SourceForm, SyncForm
from kinesis_nb.widgets.job_view import JobView
from tests.agents_kill import Agents, agents, until
from tests.support.widgets import FrontEnd, shown
from tests.widgets.test_forms import button, end, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Streams

__all__ = ["end"]  # a fixture
KEYS = kn.StaticCredentials("emulator", "emulator")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with agents(tmp_path_factory.mktemp("agents")) as running:
        yield running


def tables(view: JobView) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = view._look(everything=True)["tables"]
    return found


def column(table: dict[str, Any], name: str) -> list[str]:
    return [row[table["columns"].index(name)] for row in table["rows"]]


def test_a_sync_on_agents_from_a_form(end: FrontEnd, remote: kn.Source, streams: Streams, tmp_path: Path) -> None:
    """Who has which shard, lag, rates and commits are shown per agent and per shard; its Stop button stops the job."""
    streams.create(shards=4)
    streams.put(400)
    form = SyncForm(remote)
    assert form.settle()
    fill(end, form, stream="orders", table=str(tmp_path / "table"), commit_interval=0.1)
    end.click(button(form, "Start"))
    assert form.settle()
    (view,) = form._view.children
    assert isinstance(view, JobView)
    until("all rows are committed", lambda: view._heard.status is not None and view._heard.status.rows == 400)
    until("both agents have their shards", lambda: len(tables(view)) == 2 and len(tables(view)[0]["rows"]) == 2)
    per_agent, per_shard = tables(view)
    assert column(per_agent, "agent") == ["agent-1", "agent-2"]
    assert {"parts", "shards", "rows/s", "behind", "rows", "commits"} <= {*per_agent["columns"]}
    assert sum(map(int, column(per_agent, "rows"))) == 400
    assert column(per_shard, "shard") == [f"shardId-{number:012d}" for number in range(4)]
    assert {*column(per_shard, "agent")} == {"agent-1", "agent-2"}
    assert "last error" not in per_shard["columns"]  # there is none
    assert "it is running" in shown(form)

    end.send(view, {"kind": "stop", "view": "a"})
    until("the job is over", lambda: form.sync is not None and form.sync.status().state == "stopped")
    until("it can be started again", lambda: not button(form, "Start").disabled)
    assert "stopped" in view._picture()
    assert "agent-1" in view._picture()


def test_a_scheduler_that_does_not_answer_holds_up_nothing(
    end: FrontEnd, remote: kn.Source, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view says so in two lines, keeps what it knew, and goes on when the scheduler is back."""
    streams.create(shards=2)
    streams.put(10)
    sync: Any = remote.sync("orders", tmp_path / "table", commit_interval=0.1)
    view = JobView(sync)
    until("something is known", lambda: len(tables(view)) == 2)
    error = kn.AgentError("the scheduler did not respond", hint="is it there?")

    def silent(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(sync._cluster, "ask", silent)
        until("it is noticed", lambda: view._look(everything=True)["state"] == "no response")
        began = time.monotonic()
        moment = view._look(everything=True)
        assert time.monotonic() - began < 0.5
        assert "the scheduler did not respond" in moment["trouble"]
        assert len(moment["tables"]) == 2
    until("it is back", lambda: view._look(everything=True)["state"] == "running")
    sync.stop()


def test_a_source_form_takes_a_client_of_dask(end: FrontEnd, running: Agents) -> None:
    """What the form shows is the address; while that stays, the source keeps the client."""
    address, security = resolve(running.address)
    with Client(address, security=security, set_as_default=False) as client:
        assert client.scheduler is not None
        form = SourceForm(kn.connect(agents=client, auth=KEYS).config)
        assert form.fields["agents"].value == client.scheduler.address
        assert form.config.agents is client
        assert f'agents="{client.scheduler.address}"' in form.to_code()
        fill(end, form, agents="tls://elsewhere:8786")
        assert form.config.agents == "tls://elsewhere:8786"
