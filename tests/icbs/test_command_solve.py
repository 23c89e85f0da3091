"""The commands solve, solvers and export, run on files as a user runs them."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import solvers as registry
from icbs.cli.console import plain_errors
from icbs.cli.export import export
from icbs.cli.solution_io import read_initial_state
from icbs.cli.solve import solve
from icbs.cli.solvers import describe, solvers
from problems import CardinalityQUBO, FormatError
from problems.formats import FORMATS, read, write
from solvers import Capabilities, Outcome, Request, Solver, SolverError, Stop

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(solve)
app.command()(solvers)
app.command()(export)


@app.command()
@plain_errors
def defect() -> None:
    raise RuntimeError("a defect")


def run(*words):
    # Wide, so that rich breaks no line that a test looks for.
    return CliRunner(env={"COLUMNS": "400", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])


def succeed(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stdout


def fail(*words):
    """Run a command that must fail with one clear line, exit code 2 and no traceback."""
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(10, 10))
    return CardinalityQUBO(Q + Q.T, [2, 3], groups=[0] * 4 + [1] * 6, offset=0.5)


@pytest.fixture
def file(problem, tmp_path):
    problem.save(tmp_path / "block.npz")
    return tmp_path / "block.npz"


# -- solve -------------------------------------------------------------------------------


def test_solve_prints_the_result_of_the_library(file, problem):
    expected = registry.solve(problem, "exhaustive")
    said = json.loads(succeed("solve", file, "--solver", "exhaustive", "--json"))
    assert said["energy"] == expected.energy == said["bound"]
    assert said["x"] == expected.x.tolist()
    assert (said["status"], said["stop"], said["gap"]) == ("optimal", "proven", 0.0)
    assert said["info"]["problem"] == problem.hash
    parts = said["timing"]
    assert parts["total"] == parts["build"] + parts["solve"] + parts["decode"]
    text = succeed("solve", file, "--solver", "exhaustive")
    assert f"{expected.energy:.12g}" in text
    assert "optimal" in text
    assert "n = 10, k = 5 in 2 groups" in text


def test_solve_hands_everything_on(file, problem):
    said = json.loads(
        succeed(
            *("solve", file, "--solver", "neal", "--time-limit", 5, "--seed", 3),
            *("--num-reads", 4, "--option", "num_sweeps=50"),
            *("--option", "beta_range=[0.1, 9]", "--json"),
        )
    )
    info = said["info"]
    assert (info["seed"], info["time_limit"], info["num_reads"]) == (3, 5, 4)
    assert (info["options"]["num_sweeps"], info["options"]["beta_range"]) == (50, [0.1, 9])
    options = {"num_sweeps": 50, "beta_range": (0.1, 9)}
    expected = registry.solve(problem, "neal", seed=3, num_reads=4, time_limit=5, **options)
    assert said["x"] == expected.x.tolist()


@dataclass(frozen=True)
class Echo(Solver):
    """Returns no state, and has one option of any type."""

    value: object = None
    name: ClassVar[str] = "echo"
    summary: ClassVar[str] = "repeats the start"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True)

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        states = np.zeros((0, problem.n), np.uint8)
        return Outcome(states, Stop.CONVERGED, info={"value": self.value, "extra": np.float32(1)})


@pytest.fixture
def echo(monkeypatch):
    monkeypatch.setattr(registry, "create", lambda name, **options: Echo(**options))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1),
        ("1e-3", 0.001),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("word", "word"),
        ("[1, 2]", [1, 2]),
        ("'1'", "1"),
        ("a=b", "a=b"),
    ],
)
@pytest.mark.usefixtures("echo")
def test_option_values_are_yaml(file, word, value):
    said = json.loads(succeed("solve", file, "--option", f"value={word}", "--json"))
    assert said["info"]["value"] == value


@pytest.mark.usefixtures("echo")
def test_no_solution_is_valid_json(file, tmp_path):
    output = tmp_path / "none.npz"
    said = json.loads(succeed("solve", file, "--json", "--output", output))
    assert (said["x"], said["energy"]) == (None, None)
    assert said["status"] == "no solution found"
    assert said["info"]["extra"] == 1.0
    assert "no solution found" in succeed("solve", file)
    assert "has no state 'x'" in fail("solve", file, "--initial-state", output)


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("kind", ["npz", "json", "npy", "list"])
def test_a_run_starts_from_a_saved_state(file, problem, tmp_path, kind):
    x = np.uint8([1, 1, 0, 0, 0, 1, 0, 1, 0, 1])
    path = tmp_path / f"state.{'json' if kind == 'list' else kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "list":
        path.write_text(json.dumps(x.tolist()))
    else:
        np.save(tmp_path / "first.npy", x)
        succeed("solve", file, "--initial-state", tmp_path / "first.npy", "--output", path)
    said = json.loads(succeed("solve", file, "--initial-state", path, "--json"))
    assert said["x"] == x.tolist()
    assert said["energy"] == problem.energy(x)


def test_output_holds_all_samples(file, problem, tmp_path):
    output = tmp_path / "solution.npz"
    words = ("solve", file, "--seed", 1, "--num-reads", 3, "--output", output, "--json")
    said = json.loads(succeed(*words))
    with np.load(output, allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["x"], said["x"])
        np.testing.assert_allclose(saved["energies"], problem.energy(saved["samples"]))
        assert len(saved["samples"]) == said["samples"] == 3
        assert json.loads(str(saved["record"]))["energy"] == said["energy"]
    output = tmp_path / "solution.json"
    said = json.loads(succeed(*words[:-2], output, "--json"))
    saved = json.loads(output.read_text())
    assert saved["x"] == said["x"]
    assert saved["energy"] == said["energy"]


def test_k_and_format_for_files_without_either(problem, tmp_path):
    path = tmp_path / "block.data"
    path.write_text("3 3\n1 1 1.0\n2 2 -1.0\n1 3 -2.0\n")
    words = ("solve", path, "--solver", "exhaustive", "--json")
    assert "can't infer the format" in fail(*words)
    assert "pass k" in fail(*words, "--format", "ubqp")
    said = json.loads(succeed(*words, "--format", "ubqp", "--k", 2))
    assert (said["x"], said["energy"]) == ([1, 0, 1], -3.0)
    assert "at most 2 variables" in fail(*words, "--format", "ubqp", "--k", 2, "--max-n", 2)


def test_a_file_of_another_problem_is_refused_in_one_line(tmp_path):
    path = tmp_path / "fixed.lp"
    path.write_text(
        "Minimize\n obj: 5 x0 + x1\nSubject To\n c: x0 + x1 = 1\nBounds\n x0 = 1\n"
        "Binary\n x0 x1\nEnd\n"
    )
    for command in (("solve", path), ("export", path, tmp_path / "copy.npz")):
        message = fail(*command)
        assert "line 6 ('x0 = 1'): the bound 'x0 = 1' is not that of a binary" in message
        assert "substitute the value of a fixed variable in the objective and the rows" in message
    assert not (tmp_path / "copy.npz").exists()
    os.mkfifo(tmp_path / "pipe.lp")
    assert "copy its content to a file" in fail("solve", tmp_path / "pipe.lp")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--solver", "nonsense"], "UnknownSolverError: unknown solver 'nonsense'; known solvers:"),
        (["--option", "colour=3"], "OptionError: solver 'anneal' has no option 'colour'"),
        (["--option", "tenure"], "'tenure' is not an assignment; write name=value"),
        (["--option", "tenure=[1"], "the value of 'tenure' can't be read"),
        (["--time-limit", "-1"], "OptionError: time_limit is -1.0"),
        (["--time-limit", "nan"], "OptionError: time_limit is nan"),
        (["--seed", "-1"], "OptionError: seed is -1"),
        (["--num-reads", "0"], "OptionError: num_reads is 0"),
        (["--solver", "diagonal", "--time-limit", "1"], "does not support time_limit; omit it"),
        (["--k", "3"], "FormatError"),
        (["--output", "solution.csv"], "a solution can only be saved as .npz, .json or .txt"),
        (["--free"], "contains a cardinality; omit k, groups and free"),
        (["--free", "--k", "3"], "a free problem has no cardinality; omit k and groups"),
        (["--output", "no/such/folder/solution.npz"], "its folder does not exist; create it first"),
    ],
)
def test_mistakes_are_one_line(file, words, message):
    assert message in fail("solve", file, *words)


def test_a_bad_output_name_is_refused_before_the_work(file, monkeypatch):
    monkeypatch.setattr(registry, "solve", None)
    assert "saved as .npz, .json or .txt" in fail("solve", file, "--output", "solution.csv")


def test_a_missing_file_is_named(tmp_path):
    result = run("solve", tmp_path / "none.npz")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_a_damaged_file_is_one_line(file):
    file.write_bytes(file.read_bytes()[:-40])
    assert "FormatError" in fail("solve", file)


def test_a_defect_keeps_its_traceback():
    assert isinstance(run("defect").exception, RuntimeError)


STATES = {
    "text.npy": (b"hello", "not a readable state"),
    "text.npz": (b"hello", "not a readable .npz"),
    "text.json": (b"hello", "not a readable state"),
    "word.json": (b'"x"', "a state may hold 0 and 1 only|state has shape"),
    "deep.json": (b"[" * 100_000, "not a readable state"),
    "other.json": (b'{"y": 1}', "has no state 'x'"),
    "state.txt": (b"0 1", "a state can only be read from"),
    "claim.npy": (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        + b"\n",
        "not a readable state",
    ),
    "short.json": (b"[1, 0]", r"state has shape \(2,\)"),
    "twos.json": (b"[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "0 and 1 only"),
    "infeasible.json": (b"[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "violates the cardinality"),
}


@pytest.mark.parametrize("name", STATES)
def test_files_without_a_state(file, tmp_path, name):
    content, message = STATES[name]
    path = tmp_path / name
    path.write_bytes(content)
    stderr = fail("solve", file, "--initial-state", path)
    assert any(part in stderr for part in message.replace("\\", "").split("|")), stderr


def test_a_pickled_state_is_not_loaded(tmp_path):
    path = tmp_path / "state.npy"
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="not a readable state"):
        read_initial_state(path)


# -- solvers -----------------------------------------------------------------------------


def test_every_registered_solver_is_listed():
    said = {solver["name"]: solver for solver in json.loads(succeed("solvers", "--json"))}
    assert sorted(said) == registry.names()
    text = succeed("solvers")
    for name in registry.names():
        assert name in text
    anneal = said["anneal"]
    assert anneal["available"]
    assert anneal["install"] is None
    assert anneal["capabilities"]["groups"] is registry.get("anneal").capabilities.groups
    assert list(anneal["options"]) == list(registry.get("anneal").options())


def test_the_description_of_a_solver_has_the_allowed_values():
    text = succeed("solvers", "cpsat")
    assert "formulation = auto  (auto, products, squares)" in text
    assert "workers = none  (int)" in text
    assert "form = cardinality  (cardinality, penalty)" in succeed("solvers", "qaoa")


@dataclass(frozen=True)
class Listed(Echo):
    """Echo with options.

    Parameters
    ----------
    weights : list of float, optional
        A list that is made for each instance.
    """

    weights: list[float] = field(default_factory=lambda: [0.5])

    name: ClassVar[str] = "listed"


def test_a_class_of_the_user_is_described_with_its_defaults():
    name = f"{__name__}:Listed"
    text = succeed("solvers", name)
    assert text.startswith(f"{name}: ")
    assert "weights = [0.5]  (list of float)" in text
    assert "A list that is made for each instance." in text
    assert json.loads(succeed("solvers", name, "--json"))["options"] == {
        "value": None,
        "weights": "[0.5]",
    }
    assert describe("listed", Listed)["options"] == {"value": None, "weights": "[0.5]"}


def test_anneal_gpu_names_the_fallback_solver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = succeed("solvers", "anneal-gpu")
    assert "the CPU solver 'anneal' is used instead" in text


@dataclass(frozen=True)
class Warner(Echo):
    name: ClassVar[str] = "warner"

    def run(self, problem, request):
        warnings.warn("a hint for the user", UserWarning, stacklevel=1)
        return super().run(problem, request)


def test_warnings_are_one_line_each_on_standard_error(file):
    result = run("solve", file, "--solver", f"{__name__}:Warner", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"]
    assert result.stderr.strip() == "UserWarning: a hint for the user"


@dataclass(frozen=True)
class Absent(Echo):
    """Needs a package that does not exist."""

    name: ClassVar[str] = "absent"
    requires: ClassVar[dict[str, str]] = {"no_such_module": "no-such-package[all]>=1"}
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True, max_n=7, hardware="gpu", native_cardinality=False
    )


def test_a_missing_package_is_listed_with_its_pip_line(monkeypatch):
    def get(name):
        if name == "broken":
            raise SolverError("solver 'broken' (x:Y) can't be imported: no x")
        return Absent

    monkeypatch.setattr(registry, "names", lambda: ["absent", "broken"])
    monkeypatch.setattr(registry, "get", get)
    absent, broken = json.loads(succeed("solvers", "--json"))
    assert absent["install"] == "pip install 'no-such-package[all]>=1'"
    assert not absent["available"]
    assert not broken["available"]
    text = succeed("solvers")
    assert "pip install 'no-such-package[all]>=1'" in text
    assert "exact; n ≤ 7; penalised cardinality; honours time, seed, start, reads" in text
    assert "runs on gpu" in text
    assert "can't be imported: no x" in text


def test_a_missing_backend_is_one_line(file, monkeypatch):
    def create(name, **options):
        Absent.require()

    monkeypatch.setattr(registry, "create", create)
    message = fail("solve", file)
    assert "MissingBackendError: solver 'absent' needs no-such-package[all]>=1" in message
    assert "pip install 'no-such-package[all]>=1'" in message


# -- export ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", list(FORMATS))
@pytest.mark.parametrize("source", list(FORMATS))
def test_export_between_formats(problem, tmp_path, source, target):
    first = tmp_path / f"block{FORMATS[source].endings[0]}"
    second = tmp_path / f"copy{FORMATS[target].endings[0]}"
    write(problem, first)
    if not FORMATS[source].cardinality:
        assert "has no cardinality; pass k" in fail("export", first, second)
        first = tmp_path / "block.npz"
        write(problem, first)
    given = {}
    output = succeed("export", first, second)
    assert "n=10, k=5, groups=2" in output
    if not FORMATS[target].cardinality:
        assert f"the format {target} has no cardinality; pass k and groups to" in output
        given = {"k": [2, 3], "groups": problem.groups}
    again = read(second, **given)
    x = np.uint8([1, 1, 0, 0, 0, 1, 0, 1, 0, 1])
    assert again.energy(x) == pytest.approx(problem.energy(x), abs=1e-12)
    assert again.is_feasible(x)


def test_export_names_its_formats(file, tmp_path):
    output = tmp_path / "block.out"
    assert "can't infer the format" in fail("export", file, output)
    succeed("export", file, output, "--to", "qplib")
    succeed("export", output, tmp_path / "back.npz", "--format", "qplib")
    assert read(tmp_path / "back.npz").k == 5
    assert "unknown format 'xml'" in fail("export", file, output, "--to", "xml")
