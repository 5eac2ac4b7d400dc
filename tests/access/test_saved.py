"""Sources by name: what is saved, what is never in the file, and who may read it."""

from __future__ import annotations

import getpass
import os
import stat
import sys
import threading
import tomllib
import traceback
import types
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked
from keyrings.cryptfile.cryptfile import CryptFileKeyring

import kinesis_nb as kn
from kinesis_nb.access.config import SourceConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET, TOKEN, PASSWORD = "s3cret/KEY+1", "t0ken==", "pr0xy"
ROLE = kn.StsRole("arn:aws:iam::123456789012:role/reader", "me", 1800, "ext-42")


class MemoryKeyring(KeyringBackend):
    """A real back end as keyring defines one, in memory."""

    priority = 5.0  # pyright: ignore[reportAssignmentType] - as each back end of keyring sets it

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.room = 100
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("locked")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if len(self.held) >= self.room:
            raise KeyringLocked(f"no room for {password}")
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config directory is a fresh one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "kinesis_nb" / "sources"


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    keyring.set_keyring(ring := MemoryKeyring())
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def no_ring() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(before)


def full(certificate: str | bool = True) -> kn.Source:  # noqa: FBT001, FBT002
    return kn.connect(
        region="eu-central-1",
        auth=kn.StaticCredentials("AKIATEST", SECRET, TOKEN),
        sts_role=ROLE,
        exports_enabled=True,
        endpoint_url="https://vpce.example.com",
        sts_endpoint_url="https://sts.example.com",
        proxy=f"http://ada:{PASSWORD}@proxy.example.com:3128",
        verify=certificate,
        use_fips_endpoint=True,
        use_dualstack_endpoint=False,
        allow_http=True,
        agents="tls://scheduler.example.com:8786",
    )


def test_everything_comes_back(folder: Path, ring: MemoryKeyring) -> None:
    """Every option of a source survives being saved, secrets by way of the keyring."""
    full(certificate=False).save("orders-prod")
    assert kn.sources() == ["orders-prod"]
    assert kn.connect("orders-prod").config == full(certificate=False).config
    assert kn.connect("orders-prod").config.proxy.reveal() == f"http://ada:{PASSWORD}@proxy.example.com:3128"  # type: ignore[union-attr]
    changed = [one.name for one in fields(SourceConfig) if getattr(full(False).config, one.name) != one.default]
    assert set(changed) == {one.name for one in fields(SourceConfig)}  # so that a new option cannot be forgotten


@pytest.mark.slow
def test_a_keyring_of_the_system(folder: Path, tmp_path: Path) -> None:
    """A real back end, an encrypted file, keeps the secrets; with it the source comes back, and no file shows one."""
    ring: Any = CryptFileKeyring()
    ring.file_path, ring.keyring_key = str(tmp_path / "ring"), "a password"
    before = keyring.get_keyring()
    keyring.set_keyring(ring)
    try:
        full(certificate=False).save("orders-prod")
        assert kn.connect("orders-prod").config == full(certificate=False).config
    finally:
        keyring.set_keyring(before)
    for path in (folder / "orders-prod.toml", tmp_path / "ring"):
        assert not [secret for secret in (SECRET, TOKEN, PASSWORD) if secret in path.read_text()]


def test_no_secret_is_in_the_file(folder: Path, ring: MemoryKeyring) -> None:
    """The file says which secrets there are, and none of them; it is TOML."""
    full().save("orders-prod")
    text = (folder / "orders-prod.toml").read_text()
    assert not [secret for secret in (SECRET, TOKEN, PASSWORD) if secret in text]
    assert tomllib.loads(text)["secrets"] == ["proxy_password", "secret_access_key", "session_token"]
    assert sorted(ring.held.values()) == sorted([SECRET, TOKEN, PASSWORD])


def test_keywords_override_what_was_saved(ring: MemoryKeyring) -> None:
    """Also a keyword that is given as its own default."""
    full().save("orders-prod")
    other = kn.connect("orders-prod", exports_enabled=False, region="us-east-1", auth=None, proxy=None).config
    assert (other.exports_enabled, other.region, other.auth, other.proxy) == (False, "us-east-1", None, None)
    assert other.endpoint_url == "https://vpce.example.com"


