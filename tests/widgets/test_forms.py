"""Forms: what they take, what they give, what they say, and that they keep no secret."""

from __future__ import annotations

import getpass
import inspect
import json
import logging
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ipywidgets as W  # noqa: N812
import pytest

import kinesis_nb as kn
from kinesis_nb.access.config import Proxy, SourceConfig
from kinesis_nb.emulator import Emulator, ErrorReply, Stall
from kinesis_nb.widgets import SourceForm
from kinesis_nb.widgets.base import error_html
from kinesis_nb.widgets.code_view import CodeView
from kinesis_nb.widgets.secret_field import SecretField
from kinesis_nb.widgets.ui_thread import ROUND_SECONDS, UiThread
from tests.conftest import Streams
from tests.support.aws import Gate
from tests.support.widgets import FrontEnd, front_end, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "CANARYform/k3y+0123456789"
ROLE = "arn:aws:iam::123456789012:role/reader"


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontEnd]:
    with front_end(monkeypatch) as end:
        yield end


def fill(end: FrontEnd, form: Any, /, **values: Any) -> None:
    """Fill in fields, in this order."""
    for name, value in values.items():
        control = form.fields[name].control
        if isinstance(control, SecretField):
            end.type_secret(control, value)
        elif isinstance(control, W.Dropdown):
            labels = [one if isinstance(one, str) else one[0] for one in control.options]
            end.set(control, index=labels.index(value))
        else:
            end.set(control, value=value)


def button(form: Any, label: str) -> W.Button:
    found: list[W.Button] = [one for one in buttons(form) if one.description == label]
    assert len(found) == 1, label
    return found[0]


def buttons(widget: W.Widget) -> list[W.Button]:
    if isinstance(widget, W.Button):
        return [widget]
    return [one for child in getattr(widget, "children", ()) for one in buttons(child)]


def everything_saved(end: FrontEnd) -> str:
    """Return all that a notebook keeps of widgets, and every message that the kernel sent."""
    saved = json.dumps(W.Widget.get_manager_state(), default=repr)
    sent = repr([{**message, "buffers": [bytes(one) for one in message["buffers"] or ()]} for message in end.messages])
    assert "IPY_MODEL_" in saved
    return saved + sent


# --- the source form ---


def test_the_form_has_every_option_of_connect(end: FrontEnd) -> None:
    """Whatever connect() takes can be said in the form; what belongs together is several fields."""
    several = {
        "auth": {"auth", "access_key_id", "secret_access_key", "session_token", "profile"},
        "sts_role": {"assumes_role", "role_arn", "session_name", "duration", "external_id"},
        "verify": {"verify", "ca_bundle"},
    }
    own = {"connection", "agents", "networking", "read", "write", "name"}  # steps, and what connect() is not given
    options = set(inspect.signature(kn.connect).parameters) - {"name"}
    expected = own.union(*(several.get(option, {option}) for option in options))
    assert set(SourceForm().fields) == expected


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"region": " eu-central-1 "}, {"region": "eu-central-1"}),
    ({"auth": "Profile", "profile": "dev"}, {"auth": kn.Profile("dev")}),
    (
        {"auth": "Static Credentials", "access_key_id": "AKIATEST", "secret_access_key": CANARY},
        {"auth": kn.StaticCredentials("AKIATEST", CANARY)},
    ),
    (
        {"auth": "Static Credentials", "access_key_id": "A'\"K", "secret_access_key": "a", "session_token": "b"},
        {"auth": kn.StaticCredentials("A'\"K", "a", "b")},
    ),
    (
        {"assumes_role": True, "role_arn": ROLE, "session_name": "ada"},
        {"sts_role": kn.StsRole(ROLE, "ada")},
    ),
    (
        {"assumes_role": True, "role_arn": ROLE, "session_name": "ada", "duration": 3600, "external_id": "x:1"},
        {"sts_role": kn.StsRole(ROLE, "ada", 3600, "x:1")},
    ),
    (
        {"networking": True, "endpoint_url": "https://vpce-1.kinesis", "sts_endpoint_url": "https://sts.internal:8443"},
        {"endpoint_url": "https://vpce-1.kinesis", "sts_endpoint_url": "https://sts.internal:8443"},
    ),
    (
        {"networking": True, "allow_http": True, "endpoint_url": "http://10.0.0.1:4566"},
        {"allow_http": True, "endpoint_url": "http://10.0.0.1:4566"},
    ),
    ({"networking": True, "proxy": "http://p:8080"}, {"proxy": "http://p:8080"}),
    ({"networking": True, "proxy": "http://a'da:p%40ss@p:80"}, {"proxy": "http://a'da:p%40ss@p:80"}),
    ({"networking": True, "verify": False}, {"verify": False}),
    (
        {"networking": True, "use_fips_endpoint": "Yes", "use_dualstack_endpoint": "No"},
        {"use_fips_endpoint": True, "use_dualstack_endpoint": False},
    ),
    ({"exports_enabled": True}, {"exports_enabled": True}),
]


