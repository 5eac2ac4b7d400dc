"""Setting up a source step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets as W  # noqa: N812 - as in base

from kinesis_nb.access.config import Proxy, SourceConfig
from kinesis_nb.access.credentials import AwsInstance, Profile, StaticCredentials, StsRole, as_secret
from kinesis_nb.access.saved import check_name, save
from kinesis_nb.connection import connect
from kinesis_nb.core.arguments import hinted
from kinesis_nb.errors import AccessDenied, ConfigError
from kinesis_nb.widgets.base import Action, Field, Form, check_stream, heading
from kinesis_nb.widgets.code import Arguments, address, source_code
from kinesis_nb.widgets.secret_field import SecretField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kinesis_nb.access.credentials import Secret
    from kinesis_nb.access.permissions import IamPolicy, PermissionReport
    from kinesis_nb.source import Source
    from kinesis_nb.widgets.base import Check

# proposals; any other may be written
_REGIONS = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "ca-west-1", "mx-central-1", "sa-east-1"),
    *("eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3"),
    *("af-south-1", "il-central-1", "me-central-1", "me-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1"),
    *("ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2"),
    *("ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7"),
    *("cn-north-1", "cn-northwest-1", "us-gov-east-1", "us-gov-west-1"),
)
_DIRECT, _AGENT = "Direct connection", "Agent"
_CHAIN, _STATIC, _PROFILE, _INSTANCE = "Default credential chain", "Static Credentials", "Profile", "AWS Instance"
_NETWORKING = (
    *("endpoint_url", "sts_endpoint_url", "allow_http", "proxy", "ca_bundle", "verify"),
    *("use_fips_endpoint", "use_dualstack_endpoint"),
)
_CHOICES = (("As the AWS configuration says", ""), ("Yes", True), ("No", False))  # a Dropdown shows None as nothing
_SOME_ROLE = StsRole("arn:aws:iam::123456789012:role/some", "some")  # the other fields of the one that is checked
_SHOWN_STREAMS = 20
_STREAMS, _NAME = ("read", "write"), ("name",)  # fields that are no settings of the source


class SourceForm(Form):
    """Set up a source: New source, Kinesis, and the connector's steps.

    Fields are checked as you type, with the checks of :func:`kinesis_nb.connect`. "Test connection" asks AWS what is
    allowed; "Save" keeps the settings under a name. Secrets are kept by the kernel alone.

    Parameters
    ----------
    config
        What the form shows first; the settings of a new source by default.
    on_use
        Is called with the source by a button "Use this source", which there is only then.

    Examples
    --------
    >>> form = SourceForm()
    >>> form.fields["region"].control.value = "eu-central-1"
    >>> form.source()
    <Source eu-central-1, default credentials>
    >>> print(form.to_code())
    import kinesis_nb as kn
    <BLANKLINE>
    source = kn.connect(region="eu-central-1")
    <BLANKLINE>
    """

    @hinted
    def __init__(self, config: SourceConfig | None = None, on_use: Callable[[Source], object] | None = None) -> None:
        config = config or SourceConfig()
        self._on_use, self._agents = on_use, config.agents
        self._source: Source | None = None
        self.fields = fields = _fields(config)
        fields["endpoint_url"] = _endpoint("Kinesis endpoint", "endpoint_url", config, self._allows_http)
        fields["sts_endpoint_url"] = _endpoint("STS endpoint", "sts_endpoint_url", config, self._allows_http)
        fields["read"] = Field("Streams to read", _text("orders, clicks"), self._streams)
        fields["write"] = Field("Streams to write", _text("results"), self._streams)
        super().__init__(fields, self._content(), self._buttons(), "source form")

    def _content(self) -> list[W.Widget]:
        show = self.fields.__getitem__
        return [
            heading("New source: Kinesis", 3),
            heading("Connection"),
            *map(show, ("connection", "agents")),
            heading("Region and authentication"),
            *map(show, ("region", "auth", "access_key_id", "secret_access_key", "session_token", "profile")),
            heading("STS role"),
            *map(show, ("assumes_role", "role_arn", "session_name", "duration", "external_id")),
            heading("Networking"),
            *map(show, ("networking", *_NETWORKING)),
            heading("Exports"),
            show("exports_enabled"),
            heading("Test and save"),
            *map(show, ("read", "write", "name")),
        ]

    def _buttons(self) -> list[Action]:
        use = [] if self._on_use is None else [Action("Use this source", self._use, self._why_not, primary=True)]
        return [
            *use,
            Action("Test connection", self._test, lambda: self._why_not(_STREAMS), primary=not use),
            Action("IAM policy", self._show_policy, lambda: self._why_not(_STREAMS) or self._why_no_policy()),
            Action("Save", self._save, lambda: self._why_not(_NAME) or self._why_no_save()),
            Action("Code", lambda: self.show_code(self.to_code), self._why_not),
        ]

    # --- what the form gives ---

    def source(self) -> Source:
        """Return the source; the same one until a setting changes.

        Raises
        ------
        ConfigError
            While a setting is wrong or missing; which streams to test, and the name to save it as, are none.
        """
        if problem := self._why_not():
            raise ConfigError(problem, hint="fix it in the form")
        made = connect(**self._options())
        if self._source is None or self._source.config != made.config:
            self._source = made
        return self._source

    @property
    def config(self) -> SourceConfig:
        """The settings, checked."""
        return self.source().config

    def to_code(self) -> str:
        """Return the cell that replaces the form; it asks for secrets."""
        return source_code(self.config)

    def _options(self) -> Arguments:
        """Return what `connect` is given: what is shown and filled in."""
        options = {name: self._value(name) for name in ("region", "agents", "exports_enabled", *_NETWORKING)}
        bundle = options.pop("ca_bundle")
        options["verify"] = bundle or options["verify"]
        if options["agents"] and options["agents"] == address(self._agents):
            options["agents"] = self._agents  # perhaps a client of Dask, which a text cannot be
        if proxy := options["proxy"]:
            options["proxy"] = Proxy.parse(proxy.reveal())
        options |= {"auth": self._auth(), "sts_role": self._role()}
        return {name: value for name, value in options.items() if value is not None}

    def _value(self, name: str) -> Any:
        return self.fields[name].value

    def _auth(self) -> StaticCredentials | Profile | AwsInstance | None:
        way = self._value("auth")
        if way == _STATIC:
            keys = (self._value(name) for name in ("access_key_id", "secret_access_key", "session_token"))
            return StaticCredentials(*keys)
        if way == _PROFILE:
            return Profile(self._value("profile"))
        return AwsInstance() if way == _INSTANCE else None

    def _role(self) -> StsRole | None:
        names = ("role_arn", "session_name", "duration", "external_id")
        return StsRole(*map(self._value, names)) if self._value("assumes_role") else None

    # --- while it is filled in ---

    def refresh(self) -> None:
        """Show the fields that belong to what is chosen, check them all, and update which buttons can be clicked."""
        is_agent, auth = self._value("connection") == _AGENT, self.fields["auth"].control
        _offer(auth, _ways(is_agent=is_agent))
        self._show(is_agent, "agents")
        self._show(auth.value == _STATIC, "access_key_id", "secret_access_key", "session_token")
        self._show(auth.value == _PROFILE, "profile")
        self._show(self._value("assumes_role"), "role_arn", "session_name", "duration", "external_id")
        self._show(self._value("networking"), *_NETWORKING)
        self._show(self._value("exports_enabled"), "write")
        super().refresh()

    def _show(self, is_shown: bool, *names: str) -> None:  # noqa: FBT001 - reads best first
        for name in names:
            self.fields[name].is_shown = bool(is_shown)

    def _allows_http(self) -> bool:
        return bool(self._value("allow_http"))

    def _streams(self, text: str) -> list[str]:
        """Return the names and ARNs in a text; raise ConfigError for what is none."""
        region = self._value("region") or ""
        names = [one for one in text.replace(",", " ").split() if one]
        for one in names:
            check_stream(one, region)
        return names

    def _chosen(self, name: str) -> list[str]:
        return self._streams(self._value(name) or "")

    # --- the buttons ---

    def _why_not(self, also: Iterable[str] = ()) -> str:
        """Return what is wrong with the settings, or with the other fields that an action uses."""
        settings = (name for name in self.fields if name not in (*_STREAMS, *_NAME))
        return self.problem_of((*settings, *also))

    def _changed(self, name: str) -> None:
        if name not in _NAME:
            self._result.value = ""  # a policy and a report are of the settings and the streams as they were
        super()._changed(name)

    def _why_no_policy(self) -> str:
        return "" if self._chosen("read") or self._chosen("write") else "name the streams to read or write"

    def _why_no_save(self) -> str:
        return "" if self._value("name") else "give the source a name"

    def _use(self) -> None:
        if self._on_use is not None:
            self._on_use(self.source())

    def _test(self) -> None:
        source, read, write = self.source(), self._chosen("read"), self._chosen("write")
        if read or write:
            self.do("Checking permissions …", lambda: source.check(read=read, write=write), self._tested)
        else:
            self.do("Connecting …", lambda: _list(source), lambda text: self.say(text, kind="right"))

    def _tested(self, report: PermissionReport) -> None:
        self.show(report._repr_html_())  # pyright: ignore[reportPrivateUsage]
        good = report.is_sufficient
        self.say("✓ allowed" if good else "✗ not everything is allowed", kind="right" if good else "wrong")

    def _show_policy(self) -> None:
        source, read, write = self.source(), self._chosen("read"), self._chosen("write")

        def then(policy: IamPolicy) -> None:
            self.show(policy.to_html())

        self.do("Writing the policy …", lambda: source.iam_policy(read, write), then)

    def _save(self) -> None:
        source, name = self.source(), self._value("name")

        def then(lost: list[str]) -> None:
            asks = f" and asks for its {' and '.join(lost)}, which no keyring keeps" if lost else ""
            self.say(f'✓ saved; kn.connect("{name}") connects it{asks}', kind="right")

        self.do("Saving …", lambda: save(source.config, name), then)

    def __repr__(self) -> str:
        return f"<SourceForm: {self.problem or repr(self.config.region)}>"


def _list(source: Source) -> str:
    try:
        names = list(source.explore())
    except AccessDenied as error:
        if error.action != "kinesis:ListStreams":
            raise
        return "✓ the credentials are accepted; they may not list streams: name the streams to read, and test again"
    shown = ", ".join(names[:_SHOWN_STREAMS]) + (" …" if len(names) > _SHOWN_STREAMS else "")
    return f"✓ connected: {len(names):,} streams in {source.config.region}{': ' * bool(names)}{shown}"


def _text(placeholder: str, value: str | None = None) -> W.Text:
    return W.Text(value or "", placeholder=placeholder)


def _choice(chosen: bool | None) -> W.Dropdown:  # noqa: FBT001 - it is the value
    return W.Dropdown(options=_CHOICES, value="" if chosen is None else chosen)


def _ways(*, is_agent: bool) -> list[str]:
    return [_CHAIN, _STATIC, _PROFILE, *([_INSTANCE] if is_agent else [])]


def _offer(auth: W.Dropdown, ways: list[str]) -> None:
    """Change what can be chosen, and keep the choice where it is still one."""
    if auth.options != tuple(ways):
        chosen = auth.value
        auth.options = ways
        auth.value = chosen if chosen in ways else _CHAIN


def _endpoint(label: str, name: str, config: SourceConfig, allows_http: Callable[[], bool]) -> Field:
    def check(url: str) -> object:
        options: Arguments = {name: url, "allow_http": allows_http()}
        return SourceConfig(**options)

    return Field(label, _text("AWS, or https://vpce-…", getattr(config, name)), check)


def _set_up(name: str) -> Check:
    """Return the engine's check of one setting of a source."""
    return lambda value: replace(SourceConfig(), **{name: value})


