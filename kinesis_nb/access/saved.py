"""Sources by name: settings in a file that nobody else can read or write, secrets in the keyring of the system.

A file holds no secret. Where there is no real keyring, a secret is asked for when the source is connected.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import stat
import tomllib
import uuid
import warnings
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kinesis_nb.access.config import Proxy, SourceConfig
from kinesis_nb.access.credentials import AwsInstance, Profile, Secret, StaticCredentials, StsRole
from kinesis_nb.access.system_keyring import find_keyring
from kinesis_nb.core.names import is_region
from kinesis_nb.core.private_files import open_file, replace_file
from kinesis_nb.errors import ConfigError, closest, forgetful

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping
    from pathlib import Path

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
_SECRETS_OF = "secrets_of"  # which saving of the source the secrets in the keyring are of


def sources() -> list[str]:
    """Return the names of the saved sources, sorted.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> "a name that nobody saved" in kn.sources()
    False
    """
    folder = _folder()
    names = (path.stem for path in folder.glob("*.toml")) if folder.is_dir() else ()
    return sorted(name for name in names if _NAME.fullmatch(name))


@forgetful
def save(config: SourceConfig, name: str) -> list[str]:
    """Save a source; an earlier one of that name is replaced.

    Returns
    -------
    list[str]
        The secrets that are not kept, because there is no keyring.

    Raises
    ------
    ConfigError
        For a name that cannot be a file's, when the folder is not the user's alone, and when the keyring refuses the
        secrets; an earlier source of that name is as it was then.
    """
    path = _path(name)
    secrets = _secrets(config)
    _make_private(path.parent)
    before, ring = _entries(name), _Ring(name, secrets_of=uuid.uuid4().hex)
    ring.keep(secrets)  # first, under names of their own: a file never refers to the secrets of another one
    try:
        replace_file(path, _to_toml(config, secrets, ring.secrets_of).encode())
    except BaseException:
        ring.drop(secrets)
        raise
    for old, kinds in before:
        old.drop(kinds)
    return [] if ring.is_there else [kind.replace("_", " ") for kind in secrets]


def _entries(name: str) -> list[tuple[_Ring, Iterable[str]]]:
    """Return where the keyring has the secrets of an earlier source of that name."""
    try:
        with _opened(name) as saved:
            return [(_Ring(name, saved.get(_SECRETS_OF, "")), saved["secrets"])]
    except ConfigError:  # there is none, or it is damaged
        return []


def load(name: str, overridden: Collection[str], given: Mapping[str, Secret] | None = None) -> dict[str, Any]:
    """Return the saved options of a source; a secret of an option that is overridden is not asked for.

    Parameters
    ----------
    given
        Secrets that are :func:`missing` here. With None they are asked for, so somebody must wait for the question.
    """
    with _opened(name) as saved:
        return _from_toml(name, saved, overridden, given)


@forgetful
def missing(name: str) -> list[str]:
    """Return the kinds of secrets that a saved source needs and that are not in the keyring."""
    with _opened(name) as saved:
        ring = _Ring(name, saved.get(_SECRETS_OF, ""))
        return [kind for kind in saved["secrets"] if ring.find(kind) is None]


@contextmanager
def _opened(name: str) -> Generator[dict[str, Any]]:
    path = _path(name)
    try:
        handle = open_file(path)
    except FileNotFoundError:
        if is_region(name):
            raise ConfigError(f"there is no saved source {name!r}", hint=f'write region="{name}"') from None
        known = sources()
        profile = f"for a profile of the AWS configuration write auth=kn.Profile({name!r})"
        hint = closest(name, known) or f"saved are: {', '.join(known) or 'none'}; {profile}"
        raise ConfigError(f"there is no saved source {name!r}", hint=hint) from None
    except OSError as error:
        raise ConfigError(
            f"the file of source {name!r} cannot be opened", hint=f"it is {path}: {error.strerror}"
        ) from None
    with os.fdopen(handle, "rb") as file:
        _check_trusted(name, path, os.fstat(handle))
        try:
            yield tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the file of source {name!r} is damaged ({error})", hint=f"save it again; it is {path}"
            ) from None


def _check_trusted(name: str, path: Path, file: os.stat_result) -> None:
    """Raise ConfigError when others than this user, or root, may say what stands in the file: it says where keys go."""
    if not stat.S_ISREG(file.st_mode):
        raise ConfigError(f"the file of source {name!r} is not a file", hint=f"remove what is at {path}")
    if os.name != "posix":
        return
    folders = [(one, one.lstat()) for one in (path.parent, path.parent.parent)]
    for place, found in ((path, file), *folders):
        if place != path and not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"{place} is not a folder of yours", hint="remove the link at that place")
        _check_rights(f"the {'file' if place == path else 'folder'} of source {name!r}", place, found)


def _check_rights(what: str, place: Path, found: os.stat_result) -> None:
    if found.st_uid not in {os.getuid(), 0}:
        raise ConfigError(f"{what} belongs to another user", hint=f"check it, then chown $USER {place}")
    if found.st_mode & 0o022:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise ConfigError(f"others may write {what}", hint=f"check it, then chmod {mode} {place}")


def _to_toml(config: SourceConfig, secrets: Mapping[str, Secret], secrets_of: str) -> str:
    settings = _settings(config) | {"secrets": list(secrets), _SECRETS_OF: secrets_of}
    tables = {"": settings, "auth": _auth(config), "sts_role": asdict(config.sts_role) if config.sts_role else {}}
    lines = ["# A source of kinesis_nb. Secrets are not in here."]
    for name, table in tables.items():
        lines += [f"\n[{name}]"] if name and table else []
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _settings(config: SourceConfig) -> dict[str, object]:
    options: dict[str, object] = {name: getattr(config, name) for name in _SETTINGS}
    if not isinstance(config.agents, str):  # a client of Dask is of this process
        options["agents"] = None
    if config.proxy:
        options |= {"proxy": config.proxy.address, "proxy_user": config.proxy.user}
    return options


def _auth(config: SourceConfig) -> dict[str, object]:
    match config.auth:
        case StaticCredentials() as keys:
            return {"access_key_id": keys.access_key_id}
        case Profile() as profile:
            return {"profile": profile.name}
        case AwsInstance():
            return {"instance": True}
        case _:
            return {}


def _toml(value: object) -> str:
    """Return a text, a number, a truth or a list of texts: TOML writes them as JSON does, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _from_toml(
    name: str, saved: dict[str, Any], overridden: Collection[str], given: Mapping[str, Secret] | None
) -> dict[str, object]:
    secrets, auth, role = saved.pop("secrets"), saved.pop("auth", None), saved.pop("sts_role", None)
    ring = _Ring(name, saved.pop(_SECRETS_OF, ""))
    address, user = saved.pop("proxy", None), saved.pop("proxy_user", "")
    options: dict[str, object] = {key: saved[key] for key in _SETTINGS if key in saved}
    if auth and "auth" not in overridden:
        if "profile" in auth:
            options["auth"] = Profile(auth["profile"])
        elif "instance" in auth:
            options["auth"] = AwsInstance()
        else:
            kinds = [kind for kind in ("secret_access_key", "session_token") if kind in secrets]
            keys = {kind: _recall(ring, kind, given) for kind in kinds}
            options["auth"] = StaticCredentials(auth["access_key_id"], **keys)
    if role:
        options["sts_role"] = StsRole(**role)
    if address and "proxy" not in overridden:
        password = _recall(ring, "proxy_password", given) if "proxy_password" in secrets else None
        options["proxy"] = Proxy(address, user, password)
    return options