@pytest.mark.parametrize(("typed", "options"), SETTINGS)
def test_what_is_filled_in_is_what_connect_would_take(
    end: FrontEnd, monkeypatch: pytest.MonkeyPatch, typed: dict[str, Any], options: dict[str, Any]
) -> None:
    """The source of a form equals the one of connect(), and so does the one that its code makes."""
    form = SourceForm()
    fill(end, form, **typed)
    expected = kn.connect(**options).config
    assert form.problem == ""
    assert form.config == form.source().config == expected
    code = form.to_code()
    answers = {"Secret access key: ": typed.get("secret_access_key"), "Session token: ": typed.get("session_token")}
    answers["Proxy password: "] = "p%40ss"
    monkeypatch.setattr(getpass, "getpass", answers.__getitem__)
    made: dict[str, Any] = {}
    exec(code, made)
    assert made["source"].config == expected
    for secret in (CANARY, "p%40ss", "'b'", '"b"'):
        assert secret not in code


@pytest.mark.parametrize("options", [options for _, options in SETTINGS])
def test_a_form_shows_the_settings_it_is_given(end: FrontEnd, options: dict[str, Any]) -> None:
    """A form of a source gives that source again."""
    config = kn.connect(**options).config
    assert SourceForm(config).config == config


def test_a_ca_bundle_is_a_file_of_certificates(end: FrontEnd, tmp_path: Path) -> None:
    """The path is looked at as it is typed."""
    form = SourceForm()
    fill(end, form, networking=True, ca_bundle=str(tmp_path / "none.pem"))
    assert "is not a CA bundle" in form.problem
    import certifi

    fill(end, form, ca_bundle=certifi.where())
    assert form.config.verify == certifi.where()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"region": "frankfurt"}, "'frankfurt' is not the name of a region"),
    ({"auth": "Static Credentials", "access_key_id": "AKIAé"}, "this is not a valid access key id"),
    ({"auth": "Static Credentials", "access_key_id": "A", "secret_access_key": "ab "}, "has a space, a line break"),
    ({"assumes_role": True, "role_arn": "arn:aws:iam::1:role/x"}, "'arn:aws:iam::1:role/x' is not the ARN of a role"),
    ({"assumes_role": True, "role_arn": ROLE, "session_name": "a b"}, "'a b' cannot name a session"),
    ({"assumes_role": True, "role_arn": ROLE, "session_name": "ab", "duration": 60}, "60 is not how long a role"),
    (
        {"assumes_role": True, "role_arn": ROLE, "session_name": "ab", "external_id": "?"},
        "'?' is not a valid external id",
    ),
    ({"networking": True, "endpoint_url": "kinesis"}, "endpoint_url is not the address of a server"),
    ({"networking": True, "endpoint_url": "http://10.0.0.1"}, "is not encrypted"),
    ({"networking": True, "sts_endpoint_url": "https://a:b@sts"}, "must not contain a user or a password"),
    ({"networking": True, "proxy": "proxy:8080"}, "proxy is not the address of a server"),
    ({"read": "orders, no/stream"}, "'no/stream' is not the name of a stream"),
    ({"read": "arn:aws:kinesis:eu-west-1:123456789012:stream/x"}, "is in eu-west-1, the source in us-east-1"),
    ({"exports_enabled": True, "write": "<b>"}, "'<b>' is not the name of a stream"),
    ({"name": "../prod"}, "'../prod' cannot name a source"),
]


