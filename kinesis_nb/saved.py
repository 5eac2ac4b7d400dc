"""Sources by name: settings in a file that nobody else can read or write, secrets in the keyring of the system.

A file holds no secret. Where there is no real keyring, a secret is asked for when the source is connected.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import stat
import tempfile
import tomllib
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinesis_nb.config import REGION, Proxy, SourceConfig
from kinesis_nb.credentials import AwsInstance, Profile, Secret, StaticCredentials, StsRole
from kinesis_nb.errors import ConfigError, closest

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SETTINGS = (
    "region",
    "exports_enabled",
    "endpoint_url",
    "sts_endpoint_url",
    "verify",
    "use_fips_endpoint",
    "use_dualstack_endpoint",
    "allow_http",
    "agents",
)
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_SERVICE = "kinesis_nb"  # the keyring's word for whose secrets these are


def sources() -> list[str]:
    """Return the names of the saved sources, sorted."""
    folder = _folder()
    return sorted(path.stem for path in folder.glob("*.toml")) if folder.is_dir() else []


def save(config: SourceConfig, name: str) -> None:
    """Save a source; an earlier one of that name is replaced.

    Raises
    ------
    ConfigError
        For a name that cannot be a file's, and when the folder is not the user's alone.
    """
    path = _path(name)
    secrets = _secrets(config)
    _make_private(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")  # mode 0600, never through a link
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_to_toml(config, secrets))
        Path(temporary).replace(path)  # a link at its place is replaced, not followed
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    keyring = _keyring()
    for kind, secret in secrets.items() if keyring else ():
        keyring.set_password(_SERVICE, f"{name}/{kind}", secret.reveal())


def load(name: str, overridden: Collection[str], given: Mapping[str, Secret] | None = None) -> dict[str, Any]:
    """Return the saved options of a source; a secret of an option that is overridden is not asked for.

    Parameters
    ----------
    given
        Secrets that are :func:`missing` here. With None they are asked for, so somebody must wait for the question.
    """
    with _opened(name) as saved:
        return _from_toml(name, saved, overridden, given)


def missing(name: str) -> list[str]:
    """Return the kinds of secrets that a saved source needs and that are not in the keyring."""
    with _opened(name) as saved:
        return [kind for kind in saved["secrets"] if _known(name, kind) is None]


@contextmanager
def _opened(name: str) -> Generator[dict[str, Any]]:
    path = _path(name)
    try:
        handle = os.open(path, os.O_RDONLY | _NO_LINK)
    except FileNotFoundError:
        if REGION.fullmatch(name):
            raise ConfigError(f"there is no saved source {name!r}", hint=f'write region="{name}"') from None
        known = sources()
        hint = closest(name, known) or f"saved are: {', '.join(known) or 'none; source.save(name) saves one'}"
        raise ConfigError(f"there is no saved source {name!r}", hint=hint) from None
    except OSError as error:
        raise ConfigError(
            f"the file of source {name!r} cannot be opened", hint=f"it is {path}: {error.strerror}"
        ) from None
    with os.fdopen(handle, "rb") as file:
        if os.name == "posix" and os.fstat(handle).st_mode & 0o022:
            raise ConfigError(f"others may write the file of source {name!r}", hint=f"check it, then chmod 600 {path}")
        try:
            yield tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the file of source {name!r} is damaged ({error})", hint=f"save it again; it is {path}"
            ) from None


def _to_toml(config: SourceConfig, secrets: Mapping[str, Secret]) -> str:
    options: dict[str, object] = {name: getattr(config, name) for name in _SETTINGS}
    if not isinstance(config.agents, str):  # a client of Dask is of this process
        options["agents"] = None
    if config.proxy:
        options |= {"proxy": config.proxy.address, "proxy_user": config.proxy.user}
    tables: dict[str, dict[str, object]] = {"": options | {"secrets": list(secrets)}}
    if isinstance(config.auth, StaticCredentials):
        tables["auth"] = {"access_key_id": config.auth.access_key_id}
    elif isinstance(config.auth, Profile):
        tables["auth"] = {"profile": config.auth.name}
    elif isinstance(config.auth, AwsInstance):
        tables["auth"] = {"instance": True}
    if role := config.sts_role:
        tables["sts_role"] = {
            "role_arn": role.role_arn,
            "session_name": role.session_name,
            "duration": role.duration,
            "external_id": role.external_id,
        }
    lines = ["# A source of kinesis_nb. Secrets are not in here."]
    for name, table in tables.items():
        lines += [f"\n[{name}]"] if name else []
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """Return a text, a number, a truth or a list of texts: TOML writes them as JSON does, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _from_toml(
    name: str, saved: dict[str, Any], overridden: Collection[str], given: Mapping[str, Secret] | None
) -> dict[str, Any]:
    secrets, auth, role = saved.pop("secrets"), saved.pop("auth", None), saved.pop("sts_role", None)
    address, user = saved.pop("proxy", None), saved.pop("proxy_user", "")
    options: dict[str, Any] = {key: saved[key] for key in _SETTINGS if key in saved}
    if auth and "auth" not in overridden:
        if "profile" in auth:
            options["auth"] = Profile(auth["profile"])
        elif "instance" in auth:
            options["auth"] = AwsInstance()
        else:
            kinds = [kind for kind in ("secret_access_key", "session_token") if kind in secrets]
            keys = {kind: _recall(name, kind, given) for kind in kinds}
            options["auth"] = StaticCredentials(auth["access_key_id"], **keys)
    if role:
        options["sts_role"] = StsRole(**role)
    if address and "proxy" not in overridden:
        password = _recall(name, "proxy_password", given) if "proxy_password" in secrets else None
        options["proxy"] = Proxy(address, user, password)
    return options


