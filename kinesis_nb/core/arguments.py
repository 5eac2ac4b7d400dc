"""What the arguments of a public call may be, by the annotations of its signature: checked in one place.

Equivalents of other libraries are accepted: a number of numpy, a timedelta where seconds are meant.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, ParamSpec, TypeVar, cast, get_args, get_origin

from kinesis_nb.core import types
from kinesis_nb.errors import ConfigError, UnknownOption, closest

P = ParamSpec("P")
R = TypeVar("R")

Seconds = float | timedelta
"""A time to wait."""

_FUNCTION = re.compile(r"Callable\[\[.*?\], \w+\]")
MOST = 2**63 - 1  # of a whole number: what Arrow and polars count with


def in_seconds(given: Seconds | None) -> float:
    """Return a time to wait as a number; infinity where none is given."""
    if given is None:
        return math.inf
    return given.total_seconds() if isinstance(given, timedelta) else given


class _Default:
    """Placeholder of an option that was not given; shows its default in a signature."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def default(value: R) -> R:
    """Mark the default of an option, so that :func:`given` knows it from the same value given by the caller."""
    return cast("R", _Default(value))


def given(options: dict[str, R]) -> dict[str, R]:
    """Return the options that were given by the caller."""
    return {name: value for name, value in options.items() if not isinstance(value, _Default)}


def hinted(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a public call: the options by their names, and the values by their annotations.

    A call that does not fit is an :class:`UnknownOption` that says what was probably meant, or a ConfigError.
    """
    signature = inspect.signature(function)
    expected = _checks(signature)
    known = [name for name in signature.parameters if name not in {"self", "cls"}]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise _unknown(function.__name__, name, known)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            hint = f"call it as {function.__name__}({_shown(signature, known)})"
            raise UnknownOption(f"{function.__name__}(): {error}", hint=hint) from None
        for name in bound.arguments.keys() & expected.keys():
            bound.arguments[name] = expected[name](bound.arguments[name])
        return function(*bound.args, **bound.kwargs)

    return call


def _unknown(function: str, name: str, known: Sequence[str]) -> UnknownOption:
    hint = closest(name, known) or (f"its options are {', '.join(known)}" if known else "it has none")
    return UnknownOption(f"{function}() has no option {name!r}", hint=hint)


def _shown(signature: inspect.Signature, names: Iterable[str]) -> str:
    return ", ".join(str(signature.parameters[name]).partition(":")[0].partition("=")[0] for name in names)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError for any text but one of the choices."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r:.40} is not one of its choices", hint=f"use {_or(choices)}")


def _or(choices: Sequence[str]) -> str:
    *others, last = [f'"{choice}"' for choice in choices]
    return f"{', '.join(others)} or {last}"


def check_count(name: str, value: object) -> None:
    """Raise ConfigError for anything but a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}: {value!r} is not a number of rows", hint="give a whole number, 1 or more")


def _checks(signature: inspect.Signature) -> dict[str, Callable[[object], object]]:
    """Return, per parameter that can be checked, a function that converts an argument to what the callee gets.

    Each raises ConfigError for anything else, and shows no value: it may be a secret in the wrong place.
    """
    found = {}
    for name, parameter in signature.parameters.items():
        kinds = _alternatives(parameter.annotation)
        if kinds and _KINDS.keys() >= set(kinds):
            found[name] = _check(name, kinds)
    return found


def _alternatives(annotation: object) -> list[str]:
    """Return the parts of a union as they are written; of a function only that it is one."""
    return _FUNCTION.sub("Callable", annotation).split(" | ") if isinstance(annotation, str) else []


def _check(name: str, kinds: list[str]) -> Callable[[object], object]:
    choices = [choice for kind in kinds for choice in _CHOICES.get(kind, ())]
    wanted = " or ".join(_KINDS[kind][0] for kind in kinds if kind != "None")

    def check(value: object) -> object:
        for kind in kinds:
            if (found := _KINDS[kind][1](value)) is not _WRONG:
                if choices and isinstance(found, str):
                    check_choice(name, found, choices)
                return found
        raise ConfigError(f"{name}= does not accept {_described(value)}", hint=f"give {wanted}")

    return check


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return "text that is not Unicode" if _str(value) is _WRONG else "text"
    return "None" if value is None else f"this {type(value).__name__}"


_WRONG = object()


def _none(value: object) -> object:
    return None if value is None else _WRONG


def _bool(value: object) -> object:
    is_truth = isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ == "bool")
    return bool(value) if is_truth else _WRONG


def _is_number(value: object, kind: type) -> bool:
    # a time is a whole number to numpy, of whatever unit
    is_time = getattr(getattr(value, "dtype", None), "kind", "") in {"m", "M"}
    return isinstance(value, kind) and not isinstance(value, bool) and not is_time


def _int(value: object) -> object:
    if not _is_number(value, numbers.Integral):
        return _WRONG
    found = operator.index(value)  # type: ignore[arg-type]
    return found if -MOST <= found <= MOST else _WRONG


def _float(value: object) -> object:
    if not _is_number(value, numbers.Real):
        return _WRONG
    try:
        found = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return _WRONG
    return _WRONG if math.isnan(found) else found


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else _float(value)


def _datetime(value: object) -> object:
    return value if isinstance(value, datetime) else _WRONG


def _str(value: object) -> object:
    if not isinstance(value, str):
        return _WRONG
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return _WRONG
    return str.__str__(value)  # numpy's own kind shows itself as such


def _path(value: object) -> object:
    return value if isinstance(value, os.PathLike) else _WRONG


def _callable(value: object) -> object:
    return value if callable(value) and not isinstance(value, type) else _WRONG


def _texts(value: object) -> object:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) != 1:
        return _WRONG
    found = tuple(map(_str, value))
    return _WRONG if _WRONG in found else found


_CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(alias) for name, alias in vars(types).items() if get_origin(alias) is Literal
}
_KINDS: dict[str, tuple[str, Callable[[object], object]]] = {
    "None": ("None", _none),
    "bool": ("True or False", _bool),
    "int": ("a whole number", _int),
    "float": ("a number", _float),
    "Seconds": ("seconds, or a timedelta", _seconds),
    "datetime": ("a datetime", _datetime),
    "str": ("text", _str),
    "PathLike[str]": ("a path", _path),
    "Callable": ("a function", _callable),
    "Iterable[str]": ("a list of texts", _texts),
    **{name: (_or(choices), _str) for name, choices in _CHOICES.items()},
}