def test_a_profile_and_the_default_chain_need_no_secret(folder: Path, no_ring: None) -> None:
    """Nothing is asked for where there is no secret."""
    kn.connect(auth=kn.Profile("dev")).save("dev")
    kn.connect().save("plain")
    assert kn.connect("dev").config.auth == kn.Profile("dev")
    assert kn.connect("plain").config == kn.connect().config
    assert kn.sources() == ["dev", "plain"]


def test_without_a_keyring_the_secret_is_asked_for(no_ring: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each secret once, by name; what was typed is used."""
    with pytest.warns(
        UserWarning, match=r"without its secret access key.*\nhint: kn\.connect\('orders'\) asks"
    ) as warned:
        kn.connect(auth=kn.StaticCredentials("AKIATEST", SECRET)).save("orders")
    assert [warning.filename for warning in warned] == [__file__]
    asked: list[str] = []

    def type_in(prompt: str) -> str:
        asked.append(prompt)
        return SECRET

    monkeypatch.setattr("getpass.getpass", type_in)
    assert kn.connect("orders").config.auth == kn.StaticCredentials("AKIATEST", SECRET)
    assert asked == ["secret access key of source 'orders': "]
    kn.connect("orders", auth=None)
    assert len(asked) == 1


def test_with_nobody_to_ask_it_is_an_error(no_ring: None) -> None:
    """Without a terminal: two lines that say how, and no echo, no hanging."""
    with pytest.warns(UserWarning, match="without its "):
        full().save("orders")
    with pytest.raises(
        kn.ConfigError, match=r"secret access key of source 'orders' is not known here\nhint: no keyring .*auth="
    ):
        kn.connect("orders")


@pytest.mark.parametrize("backend", [fail.Keyring(), null.Keyring()], ids=lambda one: type(one).__module__)
def test_a_keyring_that_keeps_nothing_is_none(backend: KeyringBackend) -> None:
    """The back ends that fail, or forget, get no secret."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        with pytest.warns(UserWarning, match="without its "):
            full().save("orders")
    finally:
        keyring.set_keyring(before)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package works where keyring is not installed."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.warns(UserWarning, match="without its "):
        full().save("orders")
    assert kn.sources() == ["orders"]
    assert isinstance(sys.modules["kinesis_nb.access.saved"], types.ModuleType)


def test_the_files_are_the_users_alone(folder: Path) -> None:
    """0700 and 0600, also where the folder was open before."""
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    kn.connect().save("orders")
    kn.connect(region="eu-west-1").save("orders")
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "orders.toml").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["orders.toml"]
    assert kn.connect("orders").config.region == "eu-west-1"


def test_no_link_is_followed(folder: Path, tmp_path: Path) -> None:
    """Neither when reading nor when writing, for the file or its folder."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    kn.connect().save("orders")
    (folder / "orders.toml").unlink()
    (folder / "orders.toml").symlink_to(victim)
    with pytest.raises(kn.ConfigError, match="cannot be opened"):
        kn.connect("orders")
    kn.connect().save("orders")
    assert victim.read_text() == "untouched"
    assert not (folder / "orders.toml").is_symlink()
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(kn.ConfigError, match="is not a folder of yours"):
        kn.connect().save("more")
    assert not (elsewhere / "more.toml").exists()


def test_a_file_that_others_may_write_is_not_trusted(folder: Path) -> None:
    """Who can write it decides where requests go."""
    kn.connect().save("orders")
    (folder / "orders.toml").chmod(0o666)
    with pytest.raises(kn.ConfigError, match=r"others may write.*\nhint: check it, then chmod 600"):
        kn.connect("orders")


@pytest.mark.skipif(os.name != "posix", reason="owners as POSIX knows them")
@pytest.mark.parametrize("what", ["orders.toml", ".", ".."])
def test_what_another_user_owns_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Neither a file nor a folder of somebody else, whatever its mode; what root has made is trusted."""
    kn.connect().save("orders")
    place = (folder / what).resolve()
    me = place.stat().st_uid
    for look in ("fstat", "stat"):
        monkeypatch.setattr(os, look, _owned(getattr(os, look), place, me + 1))
    monkeypatch.setattr("os.getuid", lambda: me + 2)
    with pytest.raises(
        kn.ConfigError, match=r"(file|folder) of source 'orders' belongs to another user\nhint: .* chown"
    ):
        kn.connect("orders")


