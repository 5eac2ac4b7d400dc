"""A sync on a disk whose power is cut: a small run of `make powercut`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kinesis_nb.emulator import Emulator
from tests.powercut.campaign import Campaign
from tests.powercut.disk import disk, why_not

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be done here")
def test_a_power_cut(tmp_path: Path) -> None:
    """What a sync reported is there after a power cut; the table opens, and the sync goes on to the last record."""
    with Emulator() as emulator, disk(tmp_path) as made:
        campaign = Campaign(emulator, tmp_path, made, seed=3)
        for seconds in (0.05, 0.5):
            campaign.cut(seconds)
    assert campaign.report.is_good, campaign.report
