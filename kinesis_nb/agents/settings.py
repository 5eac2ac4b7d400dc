"""The settings of a source as they travel to an agent: with secrets, and only where nobody else can read them."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kinesis_nb.access.config import Proxy, SourceConfig
from kinesis_nb.access.credentials import Secret, StaticCredentials
from kinesis_nb.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_SECRET_WORDS = ("secret", "token", "password", "key", "credential", "sas")
_ENCRYPTED = ("tls", "wss", "inproc")  # the schemes of Dask's addresses that nobody else can read


class PortableSettings:
    """The settings of a source and the storage options of a table. Neither its repr nor its str shows a secret.

    It can be pickled, which a :class:`Secret` cannot: make one only after :func:`check_encrypted`.
    """

    def __init__(self, config: SourceConfig, storage_options: Mapping[str, str]) -> None:
        # any address will do: it says that the source is used by an agent, which may have the role of its instance
        self.config = replace(config, agents="tcp://agent:0")
        self.storage_options = dict(storage_options)

    @property
    def has_secrets(self) -> bool:
        """Whether something in it must not be read by others."""
        proxy = self.config.proxy
        return (
            isinstance(self.config.auth, StaticCredentials)
            or (proxy is not None and proxy.password is not None)
            or any(word in name.lower() for name in self.storage_options for word in _SECRET_WORDS)
        )

    @property
    def storage_endpoint(self) -> str:
        """The object store, where one was named: a bucket of the same name may exist in another one too."""
        options = self.storage_options
        return options.get("endpoint_url") or options.get("endpoint") or options.get("aws_endpoint_url", "")

    def fingerprint(self) -> str:
        """Return a hash that differs for other settings and reveals nothing about them."""
        _, (plain, options) = self.__reduce__()
        del plain["exports_enabled"]  # checked when the job was submitted; the job itself is the same
        return digest(sorted(plain.items()), sorted(options.items()))

    def __repr__(self) -> str:
        return f"<PortableSettings of a source in {self.config.region}>"

    def __reduce__(
        self,
    ) -> tuple[Callable[..., PortableSettings], tuple[dict[str, object], dict[str, str]]]:
        plain = {part.name: getattr(self.config, part.name) for part in fields(self.config)}
        if isinstance(auth := self.config.auth, StaticCredentials):
            token = auth.session_token.reveal() if auth.session_token else None
            plain["auth"] = (auth.access_key_id, auth.secret_access_key.reveal(), token)
        if (proxy := self.config.proxy) is not None:
            plain["proxy"] = (proxy.address, proxy.user, proxy.password.reveal() if proxy.password else None)
        return _unpack, (plain, self.storage_options)


def _unpack(plain: dict[str, object], storage_options: dict[str, str]) -> PortableSettings:
    options = dict(plain)
    if isinstance(auth := options["auth"], tuple):
        options["auth"] = StaticCredentials(*auth)
    if isinstance(proxy := options["proxy"], tuple):
        address, user, password = proxy
        options["proxy"] = Proxy(address, user, Secret(password) if password else None)
    return PortableSettings(SourceConfig(**options), storage_options)  # type: ignore[arg-type]


def digest(*parts: object) -> str:
    """Return a hash of values with a stable repr."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def check_encrypted(settings: PortableSettings, addresses: Iterable[str]) -> None:
    """Raise AgentError when secrets would travel where others can read them.

    Parameters
    ----------
    addresses
        Of the scheduler and of every worker, as Dask gives them.
    """
    if not settings.has_secrets:
        return
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme not in _ENCRYPTED:  # loopback is not exempt: other users of this machine can listen there
            raise AgentError(
                f"the connection to {parts.scheme}://{parts.hostname} is not encrypted, and this source has secrets",
                hint="start scheduler and agents with kinesis-nb as this user of this machine, use tls:// addresses, or"
                " give the agents credentials of their own: leave auth out, or use AwsInstance()",
            )
