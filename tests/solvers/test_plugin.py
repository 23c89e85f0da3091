"""The example of a third-party solver, installed like by a user."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_solver"

SCRIPT = """
import numpy as np
from icbs.cli import main
from problems import CardinalityQUBO
from solvers import available, names, solve
from solvers.testing import check_solver
from solvers.testing.verify import lowest_energy

assert "descent" in names() and "descent" in available()
check_solver("descent")
Q = np.random.default_rng(0).normal(size=(12, 12))
problem = CardinalityQUBO(Q + Q.T, k=5)
best = lowest_energy(problem)
assert abs(solve(problem, "descent", num_reads=20, seed=0).energy - best) < 1e-9
try:
    main()  # icbs solvers
except SystemExit:
    pass
print("\\n---\\nfound and conforming")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the example into a separate folder, built from a copy."""
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, *offline, "--target", str(target), str(source)], check=True)
    return target


def test_an_installed_plugin_is_found_and_conforms(installed):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, "solvers"], env=environment, capture_output=True, text=True
    )
    listing, _, verdict = result.stdout.rpartition("\n---\n")
    assert verdict.strip() == "found and conforming", result.stderr
    assert "descent" in listing


def test_an_installed_plugin_prunes_a_small_model_beside_its_true_optimum(installed, tmp_path):
    """The job of the how-to on small models, by the example's solver."""
    command = "from icbs.cli import main; main()"
    job = ["prune", "--task", "tiny", "--density", "0.17", "--block-size", "all", "--passes", "5"]
    more = ["--solver", "descent", "--enumerate", "--run", str(tmp_path / "run")]
    paths = {"PYTHONPATH": str(installed), "ICBS_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", command, *job, *more], env=os.environ | paths, check=True)
    found = json.loads((tmp_path / "run" / "optimum.json").read_text())
    stages = {stage["name"]: stage for stage in found["stages"]}
    optimum, descent = stages["quadratic optimum"], stages["quadratic, descent"]
    assert found["proved"]
    assert 0 < found["solver_share"] <= 1 + 1e-9
    if found["solver_share"] > 1 - 1e-9:
        assert descent["loss"] == pytest.approx(optimum["loss"])
    assert stages["true optimum"]["loss"] <= min(s["loss"] for s in (optimum, descent))
    assert stages["iCBS, 5 passes"]["loss"] <= stages["start (magnitude)"]["loss"]


def test_without_the_plugin_its_name_is_unknown():
    from solvers import UnknownSolverError, get

    with pytest.raises(UnknownSolverError, match="descent"):
        get("descent")
