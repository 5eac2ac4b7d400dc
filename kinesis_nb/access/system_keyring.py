"""The keyring of the system, asked where it cannot ask back: a question that nobody sees would wait for ever."""

from __future__ import annotations

import builtins
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from kinesis_nb.core import interrupt
from kinesis_nb.errors import ConfigError
from kinesis_nb.notebook import has_kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

T = TypeVar("T")

PATIENCE = 60.0  # seconds for a keyring that has the user confirm something in a window of its own
_SERVICE = "kinesis_nb"  # the keyring's word for whose secrets these are
_ASKS = {"getpass", "ipykernel.kernelbase"}  # modules whose functions of these names wait for somebody to type
_QUESTIONS = {"getpass", "unix_getpass", "win_getpass", "fallback_getpass", "raw_input"}
_CHOOSE = "use one that does not ask: keyring --list-backends lists them, PYTHON_KEYRING_BACKEND chooses one"


class _Module(Protocol):
    """What we use of the module keyring."""

    def set_password(self, service_name: str, username: str, password: str) -> None: ...

    def get_password(self, service_name: str, username: str) -> str | None: ...

    def delete_password(self, service_name: str, username: str) -> None: ...


class SystemKeyring:
    """What the keyring holds for us, by names of entries.

    Every method raises what the keyring raises, and ConfigError when it asks for a password where nobody can type one,
    or does not respond. It is not tried again then.
    """

    def __init__(self, module: _Module) -> None:
        self._module = module
        self._fault: ConfigError | None = None

    def set(self, entry: str, secret: str) -> None:
        """Keep a secret."""
        self._call(partial(self._module.set_password, _SERVICE, entry, secret))

    def get(self, entry: str) -> str | None:
        """Return a secret, or None."""
        return self._call(partial(self._module.get_password, _SERVICE, entry))

    def delete(self, entry: str) -> None:
        """Remove a secret."""
        self._call(partial(self._module.delete_password, _SERVICE, entry))

    def _call(self, call: Callable[[], T]) -> T:
        if self._fault is not None:
            raise ConfigError(self._fault.message, hint=self._fault.hint)
        try:
            return call() if _can_ask() else _unasked(call)
        except ConfigError as error:
            self._fault = error
            raise


def find_keyring() -> SystemKeyring | None:
    """Return the keyring if the system has a real one: not the one that fails, not one that is a plain file.

    Raises
    ------
    ConfigError
        When the one that was chosen cannot be loaded.
    """
    try:
        import keyring
    except ImportError:
        return None
    try:
        backend = keyring.get_keyring()
        first = next(iter(getattr(backend, "backends", ())), backend)  # of a chain, the one that is written to
        is_real = float(first.priority) >= 1
    except Exception as error:  # noqa: BLE001 - another package's, of whatever kind
        why = type(error).__name__
        raise ConfigError(f"the keyring cannot be loaded ({why})", hint="check PYTHON_KEYRING_BACKEND") from None
    return SystemKeyring(keyring) if is_real else None


def _can_ask() -> bool:
    """Whether a question of a keyring would be seen, and could be answered: on a terminal."""
    return not has_kernel() and sys.stdin is not None and sys.stdin.isatty()


class _Asked(BaseException):
    """In place of a question; no ``except Exception`` of a keyring takes it for a reason to ask again."""


def _unasked(call: Callable[[], T]) -> T:
    """Do this in a thread that can ask nothing, and wait for a while."""
    outcome: list[Callable[[], T]] = []
    is_over = threading.Event()

    def work() -> None:
        sys.setprofile(_refuse_questions)  # of this thread alone, unlike anything that replaces getpass() or input()
        try:
            found = call()
            outcome.append(lambda: found)
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for it
            outcome.append(partial(_raise, error))
        finally:
            sys.setprofile(None)
            is_over.set()

    threading.Thread(target=work, name="kinesis_nb keyring", daemon=True).start()
    if not interrupt.wait(is_over, PATIENCE):
        message = f"the keyring did not respond within {PATIENCE:,.0f} s"
        raise ConfigError(message, hint=f"unlock it, or {_CHOOSE}")
    return outcome[0]()


def _raise(error: BaseException) -> NoReturn:
    if isinstance(error, _Asked | EOFError):
        raise ConfigError("the keyring asks for a password, which nobody can type here", hint=_CHOOSE) from None
    raise error


def _refuse_questions(frame: FrameType, event: str, what: object) -> None:
    """Raise _Asked when a thread is about to wait for somebody to type; called at every call that it makes."""
    if event == "call":
        is_question = frame.f_code.co_name in _QUESTIONS and frame.f_globals.get("__name__") in _ASKS
    else:
        is_question = event == "c_call" and (what is builtins.input or getattr(what, "__self__", what) is sys.stdin)
    if is_question:
        raise _Asked
