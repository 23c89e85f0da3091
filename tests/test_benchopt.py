"""The benchmark for benchopt runs, and passes benchopt's own tests."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROBLEM = "garment-2-12-early"

pytest.importorskip("benchopt")


@pytest.fixture
def benchmark(tmp_path):
    """A copy, since benchopt writes beside what it runs."""
    folder = tmp_path / "pruning"
    ignored = shutil.ignore_patterns("outputs", "__cache__", "__pycache__")
    shutil.copytree(ROOT / "benchmarks/benchopt", folder, ignore=ignored)
    return folder


def benchopt(*words):
    path = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        # It calls pytest by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    return subprocess.run(
        [sys.executable, "-m", "benchopt", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | path,
    )


@pytest.mark.slow
def test_a_run_has_a_row_for_each_incumbent(benchmark):
    import pandas as pd

    done = benchopt(
        *("run", benchmark, "-d", f"library[problem={PROBLEM}]", "-r", "2", "--no-display"),
        *("-s", "anneal[time_limit=0.2]", "-s", "exact[time_limit=0.2]"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = (benchmark / "outputs").glob("*.parquet")
    frame = pd.read_parquet(result)
    assert len(list((benchmark / "outputs").glob("*.html"))) >= 1
    for _, run in frame.groupby(["solver_name", "idx_rep"]):
        assert len(run) >= 2  # an incumbent and the end
        assert run["objective_seconds"].is_monotonic_increasing
        assert (run["objective_value"].diff().dropna() <= 1e-12).all()
        assert run["objective_value"].iloc[-1] <= 1e-9
        assert math.isfinite(run["objective_energy"].iloc[-1])
    assert frame[frame["solver_name"].str.startswith("exact")]["objective_proved"].max() == 1


@pytest.mark.slow
def test_it_passes_the_tests_of_benchopt(benchmark):
    done = benchopt("test", benchmark, "--skip-install")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