def _of_role(name: str) -> Check:
    return lambda value: replace(_SOME_ROLE, **{name: value})


def _fields(config: SourceConfig) -> dict[str, Field]:
    keys = config.auth if isinstance(config.auth, StaticCredentials) else None
    profile = config.auth.name if isinstance(config.auth, Profile) else None
    agents = address(config.agents) or None
    ways: dict[type, str] = {StaticCredentials: _STATIC, Profile: _PROFILE, AwsInstance: _INSTANCE}
    way = ways.get(type(config.auth), _CHAIN)
    auth = W.Dropdown(options=_ways(is_agent=bool(agents)), value=way)
    connection = W.Dropdown(options=[_DIRECT, _AGENT], value=_AGENT if agents else _DIRECT)
    region = W.Combobox(value=config.region, options=_REGIONS, ensure_option=False)
    return {
        "connection": Field("Connection", connection),
        "agents": Field("Agent address", _text("tls://host:8786", agents), _set_up("agents"), is_required=True),
        "region": Field("Region", region, _set_up("region"), is_required=True),
        "auth": Field("Authentication", auth),
        **_keys(keys),
        "profile": Field("Profile name", _text("dev", profile), Profile, is_required=True),
        **_role_fields(config.sts_role),
        **_network_fields(config),
        "exports_enabled": Field("Enable exports", W.Checkbox(config.exports_enabled)),
        "name": Field("Save as", _text("a name for kn.connect(name)"), check_name),
    }


