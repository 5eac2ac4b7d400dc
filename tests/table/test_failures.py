"""What is told of an error of the object store or of Delta: in words, not as their libraries write values."""

from __future__ import annotations

import pytest

from kinesis_nb.table.failures import one_line

SAID = [
    (
        (
            'Generic { store: "S3", source: RetryError(RetryErrorImpl { method: PUT, uri: Some(http://h:9/b/x), '
            'retries: 2, inner: Status { status: 500, body: Some("try later") } }) }'
        ),
        "S3, method PUT, uri http://h:9/b/x, retries 2, Status: status 500, body try later",
    ),
    (
        'Os { code: 28, kind: StorageFull, message: "No space left on device" }',
        "No space left on device (os error 28)",
    ),
    (
        "Kernel error\n ↳ Generic S3 error\n ↳ Connection refused (os error 111)",
        "S3 error Connection refused (os error 111)",
    ),
    ("Kernel error -> Generic S3 error Error performing GET", "S3 error Error performing GET"),
    (
        'NotFound { path: "t/_delta_log", source: Custom("gone") }',
        "NotFound: path t/_delta_log, gone",
    ),
    ("AccessDenied: no rights (403)", "AccessDenied: no rights (403)"),
    ("[Errno 13] Permission denied: '/x{1}'", "[Errno 13] Permission denied: '/x{1}'"),
]


@pytest.mark.parametrize(("said", "plain"), SAID)
def test_a_failure_is_told_in_words(said: str, plain: str) -> None:
    """The names, braces and wrappers of Rust are left out; what says whether it may pass or was refused stays."""
    assert one_line(OSError(said)) == plain
