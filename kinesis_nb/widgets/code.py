"""Code that does what a form does; a secret is never in it, but asked for when it runs."""

from __future__ import annotations

import json
import textwrap
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kinesis_nb.access.config import Proxy
from kinesis_nb.access.credentials import AwsInstance, Profile, StaticCredentials, StsRole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kinesis_nb.access.config import SourceConfig

Arguments = dict[str, Any]
"""The arguments of a public call by name; the call itself checks them."""

_WIDTH = 88  # columns of a notebook's cell that need no scrolling


def source_code(config: SourceConfig) -> str:
    """Return the cell that connects a source with these settings."""
    call = call_code("kn.connect", (), _differing(config))
    return with_imports(f"import kinesis_nb as kn\n\nsource = {call}\n")


def _differing(settings: SourceConfig | StsRole) -> Arguments:
    """Return what is not as it is by default."""
    values = {one.name: (getattr(settings, one.name), one.default) for one in fields(settings)}
    found = {name: value for name, (value, usual) in values.items() if value != usual}
    return found | {name: address(value) for name, value in found.items() if name == "agents"}


def address(agents: object) -> str:
    """Return the address of a scheduler, of which a client of Dask may be given."""
    found: str = agents if isinstance(agents, str) else getattr(getattr(agents, "scheduler", None), "address", "")
    return found


def with_imports(code: str) -> str:
    """Return code that asks for secrets with the import that it needs."""
    return f"import getpass\n\n{code}" if "getpass.getpass(" in code else code


def call_code(function: str, arguments: Iterable[object], options: Mapping[str, object]) -> str:
    """Return a call, on one line if that is short enough.

    Examples
    --------
    >>> print(call_code("source.sync", ["orders", "tables/orders"], {"commit_interval": 5.0}))
    source.sync("orders", "tables/orders", commit_interval=5.0)
    """
    given = [*map(literal, arguments), *(f"{name}={literal(value)}" for name, value in options.items())]
    line = f"{function}({', '.join(given)})"
    if len(line) <= _WIDTH:
        return line
    inner = "".join(f"{one},\n" for one in given)
    return f"{function}(\n{textwrap.indent(inner, '    ')})"


class Name(str):
    """Code as it is, such as the name of a variable."""

    __slots__ = ()


class Asked(str):
    """What code asks for when it runs, because the value is secret."""

    __slots__ = ()


def literal(value: object) -> str:
    """Return the code of a value."""
    match value:
        case Name():
            return str(value)
        case Asked():
            return f"getpass.getpass({literal(f'{value}: ')})"
        case dict():
            return "{" + ", ".join(f"{literal(name)}: {literal(one)}" for name, one in value.items()) + "}"
        case str():
            return json.dumps(value, ensure_ascii=False)  # as Python writes it too, in the quotes of this project
        case StaticCredentials() | Profile() | AwsInstance() | StsRole() | Proxy():
            return _setting(value)
        case _:
            return repr(value)


def _setting(value: StaticCredentials | Profile | AwsInstance | StsRole | Proxy) -> str:
    match value:
        case StaticCredentials():
            token = [Asked("Session token")] if value.session_token else []
            return call_code("kn.StaticCredentials", [value.access_key_id, Asked("Secret access key"), *token], {})
        case Profile():
            return call_code("kn.Profile", [value.name], {})
        case AwsInstance():
            return "kn.AwsInstance()"
        case StsRole():
            return call_code("kn.StsRole", (), _differing(value))
        case Proxy(password=None):
            return literal(str(value))
        case Proxy():
            before, _, after = str(value).partition("********")
            return " + ".join(map(literal, (before, Asked("Proxy password"), after)))
