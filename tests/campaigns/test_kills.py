"""A run that is killed, at any moment and before any file operation, ends as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.small import in_fresh_interpreter


def kill(folder: Path, case: str, kills: int, every: int) -> dict[str, Any]:
    command = ["tests.campaigns.kills", folder, "--case", case, "--kills", kills, "--every", every]
    report = in_fresh_interpreter(command)
    assert report["differing"] == []
    assert report["failed"] == []
    assert report["at_random"] == kills
    return report


def test_a_few_kills(tmp_path):
    report = kill(tmp_path, "masks", 4, 45)
    assert report["at_operation"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kills", "every"),
    [("toy", 200, 1), ("masks", 40, 3), ("blocks", 60, 1), ("language", 40, 3)],
)
def test_many_kills(tmp_path, case, kills, every):
    """At random moments, and before each file operation."""
    report = kill(tmp_path, case, kills, every)
    assert report["at_operation"] >= report["operations"] // every