def _keys(keys: StaticCredentials | None) -> dict[str, Field]:
    secret, token = (keys.secret_access_key, keys.session_token) if keys else (None, None)
    key_id = _text("AKIA…", keys.access_key_id if keys else None)
    return {
        "access_key_id": Field("Access key ID", key_id, lambda key: StaticCredentials(key, "some"), is_required=True),
        "secret_access_key": Field(
            "Secret access key", SecretField(secret=secret), _of_secret("secret access key"), is_required=True
        ),
        "session_token": Field(
            "Session token", SecretField(secret=token, placeholder="for temporary keys"), _of_secret("session token")
        ),
    }


def _of_secret(name: str) -> Check:
    def check(secret: Secret) -> object:
        return as_secret(name, secret.reveal())

    return check


def _role_fields(role: StsRole | None) -> dict[str, Field]:
    arn = _text("arn:aws:iam::123456789012:role/reader", role.role_arn if role else None)
    duration = W.IntText(role.duration if role else _SOME_ROLE.duration)
    external_id = _text("what the role's trust policy demands", role.external_id if role else None)
    name = _text("shows up in the account's logs", role.session_name if role else None)
    return {
        "assumes_role": Field("Assume a role", W.Checkbox(role is not None)),
        "role_arn": Field("Role ARN", arn, _of_role("role_arn"), is_required=True),
        "session_name": Field("Session name", name, _of_role("session_name"), is_required=True),
        "duration": Field("Duration (seconds)", duration, _of_role("duration")),
        "external_id": Field("External ID", external_id, _of_role("external_id")),
    }


