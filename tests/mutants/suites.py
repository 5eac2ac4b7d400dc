"""All suites by name."""

from __future__ import annotations

from tests.mutants import access, agents, calls, export, journal, reader, sync

SUITES = {
    "reader": reader.SUITE,
    "access": access.SUITE,
    "export": export.SUITE,
    "journal": journal.SUITE,
    "sync": sync.SUITE,
    "agents": agents.SUITE,
    "calls": calls.SUITE,
}