def _owned(look: Callable[..., os.stat_result], place: Path, owner: int) -> Callable[..., os.stat_result]:
    """Return a look at files that sees one of them owned by somebody, and the others by root."""
    inode = place.stat().st_ino

    def seen(what: object, **options: object) -> os.stat_result:
        found = list(look(what, **options))
        found[stat.ST_UID] = owner if found[stat.ST_INO] == inode else 0
        return os.stat_result(found)

    return seen


@pytest.mark.parametrize("what", [".", ".."])
def test_a_folder_that_others_may_write_is_not_trusted(folder: Path, what: str) -> None:
    """Who can write into the folder can put another file there; saving takes that from them."""
    kn.connect().save("orders")
    (folder / what).resolve().chmod(0o770)
    with pytest.raises(kn.ConfigError, match=r"others may write the folder.*\nhint: check it, then chmod 700"):
        kn.connect("orders")
    kn.connect().save("orders")
    assert kn.connect("orders").config == kn.connect().config


def test_a_folder_behind_a_link_is_not_read(folder: Path, tmp_path: Path) -> None:
    """What a link leads to may be anybody's."""
    kn.connect().save("orders")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(kn.ConfigError, match="is not a folder of yours"):
        kn.connect("orders")


def test_a_pipe_keeps_nobody_waiting(folder: Path) -> None:
    """What is no file is refused at once."""
    kn.connect().save("orders")
    (folder / "orders.toml").unlink()
    os.mkfifo(folder / "orders.toml")
    with pytest.raises(kn.ConfigError, match="is not a file"):
        kn.connect("orders")


def test_saving_again_leaves_no_old_secret(ring: MemoryKeyring) -> None:
    """What the new source does not have is gone from the keyring, also of one that an earlier version saved."""
    full().save("orders")
    kn.connect(auth=kn.StaticCredentials("AKIAOTHER", "another")).save("orders")
    assert list(ring.held.values()) == ["another"]
    kn.connect(auth=kn.Profile("dev")).save("orders")
    assert ring.held == {}


def test_secrets_that_an_earlier_version_saved(folder: Path, ring: MemoryKeyring) -> None:
    """They are found under the names that it gave them, and removed under these."""
    kn.connect(auth=kn.StaticCredentials("AKIATEST", SECRET)).save("orders")
    [(service, entry)] = ring.held
    text = (folder / "orders.toml").read_text()
    (folder / "orders.toml").write_text("\n".join(line for line in text.splitlines() if "secrets_of" not in line))
    ring.held = {(service, entry.rpartition("/")[0]): SECRET}
    assert kn.connect("orders").config.auth == kn.StaticCredentials("AKIATEST", SECRET)
    kn.connect().save("orders")
    assert ring.held == {}


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_keyring_that_fails_changes_nothing(ring: MemoryKeyring, room: int) -> None:
    """All secrets are kept or none; the source of before stays, whole, and nothing of the new one does."""
    kn.connect(auth=kn.StaticCredentials("AKIAOLD", "old")).save("orders")
    ring.room = 1 + room
    with pytest.raises(
        kn.ConfigError, match=r"keyring does not take .*\(KeyringLocked\), so nothing is saved\nhint"
    ) as no:
        full().save("orders")
    assert list(ring.held.values()) == ["old"]
    assert kn.connect("orders").config.auth == kn.StaticCredentials("AKIAOLD", "old")
    assert no.value.__cause__ is no.value.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(no.value, capture_locals=True).format())
    assert not [secret for secret in (SECRET, TOKEN, PASSWORD) if secret in shown]


class AskingKeyring(MemoryKeyring):
    """One that asks for its own password, and asks again when that fails."""

    def __init__(self, ask: Callable[[], str]) -> None:
        super().__init__()
        self.ask = ask

    def _unlock(self) -> None:
        while True:
            try:
                self.ask()
            except ValueError:
                continue
            return

    def get_password(self, service: str, username: str) -> str | None:
        self._unlock()
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self._unlock()
        super().set_password(service, username, password)

    def delete_password(self, service: str, username: str) -> None:
        self._unlock()
        super().delete_password(service, username)


def end_of_file() -> str:
    raise EOFError


ASKING = [
    lambda: getpass.getpass("Password: "),
    lambda: input("Password: "),
    lambda: sys.stdin.readline(),
    end_of_file,
]


@pytest.fixture
def silent_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A standard input on which nothing ever comes, as that of a kernel."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield
        os.close(writing)


