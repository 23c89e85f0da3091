"""Full disks and deleted folders: errors with the path, without loss of results."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from icbs import Result, RunFolderError, load_masks
from tests.icbs import test_cli
from tests.icbs.conftest import make_toy
from tests.icbs.test_resume import SETTINGS, same
from tests.icbs.test_runfolder import prune, resume


@pytest.fixture(scope="module")
def whole() -> Result:
    return prune(make_toy())


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small separate disk."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Fill the disk."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_full_disk_prevents_checkpoints_only(disk, whole, caplog):
    run = disk / "run"

    def callback(progress: Any) -> None:
        if progress.step == 4:
            fill(disk)
            told.append((run / "checkpoint.safetensors").read_bytes())
        if progress.step == 13:
            told.append((run / "checkpoint.safetensors").read_bytes())
            (disk / "ballast").unlink()

    told: list[bytes] = []
    with caplog.at_level(logging.WARNING, "icbs"):
        assert same(prune(make_toy(), run, callback), whole)
    texts = [record.getMessage() for record in caplog.records]
    assert [f"no checkpoint after pass {step}: {run}" in text for step, text in zip(
        (6, 9, 12), texts, strict=True
    )] == [True] * 3  # fmt: skip
    assert all("No space left" in text for text in texts)
    assert told[0] == told[1]  # the last good one stays
    assert same(resume(make_toy(), run), whole)


def test_results_are_returned_if_the_disk_is_full_at_the_end(disk, whole):
    run, toy = disk / "run", make_toy()

    def callback(progress: Any) -> None:
        if progress.step == 10:
            fill(disk)

    message = f"not all results are in {run}.*No space left"
    with pytest.raises(RunFolderError, match=message) as caught:
        prune(toy, run, callback)
    result = caught.value.result
    assert result is not None
    assert same(result, whole)
    dense = make_toy().model.state_dict()
    for name, mask in whole.masks.items():
        assert torch.equal(toy.model.state_dict()[f"{name}.weight"], dense[f"{name}.weight"] * mask)
    (disk / "ballast").unlink()
    assert same(resume(make_toy(), run), whole)
    assert same_masks(run, whole)
    assert not [path for path in run.iterdir() if path.name.endswith(".tmp")]


def same_masks(run: Path, whole: Result) -> bool:
    masks = load_masks(run / "masks.safetensors")
    return all(torch.equal(masks[name], mask) for name, mask in whole.masks.items())


def test_a_disk_without_room_for_a_run_is_found_before_any_pass(disk, toy):
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    fill(disk)
    with pytest.raises(RunFolderError, match="can't be written.*No space left") as caught:
        prune(toy, disk / "run")
    assert caught.value.result is None
    assert not (disk / "run").exists()
    assert all(torch.equal(value, before[name]) for name, value in toy.model.state_dict().items())
    with (disk / "ballast").open("rb+") as file:
        file.truncate((disk / "ballast").stat().st_size - 16384)  # for all but a checkpoint
    passes: list[int] = []
    with pytest.raises(RunFolderError, match="checkpoint.safetensors can't be written"):
        prune(toy, disk / "run", lambda progress: passes.append(progress.step))
    assert passes == [0]
    (disk / "ballast").unlink()
    assert resume(make_toy(), disk / "run").passes == SETTINGS["passes"]


def test_a_folder_that_can_not_be_written_is_refused(disk, toy):
    prune(toy, disk / "run", passes=2)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(RunFolderError, match=f"{disk}/run can't be written.*Read-only.*copy the"):
        resume(make_toy(), disk / "run", passes=3)
    with pytest.raises(RunFolderError, match=f"{disk}/new can't be written.*Read-only"):
        prune(make_toy(), disk / "new")
    copied = shutil.copytree(disk / "run", disk.parent / "copy")
    assert resume(make_toy(), copied, passes=3).passes == 3


def test_results_are_returned_if_the_folder_is_deleted(tmp_path, whole):
    run = tmp_path / "run"

    def callback(progress: Any) -> None:
        if progress.step == 5:
            shutil.rmtree(run)

    with pytest.raises(RunFolderError, match=f"{run} was deleted or replaced") as caught:
        prune(make_toy(), run, callback)
    assert caught.value.result is not None
    assert same(caught.value.result, whole)
    assert not run.exists()


def test_nothing_is_written_into_another_run_of_the_same_name(tmp_path, whole):
    run = tmp_path / "run"
    content: dict[str, bytes] = {}

    def callback(progress: Any) -> None:
        if progress.step == 5:
            shutil.rmtree(run)
            prune(make_toy(), run, passes=1, seed=1)
            content.update({file.name: file.read_bytes() for file in run.iterdir()})

    with pytest.raises(RunFolderError, match="was deleted or replaced") as caught:
        prune(make_toy(), run, callback)
    assert caught.value.result is not None
    assert {file.name: file.read_bytes() for file in run.iterdir()} == content


def test_the_command_saves_the_masks_elsewhere(disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = test_cli.prune(tmp_path / "good")
    assert expected.exit_code == 0
    # Once the run goes on: the evaluation after its first pass is the one before the last.
    load, calls = test_cli.load, []

    def full(*args: Any) -> Any:
        task = load(*args)
        evaluate = task.evaluate

        def counted(model: Any) -> dict[str, float]:
            calls.append(1)
            if len(calls) == 3:
                fill(disk)
            return evaluate(model)

        return task.__class__(**{**vars(task), "evaluate": counted})

    monkeypatch.setattr(test_cli, "load", full)
    found = test_cli.prune(disk / "run", "--set", "checkpoint_every=1")
    assert found.exit_code == 2
    assert "the masks are in" in found.output
    (saved,) = tmp_path.glob("run-masks-*/masks.safetensors")
    assert str(saved) in found.output
    masks, wanted = load_masks(saved), load_masks(tmp_path / "good" / "masks.safetensors")
    assert all(torch.equal(masks[name], mask) for name, mask in wanted.items())
