"""What a source is: region, authentication, networking. Values only; everything is checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from kinesis_nb.access.credentials import Auth, AwsInstance, Profile, Secret, StaticCredentials, StsRole
from kinesis_nb.core.names import check_region
from kinesis_nb.errors import ConfigError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_SCHEDULER = re.compile(r"(tcp|tls|ws|wss)://[\w.:\[\]-]+:\d{1,5}", re.ASCII)
_PASSWORD = re.compile(r"(://[^:/@\s]*):\S*@")  # up to the last @: a password may hold one, and a / or : too


@dataclass(frozen=True, slots=True)
class Proxy:
    """The address of an HTTP proxy; shown without its password.

    Examples
    --------
    >>> print(Proxy.parse("http://ada:hunter2@proxy.example.com:3128"))
    http://ada:********@proxy.example.com:3128
    """

    address: str
    user: str = ""
    password: Secret | None = None

    def __post_init__(self) -> None:
        for text in (self.user, self.password.reveal() if self.password else ""):
            if not text.isascii() or not text.isprintable():  # HTTP's Basic has no letters beyond ASCII
                raise ConfigError(
                    "the user or the password of the proxy has a character that cannot be sent",
                    hint="only printable ASCII characters can be sent; ask for another password",
                )

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Parse an address, whose user and password may be percent-encoded; raise ConfigError, without showing it."""
        parts = _address("proxy", url)
        if parts.path not in {"", "/"} or parts.query or parts.fragment:  # where the host is cannot be told
            raise ConfigError(
                "proxy has something behind its host and port",
                hint="in a user or password write / as %2F, ? as %3F, # as %23, % as %25",
            )
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        address = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"
        password = Secret(unquote(parts.password)) if parts.password else None
        return cls(address, unquote(parts.username or ""), password)

    def reveal(self) -> str:
        """Return the whole address; for the connection only."""
        return self._with(f":{quote(self.password.reveal(), safe='')}" if self.password else "")

    def __str__(self) -> str:
        return self._with(f":{self.password}" if self.password else "")

    def _with(self, password: str) -> str:
        scheme, _, host = self.address.partition("://")
        return f"{scheme}://{quote(self.user, safe='')}{password}@{host}" if self.user or password else self.address


def masked(text: str) -> str:
    """Return a text of others without the passwords of the addresses in it, whatever signs these hold."""
    return _PASSWORD.sub(r"\1:********@", text)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Everything that :func:`kinesis_nb.connect` takes, checked.

    Raises
    ------
    ConfigError
        For what cannot be right: a region, an address, a file of certificates, a way to sign in.
    """

    region: str = "us-east-1"
    auth: Auth = None
    sts_role: StsRole | None = None
    exports_enabled: bool = False
    endpoint_url: str | None = None
    sts_endpoint_url: str | None = None
    proxy: Proxy | None = None  # given as text too
    verify: bool | str = True
    use_fips_endpoint: bool | None = None
    use_dualstack_endpoint: bool | None = None
    allow_http: bool = False
    agents: Any = None  # the address of a Dask scheduler, or a Client

    def __post_init__(self) -> None:
        check_region(self.region)
        self._check_auth()
        self._check_role()
        self._check_endpoints()
        if isinstance(self.proxy, str):
            object.__setattr__(self, "proxy", Proxy.parse(self.proxy))
        elif not isinstance(self.proxy, Proxy | None):
            raise ConfigError(f"proxy= does not accept {_kind(self.proxy)}", hint="it looks like http://host:3128")
        self._check_verify()
        self._check_agents()
        self._check_switches()

    def _check_endpoints(self) -> None:
        for name, url in (("endpoint_url", self.endpoint_url), ("sts_endpoint_url", self.sts_endpoint_url)):
            if url is not None:
                check_endpoint(name, url, allow_http=self.allow_http)

    def _check_switches(self) -> None:
        for name in ("exports_enabled", "allow_http", "use_fips_endpoint", "use_dualstack_endpoint"):
            value = getattr(self, name)
            if not isinstance(value, bool | None):
                raise ConfigError(f"{name}={value!r} is neither True nor False", hint=f"write {name}=True")

    def _check_auth(self) -> None:
        if isinstance(self.auth, AwsInstance) and self.agents is None:
            raise ConfigError(
                "AwsInstance() is for connections through agents",
                hint="leave auth out: the default chain finds the role of this instance",
            )
        if not isinstance(self.auth, StaticCredentials | AwsInstance | Profile | None):
            # the value itself may be a secret
            raise ConfigError(
                f"auth= does not accept {_kind(self.auth)}",
                hint="use StaticCredentials(...), Profile(...) or leave it out",
            )

    def _check_role(self) -> None:
        if not isinstance(self.sts_role, StsRole | None):
            raise ConfigError(
                f"sts_role= does not accept {_kind(self.sts_role)}", hint="use StsRole(role_arn, session_name)"
            )

    def _check_agents(self) -> None:
        is_address = isinstance(self.agents, str) and _SCHEDULER.fullmatch(self.agents)
        if self.agents is not None and not is_address and not hasattr(self.agents, "scheduler_info"):
            raise ConfigError(
                f"agents= does not accept {_kind(self.agents)}"
                if not isinstance(self.agents, str)
                else "agents= is not the address of a scheduler",
                hint='give the address of a Dask scheduler, "tls://host:8786", or a distributed.Client',
            )

    def _check_verify(self) -> None:
        if isinstance(self.verify, bool):
            return
        import ssl

        try:
            ssl.create_default_context(cafile=str(self.verify))
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error  # a null character is a ValueError
            shown = self.verify if isinstance(self.verify, str) else _kind(self.verify)
            what = f"verify: {shown!r} is not a CA bundle ({why})"
            raise ConfigError(what, hint="give the path of a file of PEM certificates") from None


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _address(name: str, url: object) -> SplitResult:
    """Parse the address of a server. An invalid one is not shown: it may hold a password."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts and parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and _is_clean(url):
            return parts
    except ValueError:
        pass
    raise ConfigError(f"{name} is not the address of a server", hint="it looks like https://host:443")


def _is_clean(url: object) -> bool:
    return str(url).isascii() and str(url).isprintable() and " " not in str(url)


def check_endpoint(name: str, url: str, *, allow_http: bool) -> None:
    """Raise ConfigError for an invalid endpoint: it must have no password, and be https unless it is this machine."""
    parts = _address(name, url)
    if parts.username is not None:
        raise ConfigError(f"{name} must not contain a user or a password", hint="credentials belong in auth=")
    if parts.scheme == "http" and not allow_http and not is_loopback(str(parts.hostname)):
        raise ConfigError(
            f"{name} {url!r} is not encrypted: everybody on the way could read the records",
            hint="use https://, or say allow_http=True if you mean it",
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, whatever its network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
