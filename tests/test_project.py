"""The project's own files agree with one another."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def normal(requirement: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    names = [normal(name) for name, _ in pins]
    assert len(names) == len(set(names))
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *(r for name in extras if name != "vision" for r in extras[name]),
    ]
    assert {normal(r) for r in wanted} - {"icbs-pruning"} <= set(names)


def test_pythons_are_those_tested():
    prefix = "Programming Language :: Python :: 3."
    claimed = {c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)}
    jobs = WORKFLOW["jobs"]
    tested = {
        *jobs["quick"]["strategy"]["matrix"]["python"],
        jobs["all"]["steps"][1]["with"]["python-version"],
    }
    assert {f"3.{minor}" for minor in claimed} == tested
    assert PROJECT["requires-python"] == f">=3.{min(claimed, key=int)}"


def test_workflow_runs_what_ci_runs():
    steps = [step.get("run", "") for step in WORKFLOW["jobs"]["all"]["steps"]]
    assert "bash .ci/run" in steps
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if line.startswith("make ") for word in shlex.split(line)[1:]]
    targets = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    assert {"lint", "test", "notebooks", "docs"} <= set(targets)
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(targets) <= set(rules)


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_templates_are_yaml(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_what_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|icbs|solvers|problems|docs|\.ci|examples)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name
