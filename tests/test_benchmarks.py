"""Benchmarks reach into the rooms of the house, and must follow when those change."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(sys.platform == "win32", reason="they measure memory by module resource")
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_it_imports(name):
    import_module(f"benchmarks.{name}")


@pytest.mark.skipif(sys.platform == "win32", reason="they measure memory by module resource")
def test_each_seed_has_its_own_loss_before_a_recovery(tmp_path):
    recovery, tables = (import_module(f"benchmarks.{n}") for n in ("recovery", "recovery_tables"))
    found = [
        cell
        for cell in recovery.cells(2, tmp_path, tmp_path)
        if cell.key in ("garment-512:0.02:wanda:none", "garment-512:0.02:wanda:global")
    ]
    for cell in found:
        row = {"losses": [1.0], "figures": {}, "calibration": 1.0, "density": 0.02}
        row |= {"mask_seconds": 1.0, "peak_gigabytes": 1.0}
        if cell.recovery == "global":
            row["recovered"] = {"initial_loss": 2.0 + cell.mask.seed, "loss": 1.0}
        cell.file.write_text(json.dumps(row))
    tables.write_tables(found, tmp_path / "table")
    rows = {row["recovery"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    assert rows["none"]["means"]["heldout"] == 2.5
    assert rows["global"]["means"]["heldout"] == 1.0
