"""Names of solvers with several distributions, each in a fresh process."""

import json
import os
import subprocess
import sys

import pytest

PLUGIN = """
import numpy as np
from solvers import Capabilities, Outcome, Solver, Stop

class Other(Solver):
    name, summary, capabilities = "other", "of another distribution", Capabilities()

    def run(self, problem, request):
        return Outcome(np.eye(1, problem.n, dtype=np.uint8), Stop.CONVERGED)

class Silent(Other):
    summary = None

class Nosy(Other):
    @classmethod
    def missing(cls):
        raise SystemExit(3)
"""


@pytest.fixture
def install(tmp_path):
    """Create a distribution on the path: metadata and modules."""

    def put(name, solvers, **modules):
        about = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{solver} = {value}" for solver, value in solvers.items()]
        (about / "entry_points.txt").write_text("\n".join(["[icbs.solvers]", *lines, ""]))
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)

    return put


@pytest.fixture
def python(tmp_path):
    """Run code with those distributions installed; return the process."""

    def run(code, *arguments):
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "300"},
            capture_output=True,
            text=True,
        )

    return run


#: Prints the available names, and the output of ``icbs solvers --json``.
LISTING = """
import json, sys
from icbs.cli import main
from solvers import available

print(json.dumps(available()))
sys.argv[1:] = ["solvers", "--json"]
main()
"""


def listing(result):
    """Return the available names, and the record of each."""
    assert result.returncode == 0, result.stderr
    names, found = result.stdout.splitlines()
    return json.loads(names), {entry["name"]: entry for entry in json.loads(found)}


def test_other_distributions_cannot_replace_built_in_solvers(install, python):
    install("aaa-impostor", {"anneal": "impostor:Other"}, impostor=PLUGIN)
    install("zzz.Impostor", {"anneal": "impostor:Other", "other": "impostor:Other"})
    result = python("from solvers import get, available; print(get('anneal'), available())")
    assert "solvers.anneal.solver.Anneal" in result.stdout, result.stderr
    assert "'other'" in result.stdout
    assert result.stderr.count("SolverNameWarning") == 1
    assert "aaa-impostor" in result.stderr
    assert "zzz-impostor" in result.stderr
    assert "'anneal'" in result.stderr


def test_two_distributions_under_one_name_are_an_error_that_names_them(install, python):
    install("one-solver", {"other": "one:Other"}, one=PLUGIN)
    install("two-solver", {"other": "two:Other"}, two=PLUGIN)
    names, found = listing(python(LISTING))
    assert "other" not in names
    assert "anneal" in names
    for word in ("one-solver (one:Other)", "two-solver (two:Other)", "uninstall all but one"):
        assert word in found["other"]["error"]


BROKEN = {
    "raises": ("raise RuntimeError('on import')", "Other", "RuntimeError: on import"),
    "exits": ("import sys; sys.exit(0)", "Other", "SystemExit: 0"),
    "odd": ("raise GeneratorExit", "Other", "GeneratorExit"),
    "missing": ("", "Other", "has no attribute 'Other'"),
    "nosolver": ("class Other: pass", "Other", "is not a solvers.Solver class"),
    "incapable": (PLUGIN.replace("Capabilities()\n", "None\n"), "Other", "has no capabilities"),
    "silent": (PLUGIN, "Silent", "has no summary"),
    "nosy": (PLUGIN, "Nosy", "SystemExit: 3"),
}


def test_plugins_that_fail_break_no_other(install, python):
    for name, (module, kind, _) in BROKEN.items():
        install(name, {name: f"plugin_{name}:{kind}"}, **{f"plugin_{name}": module})
    names, found = listing(python(LISTING))
    assert "anneal" in names
    assert found["anneal"]["available"]
    for name, (_, _, reason) in BROKEN.items():
        assert name not in names
        assert reason in found[name]["error"]


def test_what_is_not_set_up_is_listed(python, monkeypatch, tmp_path):
    pytest.importorskip("dwave.system")
    (tmp_path / "dwave.conf").write_text("[defaults]\n")
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(tmp_path / "dwave.conf"))
    for name in ("DWAVE_API_TOKEN", "DWAVE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    _, found = listing(python(LISTING))
    for name in ("qpu", "hybrid"):
        assert "no API token" in found[name]["setup"]
        assert "dwave config create" in found[name]["setup"]
    assert found["anneal"]["setup"] is None
    monkeypatch.setenv("DWAVE_API_TOKEN", "not-a-real-one")
    result = python(LISTING)
    _, found = listing(result)
    assert found["qpu"]["setup"] is None
    assert "not-a-real-one" not in result.stdout + result.stderr
