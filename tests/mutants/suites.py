"""All suites by name."""

from __future__ import annotations

from tests.mutants import access, agents, calls, export, foreign, forms, jobs, journal, parsing, reader, sync, views

SUITES = {
    "reader": reader.SUITE,
    "foreign": foreign.SUITE,
    "access": access.SUITE,
    "export": export.SUITE,
    "journal": journal.SUITE,
    "parsing": parsing.SUITE,
    "sync": sync.SUITE,
    "agents": agents.SUITE,
    "jobs": jobs.SUITE,
    "calls": calls.SUITE,
    "views": views.SUITE,
    "forms": forms.SUITE,
}
