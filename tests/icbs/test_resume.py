"""A run that is interrupted, in whatever way, ends as if it had not been."""

from __future__ import annotations

import copy
import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from icbs import ConfigError, Pruner, Result, RunFolderError, load_masks
from icbs.history import TIMES, Row, read_history
from tests.icbs.conftest import Toy, make_toy

SETTINGS = {
    "density": 0.3,
    "block_size": 32,
    "passes": 17,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
    "checkpoint_every": 3,
    "seed": 5,
}


def facts(history: list[Row]) -> list[tuple[object, ...]]:
    """All of the history but its wall times."""
    names = [f.name for f in dataclasses.fields(Row) if f.name not in TIMES]
    return [tuple(getattr(row, name) for name in names) for row in history]


def same(a: Result, b: Result) -> bool:
    equal = all(torch.equal(a.masks[name], b.masks[name]) for name in a.masks)
    return equal and facts(a.history) == facts(b.history) and a.loss == b.loss


@pytest.fixture(scope="module")
def whole() -> Result:
    toy = make_toy()
    return Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss)


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 4, 11, 17])
def test_resumes_to_the_same_bits_after_an_exception(whole, tmp_path, after):
    toy = make_toy()
    run = tmp_path / "run"

    def interrupt(progress: object) -> None:
        if progress.step == after:  # type: ignore[attr-defined]
            raise InterruptionError

    with pytest.raises(InterruptionError):
        Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, run=run, callback=interrupt)
    fresh = make_toy()
    result = Pruner.resume(run, fresh.model, fresh.batches, fresh.loss)
    assert same(result, whole)
    assert facts(read_history(run / "history.csv")) == facts(whole.history)


def test_a_run_folder_changes_nothing(whole, tmp_path):
    toy = make_toy()
    result = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, run=tmp_path / "run")
    assert same(result, whole)
    masks = load_masks(tmp_path / "run" / "masks.safetensors")
    model = load_file(tmp_path / "run" / "model.safetensors")
    dense = make_toy().model.state_dict()
    for name, mask in result.masks.items():
        assert torch.equal(masks[name], mask)
        assert torch.equal(model[f"{name}.weight"], dense[f"{name}.weight"] * mask)
        assert torch.equal(toy.model.get_submodule(name).weight, model[f"{name}.weight"])


def test_more_passes_continue_a_finished_run(tmp_path):
    toy = make_toy()
    short = Pruner(**SETTINGS | {"passes": 6}).prune(
        toy.model, toy.batches, toy.loss, run=tmp_path / "run"
    )
    fresh = make_toy()
    longer = Pruner.resume(tmp_path / "run", fresh.model, fresh.batches, fresh.loss, passes=17)
    assert facts(longer.history[: len(short.history)]) == facts(short.history)
    assert longer.passes == 17


def test_keyboard_interruption_leaves_weights_that_follow_from_a_mask(toy):
    dense = {k: v.clone() for k, v in toy.model.state_dict().items() if "weight" in k}

    from icbs.data.holdout import HoldOut

    plain, calls = HoldOut.trial, []

    def trial(self, *args):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return plain(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HoldOut, "trial", trial)
        with pytest.raises(KeyboardInterrupt):
            Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss)
    for name, before in dense.items():
        weight = toy.model.state_dict()[name]
        kept = weight != 0
        assert torch.equal(weight[kept], before[kept])
        assert int(kept.sum()) == round(0.3 * before.numel())


WORKER = """
import sys, time
from icbs import Pruner
from tests.icbs.conftest import make_toy
from tests.icbs.test_resume import SETTINGS
from icbs.records.runfolder import RunFolder
import torch
torch.set_num_threads(1)
toy = make_toy()
run = sys.argv[1]
slow = lambda progress: time.sleep(0.05)
import os
if os.path.exists(os.path.join(run, "config.yaml")):
    Pruner.resume(run, toy.model, toy.batches, toy.loss, callback=slow)
else:
    Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, run=run, callback=slow)
"""


def test_survives_kill_after_kill(whole, tmp_path):
    """SIGKILL a real process at random moments of its work, until one gets through."""
    run = tmp_path / "run"
    moments = random.Random(0)
    command = [sys.executable, "-c", WORKER, str(run)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and not _just_saved(run):
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.35))
        if process.poll() is None and kills < 3:
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
    assert kills == 3
    assert facts(read_history(run / "history.csv")) == facts(whole.history)
    masks = load_masks(run / "masks.safetensors")
    assert all(torch.equal(masks[name], mask) for name, mask in whole.masks.items())


def _just_saved(run: Path) -> bool:
    """Whether a checkpoint is fresh: a kill before the first would test nothing."""
    checkpoint = run / "checkpoint.safetensors"
    return checkpoint.exists() and time.time() - checkpoint.stat().st_mtime < 0.1


@pytest.fixture
def interrupted(tmp_path) -> Path:
    toy = make_toy()
    run = tmp_path / "run"
    Pruner(**SETTINGS | {"passes": 3}).prune(toy.model, toy.batches, toy.loss, run=run)
    return run


def refuse(run: Path, toy: Toy, match: str) -> None:
    files = {f: f.read_bytes() for f in run.glob("*")} if run.exists() else {}
    weights = copy.deepcopy(toy.model.state_dict())
    with pytest.raises(RunFolderError, match=match):
        Pruner.resume(run, toy.model, toy.batches, toy.loss)
    assert {f: f.read_bytes() for f in run.glob("*")} == files
    for name, value in toy.model.state_dict().items():
        assert torch.equal(value, weights[name])


def test_refuses_a_folder_that_is_no_run(toy, tmp_path):
    refuse(tmp_path / "nothing", toy, "holds no run")


def test_refuses_another_model(interrupted):
    refuse(interrupted, make_toy(seed=1), "other model")


def test_refuses_a_model_whose_biases_are_others(interrupted):
    toy = make_toy()
    bias = next(value for name, value in toy.model.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        bias += 1
    refuse(interrupted, toy, "other model")


def test_refuses_other_samples(interrupted):
    toy = make_toy()
    toy.batches[0][0][0, 0] += 1
    refuse(interrupted, toy, "other samples")


@pytest.mark.parametrize(
    "name", ["config.yaml", "manifest.json", "checkpoint.safetensors", "history.csv"]
)
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_refuses_damaged_files(interrupted, toy, name, damage):
    path = interrupted / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff\x00" * 40)
    refuse(interrupted, toy, "damaged|not a readable|begun anew|begun with other")


def test_what_the_masks_were_begun_with_can_not_change(toy, tmp_path):
    Pruner(density=0.5, passes=1, seed=0).prune(
        copy.deepcopy(toy.model), toy.batches, toy.loss, run=tmp_path / "run"
    )
    with pytest.raises(ConfigError, match="density can't change"):
        Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss, density=0.2)
    with pytest.raises(ConfigError, match="acceptance_samples, seed can't change"):
        Pruner.resume(
            tmp_path / "run", toy.model, toy.batches, toy.loss, seed=1, acceptance_samples=3
        )