@pytest.mark.parametrize(("typed", "message"), WRONG)
def test_a_wrong_value_is_marked_beside_its_field(end: FrontEnd, typed: dict[str, Any], message: str) -> None:
    """As soon as it is typed: the mark, its hint, why each button is disabled; and no source comes out."""
    form = SourceForm()
    fill(end, form, **typed)
    *_, name = typed
    marked = [field for field in form.fields.values() if "✗" in shown(field)]
    assert marked == [form.fields[name]]
    text = shown(form.fields[name])
    assert message in text.replace("&#x27;", "'").replace("&lt;", "<").replace("&gt;", ">")
    assert "knb-quiet" in text  # the hint
    assert "<b>" not in text
    assert message in form.problem
    uses = {"read": {"Test connection", "IAM policy"}, "name": {"Save"}}
    uses["write"] = uses["read"]
    blocked = uses.get(name, {one.description for one in buttons(form)})
    assert {one.description for one in buttons(form) if message in (one.tooltip or "")} == blocked
    assert all(one.disabled for one in buttons(form) if one.description in blocked)
    free = {"Test connection", "Code"} - blocked
    assert not any(one.disabled for one in buttons(form) if one.description in free)
    if name in uses:
        assert form.to_code()
        return
    with pytest.raises(kn.ConfigError):
        form.source()
    with pytest.raises(kn.ConfigError):
        form.to_code()


def test_what_is_missing_is_named_by_the_buttons(end: FrontEnd) -> None:
    """A field that must be filled in says so; the first one that is missing is the reason."""
    form = SourceForm()
    assert form.problem == ""
    fill(end, form, assumes_role=True)
    assert form.problem == "Role ARN is missing"
    assert "required" in shown(form.fields["role_arn"])
    assert "Test connection, IAM policy, Save, Code: Role ARN is missing" in shown(form)
    end.click(button(form, "Test connection"))  # a browser would not; a disabled button does nothing anyhow
    assert form.settle()
    assert "knb-error" not in shown(form)
    fill(end, form, assumes_role=False)
    assert form.problem == ""
    assert not button(form, "Test connection").disabled
    assert "IAM policy: name the streams" in shown(form)
    assert "Save: give the source a name" in shown(form)


def test_aws_instance_is_offered_through_an_agent_only(end: FrontEnd) -> None:
    """As the connector has it; going back to a direct connection takes the choice back."""
    form = SourceForm()
    assert "AWS Instance" not in form.fields["auth"].control.options
    fill(end, form, connection="Agent")
    assert "AWS Instance" in form.fields["auth"].control.options
    fill(end, form, auth="AWS Instance", connection="Direct connection")
    assert "AWS Instance" not in form.fields["auth"].control.options
    assert form.config == SourceConfig()


def test_a_connection_through_agents(end: FrontEnd) -> None:
    """The address is checked as connect() checks it."""
    form = SourceForm()
    fill(end, form, connection="Agent")
    assert form.problem == "Agent address is missing"
    fill(end, form, agents="nonsense")
    assert "agents= is not the address of a scheduler" in shown(form.fields["agents"])
    fill(end, form, agents="tls://scheduler:8786", auth="AWS Instance")
    expected = kn.connect(agents="tls://scheduler:8786", auth=kn.AwsInstance()).config
    assert form.config == SourceForm(expected).config == expected
    made: dict[str, Any] = {}
    exec(form.to_code(), made)
    assert made["source"].config == expected


def test_hidden_fields_do_not_count(end: FrontEnd) -> None:
    """What is wrong in a part that is not shown neither disables a button nor reaches the source."""
    form = SourceForm()
    fill(end, form, networking=True, endpoint_url="nonsense")
    assert form.problem
    fill(end, form, networking=False)
    assert form.problem == ""
    assert form.config == SourceConfig()


def test_an_unknown_option_is_refused_with_advice(end: FrontEnd) -> None:
    """As everywhere."""
    with pytest.raises(kn.UnknownOption, match="no option 'region'"):
        SourceForm(region="eu-west-1")  # type: ignore[call-arg]


@pytest.fixture
def streams(emulator: Emulator) -> Streams:
    streams = Streams(emulator)
    streams.create()
    streams.create("results")
    return streams


def local_form(end: FrontEnd, url: str, **more: Any) -> SourceForm:
    form = SourceForm(SourceConfig(endpoint_url=url, auth=kn.StaticCredentials("emulator", CANARY)))
    fill(end, form, **more)
    return form


def test_test_connection_without_streams_lists_them(end: FrontEnd, streams: Streams) -> None:
    """The shortest proof that it works: what is there."""
    form = local_form(end, streams.emulator.endpoint_url)
    end.click(button(form, "Test connection"))
    assert form.settle()
    assert "✓ connected: 2 streams in us-east-1: orders, results" in shown(form)


