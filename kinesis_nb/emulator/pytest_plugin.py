"""A fixture for your own tests: an embedded Kinesis per test.

Load it once, in the top-level ``conftest.py``::

    pytest_plugins = ["kinesis_nb.emulator.pytest_plugin"]

and ask for it by name::

    def test_my_consumer(kinesis_emulator):
        kinesis = boto3.client("kinesis", **kinesis_emulator.settings)
        kinesis.create_stream(StreamName="orders", ShardCount=2)
        kinesis_emulator.on("GetRecords", ErrorReply("ExpiredIteratorException"))
        kinesis_emulator.source().read("orders", progress=False)
        assert kinesis_emulator.delivered["ExpiredIteratorException"] == 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def kinesis_emulator() -> Iterator[Emulator]:
    """Serve an empty embedded Kinesis during one test; afterwards no thread and no connection is left."""
    with Emulator() as emulator:
        yield emulator