def _secrets(config: SourceConfig) -> dict[str, Secret]:
    found = {"proxy_password": config.proxy.password if config.proxy else None}
    if isinstance(config.auth, StaticCredentials):
        found |= {"secret_access_key": config.auth.secret_access_key, "session_token": config.auth.session_token}
    return {kind: secret for kind, secret in found.items() if secret}


def _known(name: str, kind: str) -> Secret | None:
    keyring = _keyring()
    known = keyring.get_password(_SERVICE, f"{name}/{kind}") if keyring else None
    return Secret(known) if known else None


def _recall(name: str, kind: str, given: Mapping[str, Secret] | None) -> Secret:
    """Return a secret that was given, else from the keyring, else from whoever sits here."""
    if known := (given or {}).get(kind) or _known(name, kind):
        return known
    asked = kind.replace("_", " ")
    answer = _ask(f"{asked} of source {name!r}: ") if given is None else ""
    if not answer:
        option = "proxy=" if kind == "proxy_password" else "auth="
        raise ConfigError(
            f"the {asked} of source {name!r} is not known here",
            hint=f"pip install 'kinesis_nb[keyring]' and save the source again, or give connect() {option}",
        )
    return Secret(answer)


def _ask(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # better no secret than one that is echoed
            return getpass.getpass(prompt)
    except (EOFError, OSError, NotImplementedError, RuntimeError, getpass.GetPassWarning):
        return ""


def _keyring() -> Any:
    """Return the keyring module if the system has a real one: not the one that fails, not one that is a plain file."""
    try:
        import keyring
    except ImportError:
        return None
    backend = keyring.get_keyring()
    first = next(iter(getattr(backend, "backends", ())), backend)  # of a chain, the one that is written to
    return keyring if float(first.priority) >= 1 else None


def _folder() -> Path:
    import platformdirs

    return platformdirs.user_config_path("kinesis_nb") / "sources"


def check_name(name: object) -> str:
    """Return the name of a source as it is, or raise ConfigError when none can have it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{name!r} cannot name a source",
            hint="1 to 64 letters, digits, '_', '.' and '-'; the first a letter or digit",
        )
    return name


def _path(name: object) -> Path:
    return _folder() / f"{check_name(name)}.toml"


def _make_private(folder: Path) -> None:
    """Make the folder and its parent, ours alone; a link in their place is refused."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
        found = one.lstat()
        if not stat.S_ISDIR(found.st_mode) or (os.name == "posix" and found.st_uid != os.getuid()):
            raise ConfigError(f"{one} is not a folder of yours", hint="remove the link or folder at that place")
        one.chmod(0o700)
