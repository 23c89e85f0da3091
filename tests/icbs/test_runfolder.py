"""Run folders: locks, permissions and users' files."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from icbs import CausalLMLoss, ConfigError, LayerError, Pruner, Result, RunFolderError
from icbs.cli.output_folders import new_folder
from icbs.export.headers import PlanFacts
from icbs.run.locking import LOCK, FolderLock, in_use
from icbs.run.memory import Plan
from icbs.run.run_folder import RunFolder
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.language import make_language_model
from tests.icbs.test_resume import SETTINGS, InterruptionError


def prune(toy: Toy, run: Path | None = None, callback: Any = None, **changes: Any) -> Result:
    pruner = Pruner(**SETTINGS | changes)
    return pruner.prune(toy.model, toy.batches, toy.loss, run=run, callback=callback)


def resume(toy: Toy, run: Path, **more: Any) -> Result:
    return Pruner.resume(run, toy.model, toy.batches, toy.loss, **more)


@contextmanager
def held_by_another(folder: Path) -> Iterator[int]:
    """Lock a folder in another process; yields its number."""
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


def test_whether_a_folder_is_in_use_is_read_from_its_lock(tmp_path):
    assert in_use(tmp_path) is None  # no lock
    with held_by_another(tmp_path):
        assert in_use(tmp_path) is True
    assert in_use(tmp_path) is False  # killed
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert in_use(tmp_path) is True
    lock.release()
    assert in_use(tmp_path) is False  # although the process goes on
    file = tmp_path / LOCK
    file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    os.utime(file, (1.0, 1.0))
    assert in_use(tmp_path) is False  # the number was another process's then
    file.write_text(f"process {os.getpid()} on another-host\n")
    assert in_use(tmp_path) is None


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
    """For example workers of a pool that run longer."""
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
    """Run processes at the same time, and return their outputs."""
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


def test_a_folder_without_a_run_is_removed(tmp_path, toy):
    with pytest.raises(LayerError):
        prune(toy, tmp_path / "run", include=["nothing"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="about can't be saved as JSON"):
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


def test_the_header_of_a_plan_has_the_fields_of_a_plan():
    assert set(PlanFacts.model_fields) == {field.name for field in dataclasses.fields(Plan)}
