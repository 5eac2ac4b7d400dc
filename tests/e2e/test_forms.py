"""Forms in JupyterLab."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from kinesis_nb.emulator import Stall
from tests.e2e.driver import SECONDS, Notebook, labelled
from tests.e2e.test_tail import LOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kinesis_nb.emulator import Emulator
    from kinesis_nb.samples import SampleStreams

KEY_ID, SECRET = "AKIAE2ETESTS0MEKEY01", "Z9-typed/into+the=form-and-nowhere-else"


def test_a_source_from_the_form(
    notebook: Callable[..., Notebook], kernel: str, emulator: Emulator, samples: SampleStreams, folder: Path
) -> None:
    """The form is filled in, tested, saved and used; the secret that was typed is in no file afterwards."""
    book = notebook(
        [
            "from kinesis_nb.widgets import SourceForm\nform = SourceForm()\nform",
            "source = form.source()\nprint(source, list(source.explore()))",
            "print(form.to_code())",
            "import ipykernel; ipykernel.__version__",
        ],
        kernel,
    )
    book.run(0)
    form = book.output(0)
    button = form.get_by_role("button", name="Test connection")
    button.wait_for()
    book.picture(f"source-form-{kernel}-1-empty", 0)

    labelled(form, "Region").fill("frankfurt")
    form.get_by_text("is not the name of a region").first.wait_for()
    assert button.is_disabled()
    expect(labelled(form, "Region")).to_have_attribute("aria-invalid", "true")
    expect(labelled(form, "Region")).to_have_attribute("aria-required", "true")
    expect(labelled(form, "Region")).to_have_accessible_description(re.compile("is not the name of a region"))
    expect(labelled(form, "Authentication")).to_have_attribute("aria-invalid", "false")
    book.picture(f"source-form-{kernel}-2-wrong", 0)
    labelled(form, "Region").fill("us-east-1")

    labelled(form, "Authentication").select_option("Static Credentials")
    labelled(form, "Access key ID").fill(KEY_ID)
    labelled(form, "Secret access key").fill(SECRET)
    labelled(form, "Own endpoints, proxy or certificates").check()
    labelled(form, "Kinesis endpoint").fill(emulator.endpoint_url)
    labelled(form, "Enable exports").check()
    labelled(form, "Streams to read").fill("orders, clicks")
    labelled(form, "Streams to write").fill("results")
    labelled(form, "Save as").fill("e2e")
    button.click(timeout=10 * SECONDS)
    form.get_by_text("✓ allowed", exact=True).first.wait_for(timeout=20 * SECONDS)
    book.picture(f"source-form-{kernel}-3-tested", 0)
    form.get_by_role("button", name="IAM policy").click()
    form.get_by_text('"kinesis:ListShards"').wait_for()
    book.picture(f"source-form-{kernel}-4-policy", 0)
    form.get_by_role("button", name="Save").click()
    form.get_by_text("✓ saved").wait_for()
    form.get_by_role("button", name="Code").click()
    form.get_by_text("getpass.getpass").first.wait_for()
    book.picture(f"source-form-{kernel}-5-code", 0)

    book.run(1, 2, 3)
    assert "['clicks', 'orders', 'results']" in book.text(1)
    assert "exports_enabled=True" in book.text(2)
    assert kernel.removeprefix("ipykernel-") in book.text(3)

    saved = book.save()
    assert KEY_ID in saved  # widget state is saved, so a secret in it would be found
    assert len(saved) <= 100_000
    assert holding(folder, SECRET) == []
    assert holding(folder, KEY_ID)  # the search finds what is there


def holding(folder: Path, text: str) -> list[str]:
    """Return the files below a folder that hold a text: notebooks, checkpoints, workspaces, logs, history, all."""
    wanted = [text.encode(), text.encode("utf-16-le")]
    return [
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and any(one in file.read_bytes() for one in wanted)
    ]


def test_an_error_is_shown_under_the_form(notebook: Callable[..., Notebook]) -> None:
    """A service that is not there is two lines below the form, and the form can be used again."""
    book = notebook(
        [
            "import kinesis_nb as kn\nfrom kinesis_nb.widgets import SourceForm",
            'SourceForm(kn.connect(endpoint_url="http://127.0.0.1:9", auth=kn.StaticCredentials("k", "s")).config)',
        ]
    )
    book.run(0, 1)
    form = book.output(1)
    form.get_by_role("button", name="Test connection").click()
    form.get_by_role("alert").wait_for(timeout=60 * SECONDS)
    assert "hint:" in form.get_by_role("alert").inner_text()
    assert form.get_by_role("button", name="Test connection").is_enabled()
    book.picture("source-form-error", 1)


def test_sync_and_export_from_forms(
    notebook: Callable[..., Notebook], connect: str, samples: SampleStreams, tmp_path: Path
) -> None:
    """A sync is started, watched and stopped in its form; what is in the table goes out through the other form."""
    table, arn = tmp_path / "clicks", samples.arn("results")
    book = notebook(
        [
            connect,
            "from kinesis_nb.widgets import ExportForm, SyncForm\nsyncing = SyncForm(source)\nsyncing",
            "exporting = ExportForm(source)\nexporting",
            "print(bool(syncing.sync.verify()), len(syncing.sync) > 0)",
            "print(exporting.export.wait(timeout=60), exporting.export.status().rows == len(syncing.sync))",
        ]
    )
    book.run(0, 1, 2)
    form = book.output(1)
    labelled(form, "Stream").fill("clicks")
    labelled(form, "Table").fill(str(table))
    book.picture("sync-form-1-filled", 1)
    form.get_by_role("button", name="Start").click()
    form.get_by_text("running").first.wait_for(timeout=20 * SECONDS)
    book.page.wait_for_timeout(2 * SECONDS)
    book.picture("sync-form-2-running", 1)
    form.get_by_role("button", name="Stop").click()
    form.get_by_text("stopped").first.wait_for(timeout=20 * SECONDS)
    book.picture("sync-form-3-stopped", 1)
    book.run(3)
    assert book.text(3).split() == ["True", "True"]

    form = book.output(2)
    book.picture("export-form-1-empty", 2)
    labelled(form, "Synced table").fill(str(table))
    labelled(form, "Output stream ARN").fill(arn)
    form.get_by_role("button", name="Start").click(timeout=10 * SECONDS)
    form.get_by_role("button", name="Stop").and_(book.page.locator(":enabled")).wait_for(timeout=20 * SECONDS)
    book.run(4)
    assert book.text(4).split() == ["True", "True"]
    book.picture("export-form-2-running", 2)
    form.get_by_role("button", name="Stop").click()
    form.get_by_text("stopped").first.wait_for(timeout=20 * SECONDS)
    book.picture("export-form-3-stopped", 2)


def test_code_is_copied_without_a_clipboard(notebook: Callable[..., Notebook]) -> None:
    """A page that came by plain http has no clipboard: the selection is copied, or is there to be copied by hand."""
    policy = "import kinesis_nb as kn\nkn.demo().iam_policy(read=['orders'])"
    book = notebook(["from kinesis_nb.widgets import SourceForm\nSourceForm()", "", policy])
    book.run(0, 2)
    form = book.output(0)
    form.get_by_role("button", name="Code").click()
    form.get_by_role("button", name="Copy").wait_for()
    book.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    form.get_by_role("button", name="Copy").click()
    form.get_by_text("copied", exact=True).wait_for()
    book.page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content").click()
    book.page.keyboard.press("Control+v")
    assert book.source(1) == "import kinesis_nb as kn\n\nsource = kn.connect()"

    book.output(2).get_by_role("button", name="copy").first.click()
    book.output(2).get_by_text("copied", exact=True).wait_for()
    book.page.evaluate("() => { document.execCommand = () => false; }")
    form.get_by_role("button", name="Copy").click()
    form.get_by_text("copy it yourself").wait_for()
    assert "source = kn.connect()" in book.page.evaluate("() => getSelection().toString()")


def test_work_that_takes_long_can_be_cancelled(
    notebook: Callable[..., Notebook], emulator: Emulator, connect: str
) -> None:
    """While a server is silent the form counts the seconds, and Cancel gives it back at once."""
    emulator.on("ListStreams", Stall(60))
    book = notebook([connect, "from kinesis_nb.widgets import SourceForm\nSourceForm(source.config)"])
    book.run(0, 1)
    form = book.output(1)
    test = form.get_by_role("button", name="Test connection")
    test.click()
    form.get_by_text("2 s", exact=True).wait_for(timeout=10 * SECONDS)
    assert test.is_disabled()
    book.picture("source-form-waiting", 1)
    form.get_by_role("button", name="Cancel").click()
    form.get_by_text("cancelled: Connecting").wait_for(timeout=5 * SECONDS)
    assert test.is_enabled()
    expect(form.get_by_role("button", name="Cancel")).to_be_hidden()
    test.click()
    form.get_by_text("✓ connected").wait_for(timeout=20 * SECONDS)


FORM = "from kinesis_nb.widgets import SourceForm\nSourceForm(source.config)"
EXPLORER = 'from kinesis_nb.widgets import Explorer\nExplorer(source, "orders")'
AGAIN = "run the cell again"


def test_forms_of_a_kernel_that_is_gone(notebook: Callable[..., Notebook], connect: str) -> None:
    """They say so; what stays in the notebook is a picture of what they showed, also when it is opened again."""
    book = notebook([connect, FORM, EXPLORER, "import ipywidgets\nipywidgets.VBox([SourceForm(source.config)])"])
    book.run(0, 1, 2, 3)
    form, explorer, inner = map(book.output, (1, 2, 3))
    labelled(form, "Region").fill("eu-west-3")
    explorer.locator(".knb-lineage img").first.wait_for(timeout=20 * SECONDS)
    inner.get_by_role("button", name="Test connection").wait_for()
    book.restart()
    for area in (form, explorer, inner):
        area.get_by_text(AGAIN).wait_for(timeout=10 * SECONDS)
    assert "eu-west-3" in form.inner_text()
    assert "shardId-000000000000" in explorer.inner_text()
    assert not inner.get_by_role("button", name="Test connection").evaluate("one => one.matches(':not([inert] *)')")
    book.picture("forms-without-a-kernel")
    book.save()
    book.shut_down()
    book.open()
    book.settle()
    form.get_by_text(AGAIN).wait_for(timeout=20 * SECONDS)
    assert [text for text in LOST if text in form.inner_text() + explorer.inner_text()] == []


def test_a_form_that_was_saved_alive_has_no_kernel_later(notebook: Callable[..., Notebook], connect: str) -> None:
    """A reload keeps it alive; with the kernel gone the form that was saved says so, and cannot be used."""
    book = notebook([connect, FORM])
    book.run(0, 1)
    book.output(1).get_by_role("button", name="Test connection").wait_for()
    assert AGAIN in book.save()  # for whoever shows no widgets
    book.page.reload()
    book.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60 * SECONDS)
    form = book.output(1)
    labelled(form, "Region").fill("frankfurt")
    form.get_by_text("is not the name of a region").first.wait_for()
    book.page.goto("about:blank")
    book.end_kernels()
    book.open()
    book.settle()
    form.get_by_text(AGAIN).wait_for(timeout=30 * SECONDS)
    book.picture("form-saved-alive", 1)
    assert [text for text in LOST if text in form.inner_text()] == []
    assert form.get_by_role("button", name="Test connection").evaluate("one => one.matches('[inert] *')")
