"""Two agents, as they are seen in JupyterLab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.agents_kill import agents
from tests.e2e.driver import SECONDS, Notebook, labelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_sync_on_two_agents(notebook: Callable[..., Notebook], connect: str, tmp_path: Path) -> None:
    """A sync that is started in a form shows which agent has what; the same job shows itself in a cell."""
    folder = tmp_path / "agents"
    folder.mkdir()
    with agents(folder) as running:
        remote = connect.replace("kn.connect(", f'kn.connect(agents="{running.address}", ')
        book = notebook(
            [remote, "from kinesis_nb.widgets import SyncForm\nform = SyncForm(source)\nform", "form.sync"],
        )
        book.run(0, 1)
        form = book.output(1)
        labelled(form, "Stream").fill("clicks")
        labelled(form, "Table").fill(str(tmp_path / "clicks"))
        form.get_by_role("button", name="Start").click(timeout=10 * SECONDS)
        for name in ("agent-1", "agent-2"):
            form.get_by_role("cell", name=name).first.wait_for(timeout=30 * SECONDS)
        book.page.wait_for_timeout(3 * SECONDS)
        book.picture("agents-1-form", 1)
        book.run(2)
        book.output(2).get_by_role("cell", name="agent-1").first.wait_for(timeout=30 * SECONDS)
        book.picture("agents-2-cell", 2)
        form.get_by_role("button", name="Stop").click()
        form.get_by_text("stopped").first.wait_for(timeout=30 * SECONDS)
        book.output(2).locator("caption", has_text="stopped").wait_for(timeout=30 * SECONDS)
        book.picture("agents-3-stopped", 2)
