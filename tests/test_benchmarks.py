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


def test_groups_are_compared_seed_by_seed(tmp_path):
    tables = import_module("benchmarks.structure_tables")

    def write(method, seed, loss, untuned=None):
        row = {"share": 0.5, "loss": loss, "figures": {"accuracy": 0.8, "loss": loss}}
        row |= {"seconds": 1.0, "speedup": 2.0, "untuned": untuned or {}}
        (tmp_path / f"sarcasm_0.5_{method}_{seed}.json").write_text(json.dumps(row))

    before = {"loss": 0.6, "seconds": 1.0, "figures": {"accuracy": 0.7, "loss": 0.6}}
    write("kwon", 0, 0.5, before)
    write("kwon", 2, 0.7, before)
    write("model", 0, 0.4)
    write("model", 1, 9.0)  # no cell of the other method has this seed
    write("model", 2, 0.5)
    page = tables.page(tmp_path)
    assert "| sarcasm | 0.5 | model – kwon | 2 | +0 | -0.15 ± 0.05 |" in page
    assert "| sarcasm | 0.5 | model – kwon, untuned | 2 | +0.1 | -0.15 ± 0.05 |" in page
    assert "- sarcasm: 1:dense:0, 0.7:magnitude:0" in page