def test_test_connection_shows_what_is_allowed(end: FrontEnd, streams: Streams) -> None:
    """check() for the streams that are named, with the policy that would fix what is denied."""
    with Gate(streams.emulator.endpoint_url, {"ListShards", "DescribeStream", "DescribeStreamSummary"}).open() as url:
        form = local_form(end, url, read="orders", exports_enabled=True, write="results")
        end.click(button(form, "Test connection"))
        assert form.settle()
    text = shown(form)
    assert "✗ not everything is allowed" in text
    assert "✗ denied" in text
    assert "&quot;kinesis:GetShardIterator&quot;" in text


def test_the_policy_of_the_chosen_streams(end: FrontEnd, streams: Streams) -> None:
    """Reading and writing apart, with a button that copies it."""
    form = local_form(end, streams.emulator.endpoint_url, read="orders", exports_enabled=True, write="results")
    end.click(button(form, "IAM policy"))
    assert form.settle()
    text = shown(form)
    assert "stream/orders" in text
    assert "kinesis:PutRecords" in text
    assert ">copy</button>" in text


def test_an_error_is_two_lines_below_the_form(end: FrontEnd, streams: Streams) -> None:
    """What happened, and the hint; the form can be used again."""
    streams.emulator.on("ListStreams", ErrorReply("InvalidSignatureException"))
    form = local_form(end, streams.emulator.endpoint_url)
    end.click(button(form, "Test connection"))
    assert form.settle()
    text = shown(form)
    assert "<b>CredentialsError:</b> " in text
    assert text.count("<br>hint: ") == 1
    assert not button(form, "Test connection").disabled
    end.click(button(form, "Test connection"))
    assert form.settle()
    assert "knb-error" not in shown(form)


def test_listing_that_is_not_permitted_is_no_failure(end: FrontEnd, streams: Streams) -> None:
    """A reader needs no ListStreams: the form says how to go on."""
    with Gate(streams.emulator.endpoint_url, set()).open() as url:
        form = local_form(end, url)
        end.click(button(form, "Test connection"))
        assert form.settle()
    assert "name the streams to read" in shown(form)
    assert "knb-error" not in shown(form)


def test_a_click_returns_while_the_service_is_silent(end: FrontEnd, streams: Streams) -> None:
    """The kernel is not held up; meanwhile the form says what goes on, and no button can be clicked twice."""
    stalled = Stall(60)
    streams.emulator.on("ListStreams", stalled)
    form = local_form(end, streams.emulator.endpoint_url)
    started = time.monotonic()
    end.click(button(form, "Test connection"))
    assert time.monotonic() - started < 5
    assert "Connecting …" in shown(form)
    assert all(one.disabled for one in buttons(form))
    assert not form.settle(0)


def cancel(end: FrontEnd, form: Any) -> None:
    """Cancel what is under way, as the page does."""
    end.send(form._page, {"kind": "cancel", "number": form._page.busy})


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_cancelled_is_not_waited_for(end: FrontEnd, fails: bool) -> None:  # noqa: FBT001
    """The form can be used at once; what comes of the work later is not shown, nor what it failed with."""
    form, gate, found, late = SourceForm(), threading.Event(), list[str](), list[str | None]()

    def work() -> str:
        assert gate.wait(20)
        if fails:
            raise kn.ConfigError("too late")
        return "something"

    form.do("Working …", work, found.append, late.append)
    assert form._page.busy
    assert button(form, "Code").disabled
    end.send(form._page, {"kind": "cancel", "number": form._page.busy + 1})  # a click on what is over by now
    assert button(form, "Code").disabled
    cancel(end, form)
    assert form._page.busy == 0
    assert not button(form, "Code").disabled
    assert "cancelled: Working; what comes of it is not shown" in shown(form)
    form.do("Working …", lambda: "something else", found.append)
    while not found:
        form.settle(0.1)
    gate.set()
    assert form.settle()
    assert (found, late) == (["something else"], [None if fails else "something"])
    assert "knb-error" not in shown(form)


def test_the_next_work_is_not_ended_by_the_one_before(end: FrontEnd) -> None:
    """What was cancelled comes back while something else is under way, which stays so."""
    form, first, second, found = SourceForm(), threading.Event(), threading.Event(), list[bool]()
    form.do("First …", lambda: first.wait(20), found.append)
    cancel(end, form)
    form.do("Second …", lambda: second.wait(20), found.append)
    first.set()
    assert not form.settle(0.3)
    assert "Second …" in shown(form)
    assert button(form, "Code").disabled
    second.set()
    assert form.settle()
    assert found == [True]
    assert not button(form, "Code").disabled


