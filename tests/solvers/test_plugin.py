"""The example of a third-party solver, installed like by a user."""

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


def test_without_the_plugin_its_name_is_unknown():
    from solvers import UnknownSolverError, get

    with pytest.raises(UnknownSolverError, match="descent"):
        get("descent")
