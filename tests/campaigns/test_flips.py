"""No flipped bit in any file of a run changes what it comes to without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.small import in_fresh_interpreter


def flip(folder: Path, flips: int, seed: int) -> dict[str, Any]:
    command = ["tests.campaigns.flips", folder, "--flips", flips, "--seed", seed]
    report = in_fresh_interpreter(command)
    assert report["wrong"] == []
    assert report["refused"] + report["harmless"] == flips
    assert report["refused"] > 0.8 * flips
    return report


def test_a_few_flips(tmp_path):
    assert len(flip(tmp_path, 30, 1)["files"]) == 9


@pytest.mark.slow
def test_four_hundred_flips(tmp_path):
    flip(tmp_path, 400, 0)
