"""Atomic writes: files are complete or absent, after any interruption."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from problems.files import atomic, is_leftover, remove_leftovers, write_text


def test_no_other_files_are_left(tmp_path):
    write_text(tmp_path / "a.txt", "new\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"new\n"


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    """Also files of safetensors, which writes a temporary file that only its owner can read."""
    before = os.umask(umask)
    try:
        write_text(tmp_path / "text", "")
        with atomic(tmp_path / "tensors") as temporary:
            save_file({"a": torch.ones(2)}, temporary)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~umask}


def test_links_are_replaced_and_never_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    with atomic(folder / "file") as temporary:
        # Only the owner may enter the folder of the temporary file, and its name is not
        # predictable.
        private = temporary.parent
        assert private.parent == folder
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        temporary.write_text("new")
    assert outside.read_text() == "precious"
    assert not (folder / "file").is_symlink()
    assert (folder / "file").read_text() == "new"


def test_temporary_names_differ_from_call_to_call(tmp_path):
    names = set()
    for _ in range(20):
        with atomic(tmp_path / "file") as temporary:
            temporary.touch()
            names.add(temporary.parent.name)
    assert len(names) == 20


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_only_a_file_is_replaced(tmp_path, kind):
    target = tmp_path / "there"
    target.mkdir() if kind == "folder" else os.mkfifo(target)
    with pytest.raises(FileExistsError, match="not a regular file"):
        write_text(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        write_text(tmp_path / "nowhere" / "file", "new")


def test_only_leftovers_of_our_own_are_removed(tmp_path):
    kept = {".mine.tmp", ".icbs-notes.tmp", ".icbs-12345678.tmp.txt", "icbs-abcdefgh.tmp", "a.tmp"}
    for name in kept:
        (tmp_path / name).write_text("the user's")
    (tmp_path / ".icbs-file5678.tmp").write_text("a file, where ours are folders")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("the user's")
    (tmp_path / ".icbs-link5678.tmp").symlink_to(elsewhere)
    kept |= {".icbs-file5678.tmp", ".icbs-link5678.tmp", "elsewhere"}
    left = leave_one(tmp_path)
    assert is_leftover(left)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (elsewhere / "file").read_text() == "the user's"


def leave_one(folder: Path) -> Path:
    """Kill a process while it writes, and return the files that it leaves."""
    before = set(folder.iterdir())
    if not (child := os.fork()):
        with atomic(folder / "file") as temporary:
            temporary.write_text("half")
            os._exit(0)
    os.waitpid(child, 0)
    (left,) = set(folder.iterdir()) - before
    return left