def test_where_no_kernel_is_a_picture_stands_for_the_form(end: FrontEnd) -> None:
    """Beside the widget: what it was set to, how to get it back, and nothing that is secret."""
    auth = kn.StaticCredentials("AKIATEST", CANARY, CANARY)
    form = SourceForm(SourceConfig(region="eu-west-3", auth=auth, proxy=Proxy.parse(f"http://ada:{CANARY[:6]}@p:80")))
    bundle = form._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    picture = str(bundle["text/html"])
    assert "SourceForm · run the cell again" in picture
    assert "eu-west-3" in picture
    assert "AKIATEST" in picture
    assert "<td>set</td>" in picture.replace(' style="text-align:left;white-space:nowrap"', "")
    assert CANARY[:6] not in str(bundle)


def test_save_keeps_the_settings_and_no_secret(
    end: FrontEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: Streams
) -> None:
    """The name is there afterwards, the secret is in no file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    form = local_form(end, streams.emulator.endpoint_url, name="prod")
    end.click(button(form, "Save"))
    assert form.settle()
    assert "✓ saved" in shown(form)
    assert kn.sources() == ["prod"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(CANARY.encode() in path.read_bytes() for path in files)


def test_code_is_shown_to_be_copied(end: FrontEnd) -> None:
    """The cell that replaces the form; it goes when something else is shown."""
    form = SourceForm()
    end.click(button(form, "Code"))
    (view,) = [child for child in form.children if isinstance(child, CodeView)]
    assert "source = kn.connect()" in view.code
    form.show("something else")
    assert view not in form.children


def test_code_that_is_shown_follows_the_fields(end: FrontEnd) -> None:
    """It changes with them, and there is none while a field is wrong; a name to save it as makes no difference."""
    form = SourceForm()
    end.click(button(form, "Code"))
    (view,) = [child for child in form.children if isinstance(child, CodeView)]
    fill(end, form, region="eu-west-1", name="../no")
    assert 'kn.connect(region="eu-west-1")' in view.code
    fill(end, form, region="frankfurt")
    assert view.code == ""
    fill(end, form, region="eu-west-3")
    assert 'kn.connect(region="eu-west-3")' in view.code
    form.show("")
    fill(end, form, region="eu-west-2")
    assert view not in form.children


def test_an_error_goes_when_a_field_changes(end: FrontEnd, streams: Streams) -> None:
    """It is of the fields as they were, and so are a policy, a report and what was said of them."""
    streams.emulator.on("ListStreams", ErrorReply("InvalidSignatureException"))
    form = local_form(end, streams.emulator.endpoint_url)
    end.click(button(form, "Test connection"))
    assert form.settle()
    assert "knb-error" in shown(form)
    fill(end, form, access_key_id="another")
    assert "knb-error" not in shown(form)
    fill(end, form, read="orders")
    end.click(button(form, "IAM policy"))
    assert form.settle()
    assert "stream/orders" in shown(form)
    fill(end, form, name="prod")
    assert "stream/orders" in shown(form)
    fill(end, form, read="clicks")
    assert "stream/orders" not in shown(form)
    fill(end, form, read="")
    end.click(button(form, "Test connection"))
    assert form.settle()
    assert "✓ connected" in shown(form)
    fill(end, form, region="eu-west-1")
    assert "✓ connected" not in shown(form)


# --- secrets ---


def test_a_secret_is_kept_by_the_kernel_alone(
    end: FrontEnd, streams: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in widget state, in no message of the kernel, no repr, no log at DEBUG, no code, no error."""
    form = SourceForm()
    with caplog.at_level(logging.DEBUG):
        fill(end, form, auth="Static Credentials", access_key_id="AKIATEST", secret_access_key=CANARY)
        fill(end, form, session_token=CANARY, networking=True, proxy=f"http://ada:{CANARY.replace('/', '%2F')}@p:1")
        fill(end, form, proxy=f"nonsense {CANARY}")
        assert form.problem
        fill(end, form, proxy="http://127.0.0.1:9", endpoint_url=streams.emulator.endpoint_url)
        end.click(button(form, "Code"))
        assert form.settle()
    assert form.source().config.auth == kn.StaticCredentials("AKIATEST", CANARY, CANARY)
    assert form.fields["secret_access_key"].control.secret.reveal() == CANARY
    everything = everything_saved(end) + repr(form) + repr(form.fields) + repr(vars(form)) + shown(form) + caplog.text
    everything += repr([field.control for field in form.fields.values()])
    everything += repr([field.control.trait_values() for field in form.fields.values()])
    assert "AKIATEST" in everything
    assert "CANARYform" not in everything


