"""Checkpoints of format 3, which knew masks of one set of weights alone, are still resumed.

``data/checkpoint-3`` was left by the last version that wrote the format, interrupted in its
seventh pass: its last checkpoint is after the fourth.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icbs import Pruner, Result, RunFolderError
from icbs.export.safetensors_files import read_header, write_tensors
from icbs.run.history import TIMES, Row
from icbs.run.run_folder import CHECKPOINT, RunFolder
from tests.icbs.conftest import make_toy
from tests.icbs.exact_toy import make_exact_toy
from tests.icbs.test_resume import SETTINGS, InterruptionError, same

DATA = Path(__file__).parent / "data" / "checkpoint-3"
SAME = {
    "manifest": "manifest",
    "history": "history",
    "step": "step",
    "samples_seen": "seen",
    "seconds": "seconds",
    "initial_loss": "initial_loss",
    "best_loss": "best_loss",
    "start_seconds": "started",
    "visits": "visits",
}
"""Figures of a checkpoint and their names in format 3."""
SINCE = ("proved", "bound", "attempt", "evaluations")
"""Columns of the history that this version did not write."""


def make_older(run: Path, **changes: Any) -> None:
    """Turn the checkpoint of a run into one of format 3, as its version wrote it."""
    path = run / CHECKPOINT
    facts, tensors = read_header(path, "checkpoint"), load_file(path)
    older = {name: facts[key] for key, name in SAME.items()}
    older["kept"] = {
        name: {"pruned": counts["current"], "best": counts["best"]}
        for name, counts in facts["kept"].items()
    }
    older |= {"caution": facts["acceptance"]["damping"], "effort": 1.0}
    renamed = {key.replace("current/", "pruned/"): value for key, value in tensors.items()}
    write_tensors(path, "icbs-checkpoint-3", older | changes, renamed)


def rows(history: list[Row]) -> list[dict[str, object]]:
    """All of the history that both versions keep, with numbers to be compared within rounding."""
    names = [f.name for f in dataclasses.fields(Row) if f.name not in (*TIMES, *SINCE)]
    found = [{name: getattr(row, name) for name in names} for row in history]
    return [
        {k: pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for k, v in row.items()}
        for row in found
    ]


def test_a_run_of_the_version_before_goes_on_to_the_masks_of_one_that_was_not_interrupted(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(DATA, run)
    folder = RunFolder(run)
    assert read_header(run / CHECKPOINT, "checkpoint")["format"] == "icbs-checkpoint-3"
    assert folder.status().passes == 4
    assert not folder.status().finished
    toy = make_exact_toy()
    whole = Pruner(folder.config()).prune(toy.model, toy.batches, toy.loss)
    toy = make_exact_toy()
    found = Pruner.resume(run, toy.model, toy.batches, toy.loss)
    assert found.passes == whole.passes == 9
    assert any(row.accepted for row in found.history if row.step >= 4)
    for row, expected in zip(found.history, rows(whole.history), strict=True):
        assert {name: getattr(row, name) for name in expected} == expected
    for name, mask in whole.masks.items():
        assert torch.equal(found.masks[name], mask)
    assert read_header(run / CHECKPOINT, "checkpoint")["format"] == "icbs-checkpoint-4"


def interrupted(run: Path, **changes: Any) -> Result:
    """Interrupt a run, and return the result of one that was not."""
    settings = SETTINGS | {"passes": 8} | changes
    toy = make_toy()
    whole = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise InterruptionError

    toy = make_toy()
    with pytest.raises(InterruptionError):
        Pruner(**settings).prune(toy.model, toy.batches, toy.loss, run=run, callback=stop)
    return whole


@pytest.mark.parametrize(
    "changes", [{}, {"acceptance": "pass", "initial": "random"}, {"curvature": "gram"}]
)
def test_resumes_to_the_same_bits(tmp_path, changes):
    whole = interrupted(tmp_path / "run", **changes)
    make_older(tmp_path / "run")
    toy = make_toy()
    found = Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss)
    assert same(found, whole)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("kept", [1]), ("kept", {"0": 3}), ("kept", {"0": {"best": 72}}), ("kept", {}),
        ("kept", {"0": {"pruned": 71, "best": 72}}), ("caution", [1]), ("caution", None),
        ("caution", {"0": -1.0}), ("seen", "1"), ("started", -1.0), ("step", None),
        ("visits", {"0": 1.5}),
    ],
)  # fmt: skip
def test_what_it_says_is_checked_as_closely(tmp_path, fact, value):
    run = tmp_path / "run"
    interrupted(run)
    make_older(run, **{fact: value})
    toy = make_toy()
    before = toy.model.state_dict()
    weights = {name: tensor.clone() for name, tensor in before.items()}
    with pytest.raises(RunFolderError, match=r"checkpoint\.safetensors is not a readable"):
        Pruner.resume(run, toy.model, toy.batches, toy.loss)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["seen", "started", "caution", "kept", "history"])
def test_what_is_missing_is_named(tmp_path, name):
    run = tmp_path / "run"
    interrupted(run)
    make_older(run)
    path = run / CHECKPOINT
    facts, tensors = read_header(path, "checkpoint"), load_file(path)
    del facts["digest"], facts[name]
    write_tensors(path, facts.pop("format"), facts, tensors)
    toy = make_toy()
    with pytest.raises(RunFolderError, match=f"is not a readable checkpoint: .*{name}"):
        Pruner.resume(run, toy.model, toy.batches, toy.loss)
