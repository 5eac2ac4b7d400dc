"""Checking a request against the API's shapes, with the service's own wording."""

from __future__ import annotations

import re
from collections.abc import Sized
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from .errors import AwsError, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["String", "Integer", "Boolean", "Timestamp", "Blob", "List", "Map", "Structure"]

_MOST_ERRORS = 10  # the service stops counting there
_TYPES: dict[Kind, tuple[type, ...]] = {
    "String": (str,),
    "Integer": (int,),
    "Boolean": (bool,),
    "Timestamp": (int, float),
    "Blob": (bytes, bytearray, memoryview),
    "List": (list, tuple),
    "Map": (dict,),
    "Structure": (dict,),
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one member of a request may be.

    Parameters
    ----------
    low, high
        Bounds of a number, or of the length of anything else.
    keys
        Bounds of the length of a map's keys.
    members
        The members of a structure; each may be a rule of any kind.
    member
        The rule for the members of a list or the values of a map.
    """

    kind: Kind
    required: bool = False
    low: int | None = None
    high: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    keys: tuple[int, int] | None = None
    members: Mapping[str, Rule] | None = None
    member: Rule | None = None


def check(params: object, members: Mapping[str, Rule], path: str = "") -> None:
    """Raise unless `params` satisfies the rules.

    Raises
    ------
    AwsError
        SerializationException for a wrong type, ValidationException with up to ten complaints for a wrong value.
    """
    errors = _members(params, members, path)
    if errors:
        raise refused(summary(errors))


def summary(errors: list[str]) -> str:
    """Return the message for a list of complaints."""
    errors = errors[:_MOST_ERRORS]
    count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''}"
    return f"{count} detected: {'; '.join(errors)}"


def complaint(path: str, value: object, constraint: str) -> str:
    """Return one complaint: what stands where and what it should have been."""
    return f"Value {_shown(value)} at '{path}' failed to satisfy constraint: {constraint}"


def too_long(high: int) -> str:
    """Return the constraint that something too long breaks."""
    return f"Member must have length less than or equal to {high}"


def _members(params: object, members: Mapping[str, Rule], path: str) -> list[str]:
    if not isinstance(params, dict):
        raise AwsError("SerializationException", "Start of structure or map expected.")
    errors: list[str] = []
    for name, rule in members.items():
        errors += _value(params.get(name), rule, f"{path}{name[0].lower()}{name[1:]}")
    return errors


def _value(value: object, rule: Rule, path: str) -> list[str]:
    if value is None:
        return [complaint(path, None, "Member must not be null")] if rule.required else []
    _check_type(value, rule.kind)
    broken = [complaint(path, value, constraint) for constraint in _broken(value, rule)]
    return broken + _inner(value, rule, path)


def _check_type(value: object, kind: Kind) -> None:
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "Boolean"):
        raise AwsError("SerializationException", f"{type(value).__name__} can not be converted to {kind}")


def _inner(value: object, rule: Rule, path: str) -> list[str]:
    if rule.kind == "Structure":
        return _members(value, rule.members or {}, f"{path}.")
    member = rule.member
    if member is None or not isinstance(value, (dict, list, tuple)):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value, 1)
    return [error for key, item in items for error in _value(item, member, f"{path}.{key}.member")]


def _broken(value: object, rule: Rule) -> list[str]:
    broken = _outside(value, rule) if isinstance(value, (int, Sized)) else []  # a timestamp has no bounds
    if rule.pattern is not None and isinstance(value, str) and not _compiled(rule.pattern).fullmatch(value):
        broken.append(f"Member must satisfy regular expression pattern: {rule.pattern}")
    if rule.choices and value not in rule.choices:
        broken.append(f"Member must satisfy enum value set: [{', '.join(rule.choices)}]")
    if rule.keys is not None and isinstance(value, dict):
        broken += _outside_keys(value, *rule.keys)
    return broken


def _outside_keys(value: Mapping[str, object], low: int, high: int) -> list[str]:
    if all(low <= len(key) <= high for key in value):
        return []
    return [
        f"Map keys must satisfy constraint: [{too_long(high)}, Member must have length greater than or equal to {low}]"
    ]


def _outside(value: int | Sized, rule: Rule) -> list[str]:
    if rule.low is None and rule.high is None:
        return []
    size, measure = (value, "value") if isinstance(value, int) else (len(value), "length")
    broken: list[str] = []
    if rule.low is not None and size < rule.low:
        broken.append(f"Member must have {measure} greater than or equal to {rule.low}")
    if rule.high is not None and size > rule.high:
        broken.append(f"Member must have {measure} less than or equal to {rule.high}")
    return broken


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"'java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]'"
    if isinstance(value, (list, tuple)):
        return f"'[{len(value)} members]'"
    return f"'{value}'"
