"""Code that does what a form does; a secret is never in it, but asked for when it runs."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kinesis_nb.config import Proxy
from kinesis_nb.credentials import AwsInstance, Profile, StaticCredentials, StsRole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kinesis_nb.config import SourceConfig

_WIDTH = 88  # columns of a notebook's cell that need no scrolling


def source_code(config: SourceConfig, agents: str | None = None) -> str:
    """Return the cell that connects a source with these settings."""
    options: dict[str, Any] = {
        one.name: value for one in fields(config) if (value := getattr(config, one.name)) != one.default
    }
    if agents is not None:
        options["agents"] = agents
    call = call_code("kn.connect", (), options)
    imports = "import getpass\n\n" if "getpass." in call else ""
    return f"{imports}import kinesis_nb as kn\n\nsource = {call}\n"


def call_code(function: str, arguments: Iterable[Any], options: Mapping[str, Any]) -> str:
    """Return a call, on one line if that is short enough.

    Examples
    --------
    >>> print(call_code("source.sync", ["orders", "tables/orders"], {"commit_interval": 5.0}))
    source.sync("orders", "tables/orders", commit_interval=5.0)
    """
    given = [*map(literal, arguments), *(f"{name}={literal(value)}" for name, value in options.items())]
    line = f"{function}({', '.join(given)})"
    return line if len(line) <= _WIDTH else f"{function}(\n" + "".join(f"    {one},\n" for one in given) + ")"


class Name(str):
    """Code as it is, such as the name of a variable."""

    __slots__ = ()


def literal(value: Any) -> str:
    """Return the code of a value."""
    match value:
        case Name():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)  # as Python writes it too, in the quotes of this project
        case StaticCredentials():
            keys = [literal(value.access_key_id), _asked("Secret access key")]
            return f"kn.StaticCredentials({', '.join(keys + [_asked('Session token')] * bool(value.session_token))})"
        case Profile():
            return f"kn.Profile({literal(value.name)})"
        case AwsInstance():
            return "kn.AwsInstance()"
        case StsRole():
            given = {one.name: getattr(value, one.name) for one in fields(value)}
            usual = {"duration": 900, "external_id": None}
            options = {name: one for name, one in given.items() if name not in usual or one != usual[name]}
            return f"kn.StsRole({', '.join(f'{name}={literal(one)}' for name, one in options.items())})"
        case Proxy():
            before, password, after = str(value).partition("********") if value.password else (str(value), "", "")
            return f"{literal(before)} + {_asked('Proxy password')} + {literal(after)}" if password else literal(before)
        case _:
            return repr(value)


def _asked(what: str) -> str:
    return f'getpass.getpass("{what}: ")'
