"""A run folder under adverse conditions: other processes, full disks, folders that vanish."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from icbs import CausalLMLoss, ConfigError, LayerError, Pruner, Result, RunFolderError, load_masks
from icbs.commands.folders import new_folder
from icbs.records.locking import LOCK, FolderLock
from icbs.records.runfolder import RunFolder
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.language import make_language_model
from tests.icbs.test_cli import prune as prune_by_command
from tests.icbs.test_resume import SETTINGS, InterruptionError, same


def prune(toy: Toy, run: Path | None = None, callback: Any = None, **changes: Any) -> Result:
    pruner = Pruner(**SETTINGS | changes)
    return pruner.prune(toy.model, toy.batches, toy.loss, run=run, callback=callback)


def resume(toy: Toy, run: Path, **more: Any) -> Result:
    return Pruner.resume(run, toy.model, toy.batches, toy.loss, **more)


@pytest.fixture(scope="module")
def whole() -> Result:
    return prune(make_toy())


# Two processes in one folder


@contextmanager
def held_by_another(folder: Path) -> Iterator[int]:
    """Let another process hold a folder's lock; yield its number."""
    ready, said = os.pipe()
    if not (process := os.fork()):
        lock = FolderLock(folder)
        lock.acquire()
        os.write(said, b"!")
        time.sleep(60)
        os._exit(1)
    assert os.read(ready, 1) == b"!"
    try:
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_a_folder_in_use_is_refused_with_its_holder(tmp_path, toy):
    run = tmp_path / "run"
    prune(toy, run, passes=3)
    before = {file: file.read_bytes() for file in run.iterdir() if file.name != LOCK}
    with held_by_another(run) as process:
        expected = f"{run} is in use by process {process} on "
        with pytest.raises(RunFolderError, match=expected):
            resume(make_toy(), run, passes=6)
        with pytest.raises(RunFolderError, match=expected):
            RunFolder(run).check_free()
    assert {file: file.read_bytes() for file in before} == before
    resume(make_toy(), run, passes=6)  # a kill leaves no lock behind


def test_a_new_folder_in_use_is_refused(tmp_path, toy):
    run = tmp_path / "run"
    run.mkdir()
    with held_by_another(run), pytest.raises(RunFolderError, match="is in use by process"):
        prune(toy, run)
    prune(toy, run, passes=1)


def test_a_run_holds_its_folder_to_its_end(tmp_path, toy):
    run, found = tmp_path / "run", []

    def other(progress: object) -> None:
        for act in (lambda: resume(make_toy(), run), lambda: prune(make_toy(), run)):
            try:
                act()
            except RunFolderError as error:
                found.append(str(error))

    prune(toy, run, other, passes=2)
    assert [f"in use by process {os.getpid()}" in text for text in found] == [True, False] * 3
    assert all("exists already" in text for text in found[1::2])
    RunFolder(run).check_free()


@pytest.mark.parametrize("error", [InterruptionError, KeyboardInterrupt])
def test_a_run_that_fails_lets_go(tmp_path, toy, error):
    run = tmp_path / "run"

    def fail(progress: Any) -> None:
        if progress.step == 2:
            raise error

    with pytest.raises(error):
        prune(toy, run, fail)
    RunFolder(run).check_free()


def test_the_children_of_a_killed_process_hold_no_lock(tmp_path):
    """Workers of a pool, say, which outlive it for a while."""
    ready, said = os.pipe()
    if not (process := os.fork()):
        lock = FolderLock(tmp_path)
        lock.acquire()
        worker = os.fork()
        if not worker:
            time.sleep(60)
            os._exit(0)
        os.write(said, worker.to_bytes(4, "little"))
        os.kill(os.getpid(), signal.SIGKILL)
    worker = int.from_bytes(os.read(ready, 4), "little")
    os.waitpid(process, 0)
    try:
        os.kill(worker, 0)  # alive
        lock = FolderLock(tmp_path)
        lock.acquire()
        lock.release()
    finally:
        os.kill(worker, signal.SIGKILL)