@pytest.mark.usefixtures("silent_input")
@pytest.mark.parametrize("ask", ASKING, ids=["getpass", "input", "stdin", "EOFError"])
def test_a_keyring_that_asks_is_an_error(ring: MemoryKeyring, folder: Path, ask: Callable[[], str]) -> None:
    """Where nobody can type, as in a notebook: two lines, nothing is saved and nothing waits; other input works on."""
    full().save("orders")
    keyring.set_keyring(asking := AskingKeyring(ask))
    before = (folder / "orders.toml").read_bytes()
    with pytest.raises(
        kn.ConfigError, match=r"asks for a password, which nobody can type here: source .* not saved\nhint: use one"
    ) as caught:
        full().save("orders")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert asking.held == {}
    assert (folder / "orders.toml").read_bytes() == before
    with pytest.raises(kn.ConfigError, match="secret access key of source 'orders' is not known here"):
        kn.connect("orders")


def test_a_keyring_that_does_not_respond_is_waited_for_once(
    ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is an error, and what was to be saved is not."""
    monkeypatch.setattr("kinesis_nb.access.system_keyring.PATIENCE", 0.2)
    never, waits = threading.Event(), list[int]()

    def ask() -> str:
        waits.append(1)
        return str(never.wait(30))

    keyring.set_keyring(AskingKeyring(ask))
    try:
        with pytest.raises(kn.ConfigError, match=r"the keyring did not respond within 0 s: source 'orders' is not"):
            full().save("orders")
    finally:
        never.set()
    assert waits == [1]
    assert kn.sources() == []


def test_a_keyring_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was chosen by somebody, so its absence is not the same as no keyring."""

    def missing() -> KeyringBackend:
        raise ModuleNotFoundError("no such back end")

    monkeypatch.setattr(keyring, "get_keyring", missing)
    with pytest.raises(kn.ConfigError, match=r"cannot be loaded \(ModuleNotFoundError\)\nhint: check PYTHON_KEYRING"):
        full().save("orders")


def test_a_locked_keyring_gives_nothing(ring: MemoryKeyring) -> None:
    """A secret that it does not give is asked for; with nobody there that is an error of ours."""
    full().save("orders")
    ring.is_locked = True
    with pytest.raises(kn.ConfigError, match=r"is not known here\nhint: unlock the keyring"):
        kn.connect("orders")


def test_a_secret_of_another_saving_does_not_fit(
    folder: Path, ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key id never meets the secret of the old one, also where the keyring was away meanwhile."""
    kn.connect(auth=kn.StaticCredentials("AKIAOLD", "old")).save("orders")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "keyring", None)
        with pytest.warns(UserWarning, match="without its secret access key"):
            kn.connect(auth=kn.StaticCredentials("AKIANEW", "new")).save("orders")
    assert list(ring.held.values()) == ["old"]
    with pytest.raises(kn.ConfigError, match="is not known here"):
        kn.connect("orders")


@pytest.mark.parametrize(
    "text", ["region = ", "region = 1\nsecrets=[]", "\xff", "[auth]\nx=1", "secrets=[]\n[sts_role]\nx=1"]
)
def test_a_damaged_file_is_an_error(folder: Path, text: str) -> None:
    """Two lines, whatever is wrong with it."""
    kn.connect().save("orders")
    (folder / "orders.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(kn.ConfigError) as caught:
        kn.connect("orders")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0b", "x" * 65, ".hidden", "ä", 3, None])
def test_a_name_that_is_none(name: object) -> None:
    """A name that could leave the folder, or be no file, is refused."""
    with pytest.raises(kn.ConfigError):
        kn.connect().save(name)  # type: ignore[arg-type]
    assert kn.sources() == []


def test_the_name_of_a_profile(ring: MemoryKeyring) -> None:
    """Whoever gives one where a saved source is wanted learns how to name a profile."""
    with pytest.raises(kn.ConfigError, match=r"no saved source 'company'\nhint: .*auth=kn\.Profile\('company'\)"):
        kn.connect("company")


def test_a_misspelt_name(ring: MemoryKeyring) -> None:
    """The nearest saved name is offered; a region is recognised."""
    kn.connect().save("orders-prod")
    with pytest.raises(kn.ConfigError, match="did you mean 'orders-prod'"):
        kn.connect("orders-prd")
    with pytest.raises(kn.ConfigError, match='write region="eu-central-1"'):
        kn.connect("eu-central-1")
