"""The library: complete, small, bit-identical to its record, with valid states and bounds."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO, FormatError, InvalidProblemError, library
from problems.errors import UnknownProblemError
from problems.library import catalogue
from problems.library.__main__ import main
from problems.library.best import closed, write_best
from problems.library.recipe import (
    fisher_factor,
    layer_error_matrix,
    read_recipe,
    rebuild,
    start_of,
    unit_exponent,
)
from problems.library.tables import COLUMNS, cells
from problems.scaling import coefficient_sum
from scripts.library.specs import RUNS

ALL = library.names()
SMALL, LARGE = library.names(collection="small"), library.names(collection="large")
SIZES = {12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096}


def everything_holds(name: str) -> None:
    """Check a problem's record independently of ``verify``."""
    entry = library.verify(name)
    problem, record = entry.problem, catalogue.record_of(name)
    assert problem.hash == entry.hash == record["hash"]
    assert (entry.n, entry.k, problem.num_groups) == (record["n"], record["k"], record["groups"])
    assert problem.is_feasible(entry.start)
    assert problem.energy(entry.start) == entry.start_energy == 0.0
    assert problem.is_feasible(entry.best)
    assert problem.energy(entry.best) == entry.best_energy < 0.0
    assert entry.gap(entry.best_energy) == 0
    assert entry.gap(0.0) == 1
    assert entry.bound is not None
    assert entry.bound <= entry.best_energy
    assert np.ldexp(coefficient_sum(problem), -record["unit_exponent"]) < 2**53
    assert entry.collection == ("small" if entry.n <= 256 else "large")
    assert {"task", "settings", "after", "look", "versions", "sources"} <= set(entry.origin)
    assert entry.origin["settings"]["seed"] == 0


@pytest.mark.parametrize("name", SMALL)
def test_small_problems_are_as_recorded(name):
    everything_holds(name)