def _network_fields(config: SourceConfig) -> dict[str, Field]:
    bundle = config.verify if isinstance(config.verify, str) else None
    return {
        "networking": Field("Own endpoints, proxy or certificates", W.Checkbox(_is_special(config))),
        "proxy": Field("Proxy", _proxy_control(config.proxy), lambda address: Proxy.parse(address.reveal())),
        "ca_bundle": Field("CA bundle", _text("path of a PEM file", bundle), _set_up("verify")),
        "verify": Field("Check certificates", W.Checkbox(config.verify is not False)),
        "allow_http": Field("Allow http://", W.Checkbox(config.allow_http)),
        "use_fips_endpoint": Field("FIPS endpoints", _choice(config.use_fips_endpoint)),
        "use_dualstack_endpoint": Field("Dual-stack endpoints", _choice(config.use_dualstack_endpoint)),
    }


def _is_special(config: SourceConfig) -> bool:
    plain, names = SourceConfig(), {*_NETWORKING} - {"ca_bundle"}
    return any(getattr(config, name) != getattr(plain, name) for name in names)


def _proxy_control(proxy: Proxy | None) -> SecretField:
    control = SecretField(placeholder="http://user:password@host:port", masked=False)
    if proxy:
        control.secret = as_secret("proxy", proxy.reveal())
    return control
