"""Failures of solvers: reasons are recorded and printed, and a run with only failures ends."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
import torch
from typer.testing import CliRunner

from icbs import Pruner, SolverFailureError
from icbs.blocks.failures import failure_text
from icbs.cli import app
from icbs.run.history import read_history
from problems import IcbsError
from solvers import BackendError, Capabilities, Solver, SolverError, registry
from solvers.diagonal import Diagonal
from tests.icbs.test_cli import prune as prune_by_command

SETTINGS = {
    "density": 0.3,
    "block_size": 32,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "schedule": "uniform",
    "initial": "random",
    "solver": "faulty",
}
FAULT = "solver 'faulty' failed: ConnectionError: no license"


@dataclass(frozen=True)
class Faulty(Solver):
    """Fails in the first :attr:`fails` calls."""

    kind: str = "fails"

    name: ClassVar[str] = "faulty"
    summary: ClassVar[str] = "for tests"
    capabilities: ClassVar[Capabilities] = Capabilities(time_limit=False, num_reads=False)
    fails: ClassVar[float] = 0
    calls: ClassVar[Iterator[int]]

    def check_ready(self) -> None:
        if self.kind == "unready":
            raise BackendError("no license: buy one")

    def run(self, problem, request):
        if next(self.calls) < self.fails:
            raise ConnectionError("no license")
        return Diagonal().run(problem, request)


@pytest.fixture
def faulty(monkeypatch):
    known = registry._entries()
    entry = EntryPoint("faulty", f"{__name__}:Faulty", registry.GROUP)
    monkeypatch.setattr(registry, "_entries", lambda: known | {"faulty": entry})
    monkeypatch.setattr(Faulty, "calls", itertools.count(), raising=False)
    monkeypatch.setattr(Faulty, "fails", float("inf"))
    registry.get.cache_clear()
    yield Faulty
    registry.get.cache_clear()


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(("passes", "done"), [(1, 1), (2, 2), (3, 3), (50, 3)])
@pytest.mark.parametrize("unit", ["block", "pass"])
def test_a_run_without_answers_ends_with_the_first_reason(
    toy, tmp_path, caplog, passes, done, unit
):
    run = tmp_path / "run"
    with (
        caplog.at_level(logging.WARNING, "icbs"),
        pytest.raises(
            SolverFailureError, match=f"none of the {3 * done} blocks.*{FAULT}"
        ) as caught,
    ):
        Pruner(**SETTINGS, passes=passes, acceptance=unit).prune(
            toy.model, toy.batches, toy.loss, run=run
        )
    assert isinstance(caught.value, SolverError)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1  # the first, and no other
    assert FAULT in said[0]
    assert "pass 0" in said[0]
    # The model has the masks that the run began with, which are the best seen.
    kept = sum(int((p != 0).sum()) for name, p in toy.model.named_parameters() if "weight" in name)
    size = sum(p.numel() for name, p in toy.model.named_parameters() if "weight" in name)
    assert kept / size == pytest.approx(0.3, abs=0.01)
    rows = read_history(run / "history.csv")
    assert [row.failure for row in rows] == [f"BackendError: {FAULT}"] * 3 * done
    assert not (run / "masks.safetensors").exists()


@pytest.mark.parametrize("every", [1, 10])
def test_a_run_that_ended_with_failures_can_be_resumed(toy, tmp_path, faulty, every):
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    settings = SETTINGS | {"passes": 5, "checkpoint_every": every}
    with pytest.raises(SolverFailureError):
        Pruner(**settings).prune(toy.model, toy.batches, toy.loss, run=tmp_path / "run")
    faulty.fails = 0
    toy.model.load_state_dict(dense)
    resumed = Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss)
    toy.model.load_state_dict(dense)
    whole = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    assert resumed.passes == 5
    assert resumed.first_failure is None
    assert resumed.loss == whole.loss < whole.initial_loss
    assert all(torch.equal(mask, whole.masks[name]) for name, mask in resumed.masks.items())
    assert read_history(tmp_path / "run" / "history.csv") == resumed.history


def test_one_solution_is_enough_to_continue(toy, faulty, caplog):
    faulty.fails = 8
    with caplog.at_level(logging.WARNING, "icbs"):
        result = Pruner(**SETTINGS, passes=6).prune(toy.model, toy.batches, toy.loss)
    assert result.passes == 6
    assert result.summary()["failures"] == 8
    assert result.first_failure is result.history[0]
    assert FAULT in result.first_failure.failure
    assert len(caplog.records) == 1


def test_later_failures_end_nothing(toy, monkeypatch, faulty):
    class Later(Faulty):
        def run(self, problem, request):
            if next(self.calls) >= 3:
                raise ConnectionError("no license")
            return Diagonal().run(problem, request)

    pruner = Pruner(**SETTINGS, passes=8)
    pruner.solver = Later()
    result = pruner.prune(toy.model, toy.batches, toy.loss)
    assert result.summary()["failures"] == 21


def test_the_command_prints_the_first_failure(tmp_path, faulty):
    result = prune_by_command(tmp_path / "run", "--solver", "faulty")
    assert result.exit_code == 2
    words = " ".join(result.output.split())
    assert words.count(FAULT) == 2  # as it happened, and at the end
    assert "SolverFailureError" in words
    faulty.calls, faulty.fails = itertools.count(), 4
    result = prune_by_command(tmp_path / "other", "--solver", "faulty")
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert "4 solver failures" in words
    assert re.search(f"first solver failure, pass 0, layer '.': BackendError: {FAULT}", words)
    report = CliRunner().invoke(app, ["report", str(tmp_path / "other")])
    words = " ".join(report.output.split())
    assert f"4 solver failures: 4 × BackendError: {FAULT}" in words


@pytest.mark.usefixtures("faulty")
def test_missing_setup_is_found_before_work_starts(tmp_path):
    with pytest.raises(BackendError, match="buy one"):
        Pruner(**SETTINGS, solver_options={"kind": "unready"})
    more = ["--solver", "faulty", "--set", "solver_options={kind: unready}"]
    result = prune_by_command(tmp_path / "run", *more)
    assert result.exit_code == 2
    assert "buy one" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("solver", ["qpu", "hybrid"])
def test_a_missing_token_is_found_before_work_starts(solver, monkeypatch, tmp_path):
    pytest.importorskip("dwave.system")
    (tmp_path / "dwave.conf").write_text("[defaults]\n")
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(tmp_path / "dwave.conf"))
    for name in ("DWAVE_API_TOKEN", "DWAVE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(IcbsError, match="no API token; 'dwave config create' sets it up"):
        Pruner(density=0.3, solver=solver, block_size=32)
    result = prune_by_command(tmp_path / "run", "--solver", solver)
    assert result.exit_code == 2
    assert "no API token" in result.output
    assert not (tmp_path / "run").exists()


def test_a_message_is_one_line_that_can_be_shown():
    nasty = BackendError("two\nlines\t\x1b[31mred\x07 \ud800" + "x" * 1000)
    text = failure_text(nasty)
    assert text.startswith("BackendError: two lines [31mred x")
    assert text.isprintable()
    assert len(text) <= 500
    assert text.encode()


def test_an_older_history_is_read(tmp_path):
    path = tmp_path / "history.csv"
    names = "step,samples,layer,n,k,moved,predicted,actual,accepted,energy,failure"
    path.write_text(
        f"{names},solver_seconds,seconds\n0,4,0,8,4,0,0.0,0.0,False,0.0,BackendError,0.1,0.2\n"
    )
    (row,) = read_history(path)
    assert row.failure == "BackendError"