def _secrets(config: SourceConfig) -> dict[str, Secret]:
    found = {"proxy_password": config.proxy.password if config.proxy else None}
    if isinstance(config.auth, StaticCredentials):
        found |= {"secret_access_key": config.auth.secret_access_key, "session_token": config.auth.session_token}
    return {kind: secret for kind, secret in found.items() if secret}


class _Ring:
    """The secrets of one saving of a source, in the keyring of the system; where there is none, nothing is kept.

    Parameters
    ----------
    secrets_of
        Stands in the file, and in the names of the secrets: those of another saving do not fit it.
    """

    def __init__(self, name: str, secrets_of: str) -> None:
        self.name, self.secrets_of = name, secrets_of
        self._keyring = find_keyring()

    @property
    def is_there(self) -> bool:
        """Whether the system has a keyring."""
        return self._keyring is not None

    def _entry(self, kind: str) -> str:
        return f"{self.name}/{kind}/{self.secrets_of}" if self.secrets_of else f"{self.name}/{kind}"

    def keep(self, secrets: Mapping[str, Secret]) -> None:
        """Keep all of them, or none."""
        if self._keyring is None:
            return
        try:
            for kind, secret in secrets.items():
                self._keyring.set(self._entry(kind), secret.reveal())
        except BaseException as error:
            self.drop(secrets)
            if not isinstance(error, Exception):
                raise
            if isinstance(error, ConfigError):
                raise ConfigError(f"{error.message}: source {self.name!r} is not saved", hint=error.hint) from None
            why = type(error).__name__  # its text is another package's, and its frames hold the secret
        else:
            return
        raise ConfigError(
            f"the keyring does not take the secrets of source {self.name!r} ({why}), so nothing is saved",
            hint="unlock it and save again",
        )

    def find(self, kind: str) -> Secret | None:
        """Return a secret; None when the keyring does not have it, or does not give it."""
        known = None
        with suppress(Exception):  # a locked keyring has an error of its own for that
            known = self._keyring.get(self._entry(kind)) if self._keyring else None
        return Secret(known) if known else None

    def drop(self, kinds: Iterable[str]) -> None:
        """Remove secrets that nothing refers to any more."""
        if self._keyring is None:
            return
        for kind in kinds:
            with suppress(Exception):  # it was not there
                self._keyring.delete(self._entry(kind))


def _recall(ring: _Ring, kind: str, given: Mapping[str, Secret] | None) -> Secret:
    """Return a secret that was given, else from the keyring, else from whoever sits here."""
    if known := (given or {}).get(kind) or ring.find(kind):
        return known
    asked = kind.replace("_", " ")
    answer = _ask(f"{asked} of source {ring.name!r}: ") if given is None else ""
    if not answer:
        option = "proxy=" if kind == "proxy_password" else "auth="
        raise ConfigError(
            f"the {asked} of source {ring.name!r} is not known here",
            hint=f"unlock the keyring, or save it again; or give {option}"
            if ring.is_there
            else f"no keyring keeps it: give {option}, or pip install 'kinesis_nb[keyring]' and save it again",
        )
    return Secret(answer)


def _ask(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # better no secret than one that is echoed
            return getpass.getpass(prompt)
    except (EOFError, OSError, NotImplementedError, RuntimeError, getpass.GetPassWarning):
        return ""


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
