"""Benchmarks reach into the rooms of the house, and must follow when those change."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.records import Records

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(sys.platform == "win32", reason="they measure memory by module resource")
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_it_imports(name):
    import_module(f"benchmarks.{name}")


def test_new_results_are_added_to_committed_ones(tmp_path):
    file, folder = tmp_path / "committed.json", tmp_path / "new"
    first = Records(file, folder)
    first.add("one", {"loss": 1 / 3})
    first.add("two", {"loss": 2.0})
    first.save()
    assert json.loads(file.read_text()) == {"one": {"loss": 0.333333}, "two": {"loss": 2.0}}
    elsewhere = Records(file, tmp_path / "other machine")
    assert elsewhere.find("one") == {"loss": 0.333333}
    assert elsewhere.find("three") is None
    elsewhere.add("two", {"loss": 3.0})
    elsewhere.add("three", {"losses": [4.0]})
    elsewhere.save()
    known = Records(file, tmp_path / "none").known
    assert known == {"one": {"loss": 0.333333}, "three": {"losses": [4.0]}, "two": {"loss": 3.0}}


@pytest.fixture
def garments(tmp_path):
    """Cells of a benchmark of recoveries, without results."""
    recovery = import_module("benchmarks.recovery")
    records = Records(tmp_path / "recovery.json", tmp_path)
    return {(c.key, c.mask.seed): c for c in recovery.cells(2, tmp_path, records)}


def _result(losses, **more):
    test = {"loss": sum(losses) / len(losses), "losses": losses}
    row = {"test": test, "figures": {}, "calibration": 1.0, "density": 0.02}
    return row | {"mask_seconds": 1.0, "peak_gigabytes": 1.0} | more


@pytest.mark.skipif(sys.platform == "win32", reason="they measure memory by module resource")
def test_each_seed_has_its_own_loss_before_a_recovery(tmp_path, garments):
    tables = import_module("benchmarks.recovery_tables")
    for seed in (0, 1):
        alone, moved = (garments[f"garment-512:0.02:wanda:{r}", seed] for r in ("none", "global"))
        alone.records.add(alone.file, _result([1.0]))
        found = {"initial_loss": 2.0 + seed, "loss": 1.0}
        moved.records.add(moved.file, _result([1.0], recovered=found))
    tables.write_tables(list(garments.values()), tmp_path / "table.md")
    lines = (tmp_path / "table.md").read_text().splitlines()
    none, moved = ([c.strip() for c in line.split("|")] for line in lines if "| wanda |" in line)
    assert none[3:] == ["none", "0.0200", "1.0000 ± 0.0000", "1.0000 ± 0.0000",
                        "2.5000 ± 0.5000", "1", "1.0", "", "2", ""]  # fmt: skip
    assert moved[7] == "1.0000 ± 0.0000"


@pytest.mark.skipif(sys.platform == "win32", reason="they measure memory by module resource")
def test_our_best_recovery_is_compared_sample_by_sample(garments):
    differences = import_module("benchmarks.recovery_differences").differences
    rows = {
        "wanda:none": _result([1.0, 2.0, 3.0]),
        "icbs:none": _result([0.1, 0.1, 0.1], initial=0.9),
        "icbs:distill": _result([0.9, 1.8, 2.7], recovered={"loss": 0.8}),
    }
    known = [(garments[f"garment-512:0.02:{name}", 0], row) for name, row in rows.items()]
    lines = differences(known)
    assert lines[-2] == "| 0.02 | icbs, distill | wanda, none | -0.2000 ± 0.0577 |"
    assert differences(known[:1]) == []


@pytest.mark.skipif(sys.platform == "win32", reason="they measure memory by module resource")
def test_the_page_compares_the_model_of_lowest_held_out_loss(tmp_path, garments):
    """That of a mask by itself is known from its recovery."""
    tables = import_module("benchmarks.recovery_tables")
    moved = {"initial_loss": 0.8, "loss": 0.8}
    for key, row in {
        "icbs:none": _result([0.1, 0.1]),
        "icbs:distill": _result([0.1, 0.1], recovered=moved),
        "together:distill": _result([0.2, 0.2], recovered={"loss": 0.9}),
        "wanda:none": _result([1.0, 2.0]),
    }.items():
        cell = garments[f"garment-512:0.02:{key}", 0]
        cell.records.add(cell.file, row)
    tables.write_tables(list(garments.values()), tmp_path / "table.md")
    page = (tmp_path / "table.md").read_text()
    assert "| 0.02 | icbs, none | wanda, none | -1.4000 ± 0.5000 |" in page


def test_groups_are_compared_seed_by_seed(tmp_path):
    tables = import_module("benchmarks.structure_tables")
    records = Records(tmp_path / "structure.json", tmp_path)

    def write(method, seed, loss, untuned=None):
        row = {"share": 0.5, "loss": loss, "figures": {"accuracy": 0.8, "loss": loss}}
        row |= {"seconds": 1.0, "speedup": 2.0, "untuned": untuned or {}}
        records.add(f"sarcasm_0.5_{method}_{seed}", row)

    before = {"loss": 0.6, "seconds": 1.0, "figures": {"accuracy": 0.7, "loss": 0.6}}
    write("kwon", 0, 0.5, before)
    write("kwon", 2, 0.7, before)
    write("model", 0, 0.4)
    write("model", 1, 9.0)  # no cell of the other method has this seed
    write("model", 2, 0.5)
    page = tables.page(records)
    assert "| sarcasm | 0.5 | model – kwon | 2 | +0 | -0.15 ± 0.05 |" in page
    assert "| sarcasm | 0.5 | model – kwon, untuned | 2 | +0.1 | -0.15 ± 0.05 |" in page
    assert "- sarcasm: 1:dense:0, 0.8:random:0" in page