def test_the_search_would_find_what_is_in_the_state(end: FrontEnd) -> None:
    """Typed into an ordinary field it is found, or the test above would prove nothing."""
    fill(end, SourceForm(), name="CANARYform")
    saved = json.dumps(W.Widget.get_manager_state(), default=repr)
    assert "CANARYform" in saved


def test_the_kernel_confirms_what_it_has(end: FrontEnd) -> None:
    """The box in the browser empties itself at this answer, which does not hold the secret."""
    field = SecretField(description="Key")
    end.send(field, {"kind": "secret", "view": "b", "number": 7}, CANARY.encode())
    assert field.secret == kn.Secret(CANARY)
    answers = [one["data"]["content"] for one in end.messages if one["data"].get("method") == "custom"]
    assert answers == [{"kind": "kept", "view": "b", "number": 7}]
    assert field.is_set
    end.send(field, {"kind": "forget"})
    assert field.secret is None
    assert not field.is_set


@pytest.mark.parametrize("content", [{}, {"kind": "secret"}, {"kind": "secret", "view": 1, "number": 1}, {"kind": 3}])
def test_a_strange_message_changes_nothing(end: FrontEnd, content: dict[str, Any]) -> None:
    """Nor does a text that is too long to be a key."""
    field = SecretField(secret=kn.Secret("old"))
    end.send(field, content)
    end.send(field, {"kind": "secret", "view": 1, "number": 1}, b"x" * 100_000)
    assert field.secret == kn.Secret("old")


# --- what all widgets share ---


def test_changes_come_at_most_ten_times_a_second() -> None:
    """However fast the news comes, it is shown in rounds."""
    ui = UiThread("tests ui", lambda error: pytest.fail(repr(error)))
    rounds: list[float] = []

    def draw() -> bool:
        rounds.append(time.monotonic())
        return len(rounds) < 4

    ui.animate(draw, seconds=0)
    ended = threading.Event()
    ui.run(lambda: None, lambda _none: ended.set())
    assert ended.wait(5)
    while len(rounds) < 4:
        assert ui.settle(5)
        ui.post(lambda: None)
    assert all(later - sooner >= ROUND_SECONDS * 0.9 for sooner, later in pairwise(rounds))


def test_a_failure_while_showing_is_shown_and_the_thread_goes_on() -> None:
    """An error of the work, or of showing what it found."""
    failures: list[BaseException] = []
    found: list[int] = []
    ui = UiThread("tests ui", failures.append)
    ui.run(lambda: 1 // 0, found.append)
    ui.post(lambda: found.append(1 // 0))
    ui.run(lambda: 7, found.append)
    assert ui.settle(5)
    assert [type(one) for one in failures] == [ZeroDivisionError] * 2
    assert found == [7]


def test_a_bug_keeps_its_traceback_and_nothing_becomes_markup() -> None:
    """Two lines for an error of ours; what it quotes is text."""
    ours = error_html(kn.ConfigError("<script>alert(1)</script>\x1b[31m", hint="<b>"))
    assert "<script>" not in ours
    assert "\x1b" not in ours
    assert "traceback" not in ours
    assert "<summary>traceback</summary>" in error_html(ZeroDivisionError("x"))


_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ipywidgets":
            raise ModuleNotFoundError("No module named 'ipywidgets'", name="ipywidgets")
sys.meta_path.insert(0, Missing())
import kinesis_nb as kn
from kinesis_nb import widgets
for name in widgets.__all__:
    print(getattr(widgets, name)())
try:
    widgets.SourceForm().source()
except kn.ConfigError as error:
    print("raises", error)
"""


def test_without_ipywidgets_there_is_a_text_with_one_hint() -> None:
    """Each widget says what is missing and what to call instead; using it is an error with the same hint."""
    run = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 14, run.stdout
    for said, hint in zip(lines[::2], lines[1::2], strict=True):
        assert "needs ipywidgets, which this kernel does not have" in said
        assert hint.startswith("hint: pip install ipywidgets and restart the kernel; without it: ")
