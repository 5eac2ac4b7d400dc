"""What the HTTP libraries below us may log: which calls they make, never what was in them.

At DEBUG botocore logs whole requests and responses: signatures, session tokens, records, and the secret key in STS's
response. Its templates stay, the values that could hold any of this do not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

_LIBRARIES = ("botocore", "boto3", "urllib3")
_NEVER = ("botocore.auth", "botocore.parsers", "botocore.credentials", "botocore.tokens", "botocore.utils")
_PLAIN = re.compile(r"[\w .,:/()=<>'-]{0,100}")  # one line of words; no header, no body, no base64
_KEY = re.compile(r"[A-Za-z0-9/+=]{20,}")


class Redact(logging.Filter):
    """Withholds, below WARNING, every value that is not plainly harmless."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, without the values that it must not show."""
        if record.levelno >= logging.WARNING:
            return True
        withhold = record.name.startswith(_NEVER)
        if isinstance(record.args, Mapping):  # logging takes a lone mapping for the arguments themselves
            withheld = f"<{type(record.args).__name__} withheld>"
            record.args = dict.fromkeys(record.args, withheld) if "%(" in str(record.msg) else (withheld,)
        elif record.args:
            record.args = tuple(_shown(value, withhold=withhold) for value in record.args)
        record.exc_info = record.exc_text = None
        return True


def install() -> None:
    """Put the filter on every logger of the libraries; a filter of a parent does not see its children's records."""
    for name in (*_LIBRARIES, *list(logging.root.manager.loggerDict)):
        if name.partition(".")[0] in _LIBRARIES:
            logger = logging.getLogger(name)
            if not any(isinstance(old, Redact) for old in logger.filters):
                logger.addFilter(_redact)


def _shown(value: object, *, withhold: bool) -> object:
    if isinstance(value, int | float | None):
        return value
    text = str(value)
    if type(value).__name__ == "OperationModel":
        return text
    if withhold or not _PLAIN.fullmatch(text) or _KEY.search(text):
        return f"<{type(value).__name__} withheld>"
    return text


_redact = Redact()