def test_a_large_problem_is_rebuilt_bit_for_bit():
    everything_holds(max(LARGE, key=lambda name: catalogue.record_of(name)["n"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_problems_are_rebuilt_bit_for_bit(name):
    everything_holds(name)


def test_the_set_is_as_wide_as_it_says():
    rows = library.table()
    assert 55 <= len(rows) <= 80
    for field, least in {
        "model": {"garment", "deit", "lite0", "smollm2"},
        "stage": {"early", "late"},
        "curvature": {"fisher", "gram", "fisher+gram"},
        "constraint": {"layer", "output", "2:4"},
        "n": SIZES,
    }.items():
        assert least <= {row[field] for row in rows}, field
    for model in ("garment", "deit", "lite0", "smollm2"):
        depths = [row["depth"] for row in rows if row["model"] == model]
        assert min(depths) < 0.2
        assert max(depths) > 0.8
    whole = library.load("garment-4-5120-late")
    assert (whole.n, whole.k) == (5120, 4608)  # all of the layer, at density 0.1


def test_every_specification_is_in_the_set_and_no_other():
    specified = {run.name(spec): run.key for run in RUNS for spec in run.specs}
    assert specified == {name: catalogue.record_of(name)["run"] for name in ALL}
    assert {run.key for run in RUNS} == set(catalogue.index()["runs"])
    for run in RUNS:
        made = catalogue.index()["runs"][run.key]
        assert made["settings"] == run.settings
        assert made["after"] == run.after


def test_rounding_keeps_the_energies_of_the_best_states():
    for row in library.table():
        assert row["deviation_at_best"] < 0.01, row["name"]


def test_the_package_holds_at_most_five_megabytes():
    folder = Path(catalogue.__file__).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5e6
    there = {path.stem for path in catalogue.DATA.glob("*.npz")}
    assert there == set(ALL)


@pytest.mark.parametrize("name", library.names(max_n=24))
def test_best_values_of_the_smallest_are_those_of_brute_force(name):
    entry = library.load(name)
    Q, n = entry.problem.Q, entry.n
    numbers = np.arange(1 << n, dtype=np.uint32)
    ones = sum((numbers >> i & 1).astype(np.uint8) for i in range(n))
    numbers = numbers[ones == entry.k]
    best = np.inf
    for part in np.array_split(numbers, max(1, len(numbers) >> 16)):
        states = (part[:, None] >> np.arange(n, dtype=np.uint32) & 1).astype(np.float64)
        best = min(best, float(np.einsum("bi,bi->b", states @ Q, states).min()))
    assert entry.problem.num_groups == 1
    assert entry.proved
    assert entry.bound == entry.best_energy == best + entry.problem.offset


@pytest.mark.parametrize("name", library.names(max_n=64))
def test_no_random_state_is_below_the_bound(name):
    entry = library.load(name)
    rng = np.random.default_rng(0)
    states = np.repeat(entry.start[None], 500, axis=0)
    for state in states:
        for group in range(entry.problem.num_groups):
            own = np.flatnonzero(entry.problem.groups == group)
            state[own] = rng.permutation(state[own])
    assert entry.problem.is_feasible(states).all()
    assert entry.problem.energy(states).min() >= entry.bound


@given(st.randoms(use_true_random=False), st.sampled_from(library.names(max_n=128)))
@settings(max_examples=30, deadline=None)
def test_energies_are_exact_in_any_order(random, name):
    """They are integers times a power of two; Python's own integers agree."""
    entry = library.load(name)
    unit = catalogue.record_of(name)["unit_exponent"]
    x = [random.randint(0, 1) for _ in range(entry.n)]
    whole = np.ldexp(entry.problem.Q, -unit)
    assert (whole == np.rint(whole)).all()
    ones = [i for i, bit in enumerate(x) if bit]
    total = sum(int(whole[i, j]) for i in ones for j in ones)
    expected = total + int(np.ldexp(entry.problem.offset, -unit))
    assert entry.problem.energy(x) == np.ldexp(float(expected), unit)


def test_recipes_are_the_quadratic_model():
    """Energies from Q against those of slope, factor and outputs, in Python's integers."""
    for name in ("garment-4-128-late-sum", "deit-o2-32-early-gram", "garment-2-32-late"):
        recipe = read_recipe(catalogue.DATA / f"{name}.npz")
        problem, start = rebuild(recipe), start_of(recipe)
        rng = np.random.default_rng(0)
        shift = int(recipe["slope_shift"])
        slope = recipe["slope"].astype(int) << max(0, shift)
        finer = max(0, -shift)  # of the curvature, to count in the slope's units
        for _ in range(3):
            u = rng.permutation(start).astype(int) - start
            expected = 0
            factor, matrix = fisher_factor(recipe), layer_error_matrix(recipe)
            if factor is not None:
                expected += int(np.square(factor.astype(int) @ u).sum())
            if matrix is not None:
                for row in np.unique(recipe["rows"]):
                    own = recipe["rows"] == row
                    part = matrix[np.ix_(own, own)].astype(int)
                    expected += int(u[own] @ part @ u[own])
            expected = (expected << finer) - int(slope @ u)
            energy = problem.energy(u + start)
            assert energy == np.ldexp(float(expected), unit_exponent(recipe))


def test_names_are_filtered():
    assert sorted(SMALL + LARGE) == sorted(ALL)
    assert library.names(max_n=12) == [n for n in ALL if "-12-" in n]
    assert library.names(model="deit") == library.names(family="deit")
    chosen = library.names(model="garment", constraint="2:4", stage="late", curvature="fisher")
    assert chosen
    assert all(name.startswith("garment") and name.endswith("2to4") for name in chosen)
    assert "garment-2-1024-early" in library.names(model="garment", collection="large")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": "garments"}, "did you mean 'garment'"),
        ({"curvature": "hessian"}, "fisher+gram"),
        ({"collection": "tiny"}, "small, large, all"),
    ],
)
def test_unknown_filters_are_refused(wrong, words):
    with pytest.raises(InvalidProblemError, match=words.replace("+", r"\+")):
        library.names(**wrong)


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(UnknownProblemError, match="did you mean 'garment-2-1024-early'") as error:
        library.load("garment-2-1024-earli")
    assert "did you mean 'garment-2-1024-early'" in str(error.value)
    assert f"lists all {len(ALL)}" in str(error.value)
    with pytest.raises(UnknownProblemError):
        library.improve("nothing", [0], by="me")


@pytest.fixture
def values(tmp_path):
    """A file of best values in which one is not the best known."""
    entry = library.load("garment-4-16-early")
    worse = best_neighbour(entry)
    file = tmp_path / "best.json"
    known = catalogue.best_values()
    weak = {"energy": entry.problem.energy(worse), "state": catalogue.pack(worse), "by": "a test"}
    write_best(known | {entry.name: known[entry.name] | weak}, file)
    return file


def best_neighbour(entry):
    """The best state that differs from the optimum by a swap, and is below 0."""
    found = []
    for i, j in combinations(range(entry.n), 2):
        x = entry.best.copy()
        x[[i, j]] = x[[j, i]]
        if (x != entry.best).any():
            found.append((entry.problem.energy(x), x))
    energy, x = min(found, key=lambda pair: pair[0])
    assert entry.best_energy < energy < 0
    return x


def test_a_better_state_is_kept(values):
    entry = library.load("garment-4-16-early")
    library.improve(entry.name, entry.best, by="brute force", file=values)
    kept = catalogue.best_values(values)
    assert kept[entry.name]["energy"] == entry.best_energy
    assert kept[entry.name]["by"] == "brute force"
    assert kept[entry.name]["bound"] == entry.bound
    assert (catalogue.unpack(kept[entry.name]["state"], entry.n) == entry.best).all()
    others = catalogue.best_values()
    assert {n: v for n, v in kept.items() if n != entry.name} == {
        n: v for n, v in others.items() if n != entry.name
    }


def test_a_state_that_is_not_better_is_refused(values):
    entry = library.load("garment-4-16-early")
    before = values.read_bytes()
    infeasible = entry.best.copy()
    infeasible[np.flatnonzero(infeasible == 0)[0]] = 1
    for x, words in [
        (entry.start, "not below"),
        (best_neighbour(entry), "not below"),  # as good as the one known
        (infeasible, "ones in group 0"),
        (entry.best[:-1], "shape"),
        (np.full(entry.n, 0.5), "0 and 1"),
        ([entry.best, entry.best], "one state"),
    ]:
        with pytest.raises(InvalidProblemError, match=words):
            library.improve(entry.name, x, by="a test", file=values)
        assert values.read_bytes() == before
    with pytest.raises(InvalidProblemError, match="not below"):
        library.improve(entry.name, entry.best, by="a test")  # the package's own are optimal


def test_groups_are_named_where_a_count_is_wrong():
    entry = library.load(library.names(constraint="2:4")[0])
    x = entry.best.copy()
    first = np.flatnonzero(entry.problem.groups == 1)
    x[first] = 1
    with pytest.raises(InvalidProblemError, match="ones in group 1; its cardinality is"):
        library.improve(entry.name, x, by="a test")


def test_a_state_below_the_bound_is_refused(values, monkeypatch):
    entry = library.load("garment-4-16-early")
    known = catalogue.best_values(values)
    false = known | {entry.name: known[entry.name] | {"bound": entry.best_energy / 2}}
    write_best(false, values)
    monkeypatch.setattr(catalogue, "best_values", lambda *_: false)
    with pytest.raises(InvalidProblemError, match="bound .* must be wrong"):
        library.improve(entry.name, entry.best, by="a test", file=values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"energy": -1.0}, "energy of the best state differs"),
        ({"bound": 0.0}, "below the bound"),
        ({"bound": -1.0}, "optimality is claimed"),
        ({"state": catalogue.pack(np.ones(12, np.uint8))}, "the best state is not feasible"),
    ],
)
def test_verify_finds_what_is_wrong(monkeypatch, change, words):
    name = "garment-2-12-early"
    known = catalogue.best_values()
    false = known | {name: known[name] | change}
    monkeypatch.setattr(catalogue, "best_values", lambda *_: false)
    with pytest.raises(FormatError, match=words):
        library.verify(name)


