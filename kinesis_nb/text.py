"""Hostile text made visible: what a record, a server or a file says is shown, and never obeyed."""

from __future__ import annotations

import unicodedata

_LONGEST = 2_000
# controls (ANSI and OSC sequences begin with one), directions and joiners, halves of surrogates, private and unassigned
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# letters and marks that Unicode gives no picture: they would hide that two texts differ
_NO_PICTURE = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
    | {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
)
_MARKS = 3  # combining marks on one letter; more of them paint over the lines above and below


def visible(text: str) -> str:
    r"""Return the text with every character that is not plainly itself as its escape.

    Examples
    --------
    >>> print(visible("\x1b[31mred \u202etxt.exe"))
    \u001b[31mred \u202etxt.exe
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        is_itself = category not in _CATEGORIES and ord(char) not in _NO_PICTURE and marks <= _MARKS
        shown.append(char if is_itself else escape(char))
    return "".join(shown)


def escape(char: str) -> str:
    """Return the escape of a character, as in Python."""
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"  # noqa: PLR2004


def one_line(text: str) -> str:
    """Return the text as one visible line of reasonable length."""
    text = text[: _LONGEST + 1]  # a long one is not worth looking at whole
    shown = visible(" ".join(text.splitlines()))
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
