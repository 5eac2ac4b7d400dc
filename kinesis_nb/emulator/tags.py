"""The tags of one resource."""

from __future__ import annotations

import re

from .errors import invalid

MOST_TAGS = 50  # AWS: per resource
_BAD_CHARACTER = re.compile(r"[^\w\s./\-=+@:]")


def set_tags(tags: dict[str, str], more: dict[str, str], name: str, account: str) -> None:
    """Add tags to those of a resource; raise InvalidArgumentException for bad characters or too many."""
    if any(_BAD_CHARACTER.search(text) for pair in more.items() for text in pair):
        raise invalid(
            "Some tags contain invalid characters. Valid characters: "
            "Unicode letters, digits, white space, _ . / = + - % @."
        )
    if len(tags.keys() | more.keys()) > MOST_TAGS:
        raise invalid(
            f"Failed to add tags to stream {name} under account {account} because a given stream "
            f"cannot have more than {MOST_TAGS} tags associated with it."
        )
    tags.update(more)
