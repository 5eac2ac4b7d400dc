"""JSON as programs really write it: NaN, halves of surrogates, a byte order mark, several values in one text."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import NamedTuple

import msgspec

from kinesis_nb.jsontext.shapes import join

_SPACE = re.compile(r"[ \t\n\r]*")
_LONE = re.compile("[\ud800-\udfff]")


class Value(NamedTuple):
    """One of the JSON values of a text.

    Attributes
    ----------
    raw
        As strict JSON; numbers are written as they were.
    changed
        What is not as it was written.
    """

    raw: bytes
    changed: list[str]


class _Constant(NamedTuple):
    """What Python's json.dumps writes for a float that is not a number."""

    name: str


# Numbers are never parsed: their digits go through as they are.
_decoder = json.JSONDecoder(parse_int=msgspec.Raw, parse_float=msgspec.Raw, parse_constant=_Constant)


def read_leniently(text: str) -> list[Value]:
    r"""Return the JSON objects of a text: one behind the other, or in an array; or the single value that it is.

    A byte order mark is passed over, NaN and Infinity are null, and half of a surrogate is U+FFFD.

    Raises
    ------
    ValueError
        For what is not even such JSON.
    RecursionError
        For what is nested too deeply.

    Examples
    --------
    >>> read_leniently('{"a": NaN}\n{"a": 1.50}')
    [Value(raw=b'{"a":null}', changed=['a: NaN is not JSON, read as null']), Value(raw=b'{"a":1.50}', changed=[])]
    """
    text = text.removeprefix("\ufeff")
    first, end = _decoder.raw_decode(text, _space(text, 0))
    values = [first]
    while (begin := _space(text, end)) < len(text):
        value, end = _another(text, begin)
        values.append(value)
    return [_strict(item) for value in values for item in (value if _has_object(value) else [value])]


def _another(text: str, begin: int) -> tuple[object, int]:
    """Return the value behind another one, and where it ends; a number after a number is not a list of values."""
    with suppress(json.JSONDecodeError):
        value, end = _decoder.raw_decode(text, begin)
        if isinstance(value, dict | list):
            return value, end
    raise json.JSONDecodeError("Extra data", text, begin)


def _space(text: str, start: int) -> int:
    """Return where the white space ends that begins at a place."""
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _has_object(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _strict(value: object) -> Value:
    changed: list[str] = []
    return Value(msgspec.json.encode(_cleaned(value, None, changed)), list(dict.fromkeys(changed)))


def _cleaned(value: object, path: str | None, changed: list[str]) -> object:
    """Return a value without what JSON does not have, and name each such thing."""
    match value:
        case _Constant():
            changed.append(f"{path}: {value.name} is not JSON, read as null")
            return None
        case str():
            return _without_halves(value, path, changed)
        case list():
            return [_cleaned(item, f"{path or ''}[]", changed) for item in value]
        case dict():
            names = [_without_halves(name, "a name", changed) for name in value]
            members = zip(names, value.values(), strict=True)
            return {name: _cleaned(member, join(path, name), changed) for name, member in members}
        case _:
            return value


def _without_halves(text: str, path: str | None, changed: list[str]) -> str:
    if not _LONE.search(text):
        return text
    changed.append(f"{path}: half of a surrogate, read as U+FFFD")
    return _LONE.sub("\ufffd", text)
