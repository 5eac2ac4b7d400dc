"""All suites by name."""

from __future__ import annotations

from tests.mutants import access, agents, export, journal, parsing, reader, sync

SUITES = {
    "reader": reader.SUITE,
    "access": access.SUITE,
    "export": export.SUITE,
    "journal": journal.SUITE,
    "parsing": parsing.SUITE,
    "sync": sync.SUITE,
    "agents": agents.SUITE,
}