def at_once(count: int, act: Callable[[int], str]) -> list[str]:
    """Let processes act at the same moment, and return what each said."""
    start, go = os.pipe()
    pipes = []
    for number in range(count):
        ready, said = os.pipe()
        if not os.fork():
            os.close(go)
            os.read(start, 1)  # ends when the last writer closes
            try:
                text = act(number)
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"
            os.write(said, text.encode())
            os._exit(0)
        os.close(said)
        pipes.append(ready)
    os.close(go)
    found = []
    for ready in pipes:
        with os.fdopen(ready) as file:
            found.append(file.read())
        os.wait()
    return found


def test_one_of_many_gets_a_new_folder(tmp_path):
    def claim(number: int) -> str:
        with RunFolder.new(tmp_path / "deep" / "run") as folder:
            (folder.path / "config.yaml").write_text(str(number))
            time.sleep(0.2)
            return "mine"

    found = at_once(8, claim)
    assert found.count("mine") == 1
    assert (tmp_path / "deep" / "run" / "config.yaml").read_text() == str(found.index("mine"))
    assert sum("RunFolderError" in text for text in found) == 7


def test_default_names_do_not_collide(tmp_path):
    found = at_once(8, lambda _: new_folder(tmp_path / "runs", "demo-").name)
    assert len(set(found)) == 8
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(found)


def test_a_folder_without_a_run_is_given_up(tmp_path, toy):
    with pytest.raises(LayerError):
        prune(toy, tmp_path / "run", include=["nothing"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="about can't be kept as JSON"):
        Pruner(**SETTINGS).prune(
            toy.model, toy.batches, toy.loss, run=tmp_path / "run", about={"what": object()}
        )
    assert not (tmp_path / "run").exists()


def test_files_of_the_user_s_are_not_taken_for_leftovers(tmp_path, toy):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".notes.tmp").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already"):
        prune(toy, run)
    (run / ".notes.tmp").unlink()
    prune(toy, run, passes=2)
    (run / ".notes.tmp").write_text("mine")
    (run / ".icbs-abcdefgh.tmp").mkdir()  # what a kill leaves
    resume(make_toy(), run, passes=3)
    assert (run / ".notes.tmp").read_text() == "mine"
    assert not (run / ".icbs-abcdefgh.tmp").exists()


def test_permissions_in_a_run_folder_follow_the_umask(tmp_path):
    tokens = torch.randint(256, (20, 12), generator=torch.Generator().manual_seed(0))
    before = os.umask(0o026)
    try:
        Pruner(density=0.5, passes=1, block_size=16).prune(
            make_language_model(), [(tokens, tokens)], CausalLMLoss(), run=tmp_path / "run"
        )
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"model.safetensors", "config.json", "checkpoint.safetensors"} <= {
        path.name for path in files
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


# Disks and folders that fail


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own."""
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
    """Leave no byte."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_full_disk_costs_checkpoints_and_no_run(disk, whole, caplog):
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


def test_results_outlive_a_disk_that_is_full_at_the_end(disk, whole):
    run, toy = disk / "run", make_toy()

    def callback(progress: Any) -> None:
        if progress.step == 10:
            fill(disk)

    with pytest.raises(RunFolderError, match=f"not all of it is in {run}.*No space left") as caught:
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


def test_a_folder_deleted_under_a_run_costs_no_result(tmp_path, whole):
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
    from tests.icbs import test_cli

    monkeypatch.chdir(tmp_path)
    expected = prune_by_command(tmp_path / "good")
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
    found = prune_by_command(disk / "run", "--set", "checkpoint_every=1")
    assert found.exit_code == 2
    assert "the masks are in" in found.output
    (saved,) = tmp_path.glob("run-masks-*/masks.safetensors")
    assert str(saved) in found.output
    masks, wanted = load_masks(saved), load_masks(tmp_path / "good" / "masks.safetensors")
    assert all(torch.equal(masks[name], mask) for name, mask in wanted.items())
