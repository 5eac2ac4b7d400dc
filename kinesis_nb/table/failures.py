"""What Delta, Arrow, polars and the object store raise, as errors of ours and in one line."""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake.exceptions import DeltaError

from kinesis_nb.errors import KinesisError, TableError, forget_frames

if TYPE_CHECKING:
    from collections.abc import Generator

_NOISE = re.compile(r"\x1b\[[0-9;]*m|↳")
# how Rust writes values for its developers: Name { field: value, … } and Name(value), the innermost ones
_RUST = re.compile(r"\b([A-Z]\w*)(?: \{ ([^{}]*) \}|\(([^(){}]*)\))")
_RUST_OS = re.compile(r'\bOs \{ code: (\d+), kind: \w+, message: "([^"]*)" \}')
_RUST_FIELD = re.compile(r"\b([a-z_]+): ")
_WRAPPERS = re.compile(
    r"\bKernel error:? (?:-> )?|\bGeneric (?=\w+ error)"
)  # the kernel of Delta, not that of the notebook
_NAMELESS = {"Generic", "Some", "Custom", "Error", "RetryError", "RetryErrorImpl"}  # names that say nothing
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN}


@contextmanager
def storage_errors() -> Generator[None]:
    """Raise what Delta and the object store say of their storage as one line and as the OSError that it is."""
    try:
        yield
    except KinesisError:  # some of them are an OSError as well
        raise
    except (DeltaError, OSError, pa.ArrowException) as error:
        forget_frames(error)  # they hold the options of the object store
        raise OSError(one_line(error)) from error


@contextmanager
def storage_explained(uri: str) -> Generator[None]:
    """Raise what goes wrong with the table at `uri` as an error that says what the user can do."""
    import polars as pl

    try:
        with storage_errors():
            yield
    except KinesisError:  # some of them are an OSError as well
        raise
    except OSError as error:
        raise explain(uri, error) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        forget_frames(error)
        raise explain(uri, OSError(one_line(error))) from error


def one_line(error: BaseException) -> str:
    """Return the message of an object store, which is drawn as a tree of many lines, in one."""
    text = _plain(" ".join(_NOISE.sub(" ", str(error)).split()))
    return text if len(text) <= 400 else f"{text[:399]}…"  # noqa: PLR2004 - a few lines of a screen


def _plain(text: str) -> str:
    """Return a message without the way Rust writes values for its developers."""
    text = _RUST_OS.sub(r"\2 (os error \1)", _WRAPPERS.sub("", text))
    while (plainer := _RUST.sub(_in_words, text)) != text:
        text = plainer
    return text


def _in_words(value: re.Match[str]) -> str:
    name, fields, content = value.groups()
    inner = (content if fields is None else _RUST_FIELD.sub(_field_in_words, fields)).replace('"', "")
    return inner if name in _NAMELESS else f"{name}: {inner}"


def _field_in_words(field: re.Match[str]) -> str:
    return "" if field[1] in {"store", "source", "inner", "error"} else f"{field[1]} "


def explain(uri: str, error: OSError) -> TableError:
    """Return the error for a place that cannot be used, with what the user can do about it."""
    said = str(error)
    if "NoSuchBucket" in said:
        return TableError(f"{uri}: there is no such bucket", hint="create the bucket first, and check its region")
    if is_refusal(said):
        return TableError(
            f"{uri}: access denied ({said})",
            hint="the credentials need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there",
        )
    hint = "check the place and its permissions"
    return TableError(f"{uri} cannot be used: {said}", hint=hint, retryable="://" in uri or _may_pass(said))


def is_refusal(said: str) -> bool:
    """Whether an object store says that the credentials do not permit what was asked."""
    return bool(re.search(r"AccessDenied|ACCESS_DENIED|\b403\b|InvalidAccessKeyId|SignatureDoesNotMatch", said))


def _may_pass(said: str) -> bool:
    """Whether an error of a file system may pass, as when the disk is full; a wrong path or permission does not."""
    found = re.search(r"(?:Errno|os error) (\d+)", said)  # Python's words, and Rust's
    return found is not None and int(found[1]) in _PASSING
