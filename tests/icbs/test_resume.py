"""An interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from icbs import ConfigError, Pruner, Result, RunFolderError, load_masks, save_masks
from icbs.cli.compress import read_model_state
from icbs.export.safetensors_files import read_header, write_tensors
from icbs.run.history import TIMES, BlockRecord, read_history
from icbs.run.run_folder import RunFolder
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


def facts(history: list[BlockRecord]) -> list[tuple[object, ...]]:
    """The history without wall times."""
    names = [f.name for f in dataclasses.fields(BlockRecord) if f.name not in TIMES]
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


def test_another_loss_is_refused(tmp_path):
    toy, run = make_toy(), tmp_path / "run"
    settings = SETTINGS | {"passes": 4}
    Pruner(**settings).prune(toy.model, toy.batches, toy.loss, run=run)
    fresh = make_toy()
    other = torch.nn.CrossEntropyLoss(label_smoothing=0.3)
    for changes in ({"passes": 8}, {}):
        with pytest.raises(RunFolderError, match="continue with the same loss"):
            Pruner.resume(run, fresh.model, fresh.batches, other, **changes)
        for name, value in make_toy().model.state_dict().items():
            assert torch.equal(fresh.model.state_dict()[name], value)
    result = Pruner.resume(run, fresh.model, fresh.batches, fresh.loss, passes=8)
    assert result.passes == 8


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


def test_refuses_a_folder_without_a_run(toy, tmp_path):
    refuse(tmp_path / "nothing", toy, "has no run")


def test_refuses_another_model(interrupted):
    refuse(interrupted, make_toy(seed=1), "not the model of the run")


def test_refuses_a_model_with_other_biases(interrupted):
    toy = make_toy()
    bias = next(value for name, value in toy.model.named_parameters() if name.endswith("bias"))
    with torch.no_grad():
        bias += 1
    refuse(interrupted, toy, "not the model of the run")


def test_refuses_other_samples(interrupted):
    toy = make_toy()
    toy.batches[0][0][0, 0] += 1
    refuse(interrupted, toy, "not the samples of the run")


@pytest.mark.parametrize(
    "name", ["config.yaml", "manifest.json", "checkpoint.safetensors", "history.csv"]
)
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_refuses_damaged_files(interrupted, toy, name, damage):
    path = interrupted / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff\x00" * 40)
    refuse(interrupted, toy, f"{name} is (damaged|not a readable)")


@pytest.mark.parametrize("name", ["manifest.json", "history.csv"])
def test_refuses_a_folder_without_one_of_its_files(interrupted, toy, name):
    (interrupted / name).unlink()
    refuse(interrupted, toy, name)


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"density": 0.4}, {"passes": 2}, {"about": {"of": "another"}}]
)
@pytest.mark.parametrize("names", [["checkpoint.safetensors", "history.csv"], ["history.csv"]])
def test_refuses_files_of_another_run(interrupted, toy, tmp_path, change, names):
    """Also of a run that differs in settings that are not in the checkpoint."""
    other, about = make_toy(), change.get("about")
    settings = SETTINGS | {"passes": 3} | {k: v for k, v in change.items() if k != "about"}
    Pruner(**settings).prune(
        other.model, other.batches, other.loss, run=tmp_path / "other", about=about
    )
    for name in names:
        (interrupted / name).write_bytes((tmp_path / "other" / name).read_bytes())
    refuse(interrupted, toy, "of another run")


def test_refuses_changed_or_missing_initial_masks(toy, tmp_path):
    def stop(progress: object) -> None:
        raise InterruptionError

    masks = [
        Pruner(**SETTINGS | {"passes": 0, "initial": initial})
        .prune(copy.deepcopy(toy.model), toy.batches, toy.loss)
        .masks
        for initial in ("random", "wanda")
    ]
    run = tmp_path / "run"
    with pytest.raises(InterruptionError):
        Pruner(**SETTINGS).prune(
            toy.model, toy.batches, toy.loss, run=run, masks=masks[0], callback=stop
        )
    save_masks(masks[1], run / "initial.safetensors")
    refuse(run, make_toy(), "initial.safetensors is not the file of initial masks")
    (run / "initial.safetensors").unlink()
    refuse(run, make_toy(), "initial.safetensors is not the file of initial masks")


def test_refuses_a_checkpoint_of_an_earlier_release_by_name(interrupted, toy):
    path = interrupted / "checkpoint.safetensors"
    header = {"format": "icbs-checkpoint-2", "state": "{}"}
    save_file(load_file(path), path, header)
    refuse(interrupted, toy, "'icbs-checkpoint-2'; it is of another release: use that release")


def test_refuses_masks_that_keep_another_count(interrupted, toy):
    """In a file with a matching digest."""
    path = interrupted / "checkpoint.safetensors"
    facts, tensors = read_header(path, "checkpoint"), load_file(path)
    tensors["best/0"] ^= 1 << 7
    del facts["digest"]
    write_tensors(path, facts.pop("format"), facts, tensors)
    refuse(interrupted, toy, "the best mask of '0' keeps 90 weights; the header records 72")


def test_the_report_refuses_a_history_that_has_changed(interrupted):
    folder, path = RunFolder(interrupted), interrupted / "history.csv"
    rows = folder.history()
    text = path.read_bytes()
    path.write_bytes(text + b"7,200,")  # of a run that goes on
    assert folder.history() == rows
    moved = f",{rows[1].moved},".encode()
    path.write_bytes(text.replace(moved, b",1" + moved[1:]))
    with pytest.raises(RunFolderError, match="damaged or of another run"):
        folder.history()


def test_compressing_refuses_a_model_that_has_changed(interrupted):
    before = {name: value.clone() for name, value in read_model_state(interrupted).items()}
    path = interrupted / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(RunFolderError, match="model.safetensors has been changed after the run"):
        read_model_state(interrupted)
    toy = make_toy()
    Pruner.resume(interrupted, toy.model, toy.batches, toy.loss)  # as the message says
    assert all(
        torch.equal(value, before[name]) for name, value in read_model_state(interrupted).items()
    )


def test_settings_that_determine_the_masks_can_not_change(toy, tmp_path):
    Pruner(density=0.5, passes=1, seed=0).prune(
        copy.deepcopy(toy.model), toy.batches, toy.loss, run=tmp_path / "run"
    )
    with pytest.raises(ConfigError, match="density can't change"):
        Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss, density=0.2)
    with pytest.raises(ConfigError, match="acceptance_samples, seed can't change"):
        Pruner.resume(
            tmp_path / "run", toy.model, toy.batches, toy.loss, seed=1, acceptance_samples=3
        )


def test_a_finished_run_that_is_continued_and_killed_is_not_finished(tmp_path):
    toy, run = make_toy(), tmp_path / "run"
    Pruner(**SETTINGS | {"passes": 4}).prune(toy.model, toy.batches, toy.loss, run=run)
    assert RunFolder(run).status().finished

    def interrupt(progress):
        if progress.step == 9:
            raise KeyboardInterrupt

    fresh = make_toy()
    with pytest.raises(KeyboardInterrupt):
        Pruner.resume(run, fresh.model, fresh.batches, fresh.loss, passes=50, callback=interrupt)
    found = RunFolder(run).status()
    assert not found.finished
    assert 4 < found.passes <= 9
    with pytest.raises(RunFolderError, match="has no pruned model"):
        read_model_state(run)
