"""What runs in this process, by its own type: a source without agents begins nothing else."""

from __future__ import annotations

from typing import overload

import kinesis_nb as kn


@overload
def local(handle: kn.Sync | kn.AgentSync) -> kn.Sync: ...


@overload
def local(handle: kn.StreamingExport | kn.AgentExport) -> kn.StreamingExport: ...


def local(
    handle: kn.Sync | kn.AgentSync | kn.StreamingExport | kn.AgentExport,
) -> kn.Sync | kn.StreamingExport:
    """Return a handle, which must not be one of a job of agents."""
    assert isinstance(handle, kn.Sync | kn.StreamingExport), handle
    return handle