def test_damage_is_told(tmp_path, monkeypatch):
    name = "garment-2-12-early"
    copy = tmp_path / "data"
    shutil.copytree(catalogue.DATA, copy)
    monkeypatch.setattr(catalogue, "DATA", copy)
    library.load(name)
    recipe = read_recipe(copy / f"{name}.npz")
    recipe["slope"][0] ^= 1
    np.savez(copy / f"{name}.npz", **recipe)
    with pytest.raises(FormatError, match="does not have the recorded hash"):
        library.load(name)
    del recipe["slope"]
    np.savez(copy / f"{name}.npz", **recipe)
    with pytest.raises(FormatError, match="lacks slope"):
        library.load(name)
    (copy / f"{name}.npz").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="readable"):
        library.load(name)


def test_closed_grants_rounding_alone():
    assert closed(-1.0, -1.0, 0.0)
    assert closed(-1.0, -1.0 - 1e-10, 1.0)
    assert not closed(-1.0, -1.1, 1.0)
    assert not closed(-1.0, None, 1.0)


def test_files_are_written_bit_for_bit(tmp_path, capsys):
    names = ["garment-2-12-early", "deit-o2-32-early-gram"]
    assert main(["build", str(tmp_path), *names]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    for name in names:
        entry = library.load(name)
        assert CardinalityQUBO.load(tmp_path / f"{name}.npz").hash == entry.hash
        told = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
        assert entry.problem.energy([int(c) for c in told["best"]]) == told["best_energy"]
        assert told["origin"]["task"] in ("garment", "deit")
    assert main(["verify", *names]) == 0
    assert main(["build", str(tmp_path), "nothing"]) == 1
    assert "'python -m problems.library table' lists all" in capsys.readouterr().err


def test_tables_name_every_problem(capsys):
    for form in ("text", "csv", "json", "markdown"):
        assert main(["table", "--format", form]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in ALL), form
    rows = library.table()
    assert [row["name"] for row in rows] == ALL
    assert all(len(cells(row)) == len(COLUMNS) for row in rows)


def test_improving_on_the_command_line(tmp_path, values, capsys):
    entry = library.load("garment-4-16-early")
    text = tmp_path / "x.txt"
    text.write_text(" ".join(map(str, entry.best)), encoding="utf-8")
    arguments = ["improve", entry.name, str(text), "--by", "a test", "--file", str(values)]
    assert main(arguments) == 0
    assert "best value known" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "not below" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", entry.start)
    arguments[2] = str(tmp_path / "x.npy")
    assert main(arguments) == 1
    text.write_text("10x", encoding="utf-8")
    assert main([*arguments[:2], str(text), *arguments[3:]]) == 1


def test_no_torch_and_no_network_is_needed():
    code = (
        "import sys\nfrom problems import library\n"
        "library.load('garment-2-1024-early')\n"
        "assert 'torch' not in sys.modules and 'socket' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_data_are_licensed():
    text = (catalogue.DATA / "LICENSE.md").read_text("utf-8")
    assert "CC-BY-4.0" in text
    named = {source for run in catalogue.index()["runs"].values() for source in run["sources"]}
    for source in named:
        assert source.partition(": ")[2].partition(" (")[0].split(",")[0] in text, source
    assert "CC-BY-4.0" in importlib.metadata.metadata("icbs-pruning").get("License-Expression", "")
