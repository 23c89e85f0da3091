"""The history file: appending, checkpoints, damage."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icbs import RunFolderError
from icbs.run.history import BlockRecord, HistoryFile, read_history
from solvers.solution import Solution, Status, Stop, Timing

NAMES = [field.name for field in dataclasses.fields(BlockRecord)]


def make_rows(count: int, start: int = 0) -> list[BlockRecord]:
    return [
        BlockRecord(
            step=i,
            samples=200,
            layer='a "strange", name\nof a layer' if i % 3 else "0.ü",
            n=32,
            k=16,
            moved=i % 5,
            predicted=-1 / (i + 3),
            actual=math.inf if i % 4 else 0.1 * i,
            accepted=i % 2 == 0,
            energy=1e-308 * i,
            failure="" if i % 7 else "SolverError",
            solver_seconds=0.1,
            seconds=i / 3,
            proved=i % 3 == 0,
            bound=None if i % 4 == 1 else -1e-308 * i,
        )
        for i in range(start, start + count)
    ]


def test_rows_are_read_bit_for_bit_however_they_were_appended(tmp_path):
    rows, at_once = make_rows(20), HistoryFile(tmp_path / "once.csv")
    at_once.append(rows)
    file = HistoryFile(tmp_path / "parts.csv")
    marks = []
    for count in (0, 1, 1, 7, 20):
        file.append(rows[:count])
        marks.append(file.mark())
        text = file.path.read_bytes()
        assert marks[-1] == {
            "rows": count,
            "size": len(text),
            "digest": hashlib.blake2b(text, digest_size=16).hexdigest(),
        }
    assert file.path.read_bytes() == at_once.path.read_bytes()
    assert read_history(file.path) == rows
    for mark in marks:
        again = HistoryFile(file.path)
        assert again.restore(mark) == rows[: mark["rows"]]
        assert again.mark() == mark
    with file.path.open(newline="", encoding="utf-8") as text:  # as any other reader sees it
        assert [row["layer"] for row in csv.DictReader(text)] == [row.layer for row in rows]


@pytest.mark.parametrize("rest", [b"", b"7,2", b"7,200,0,3\r\n7,200"])
def test_rows_after_a_checkpoint_are_overwritten(tmp_path, rest):
    rows, path = make_rows(12), tmp_path / "history.csv"
    file = HistoryFile(path)
    file.append(rows[:5])
    mark = file.mark()
    file.append(rows[:9])
    path.write_bytes(path.read_bytes() + rest)
    again = HistoryFile(path)
    assert again.restore(mark) == rows[:5]
    again.append(rows[:6])
    assert read_history(path) == rows[:6]
    again.append(rows)
    assert read_history(path) == rows


def test_an_incomplete_last_row_is_not_read(tmp_path):
    rows, path = make_rows(5), tmp_path / "history.csv"
    HistoryFile(path).append(rows)
    path.write_bytes(path.read_bytes()[:-9])
    assert read_history(path) == rows[:4]
    path.write_bytes(b"step,sam")
    with pytest.raises(RunFolderError, match="no complete line"):
        read_history(path)


def test_a_history_that_has_changed_is_refused(tmp_path):
    file = HistoryFile(tmp_path / "history.csv")
    file.append(make_rows(5))
    text = file.path.read_bytes()
    for damaged in (text[:-1], text.replace(b"32", b"33", 1), b""):
        file.path.write_bytes(damaged)
        with pytest.raises(RunFolderError, match="its first 5 rows don't match the checkpoint"):
            HistoryFile(file.path).restore(file.mark())
    file.path.unlink()
    with pytest.raises(RunFolderError, match="not a readable history"):
        HistoryFile(file.path).restore(file.mark())


def test_a_removed_file_is_written_again(tmp_path):
    rows, file = make_rows(9), HistoryFile(tmp_path / "history.csv")
    file.append(rows[:5])
    file.path.unlink()
    file.append(rows)
    assert read_history(file.path) == rows
    assert HistoryFile(file.path).restore(file.mark()) == rows


def test_nothing_is_appended_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "history.csv").symlink_to(outside)
    with pytest.raises(OSError, match="history.csv"):
        HistoryFile(tmp_path / "history.csv").append(make_rows(3))
    assert outside.read_text() == "precious"


def test_a_file_of_an_earlier_release_keeps_its_columns(tmp_path):
    """Its digests hold, and rows are appended to it, without what it has no column for."""
    rows, path = make_rows(9), tmp_path / "history.csv"
    older = [name for name in NAMES if name not in ("proved", "bound")]
    file = HistoryFile(path)
    file.names = older
    file.append(rows[:5])
    mark, begun = file.mark(), path.read_bytes()
    known = [dataclasses.replace(row, proved=False, bound=None) for row in rows]
    again = HistoryFile(path)
    assert again.restore(mark) == known[:5] == read_history(path)
    again.append(rows)
    assert path.read_bytes().startswith(begun)
    assert read_history(path) == known
    third = HistoryFile(path)
    assert third.restore(again.mark()) == known
    with path.open(newline="", encoding="utf-8") as text:
        assert csv.DictReader(text).fieldnames == older
    path.unlink()  # written again, it is a file of today
    third.append(rows)
    assert read_history(path) == rows


def test_a_missing_column_that_every_release_wrote_is_named(tmp_path):
    path = tmp_path / "history.csv"
    HistoryFile(path).append(make_rows(3))
    path.write_bytes(path.read_bytes().replace(b"energy", b"enemy"))
    with pytest.raises(RunFolderError, match="not a readable history: 'energy'"):
        read_history(path)


@given(
    energy=st.floats(allow_nan=False, allow_infinity=False),
    bound=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_the_gap_of_a_row_is_that_of_the_solution(energy, bound):
    (row,) = make_rows(1)
    row = dataclasses.replace(row, moved=2, energy=energy, bound=bound)
    empty = np.zeros((0, 2))
    solution = Solution(
        x=np.zeros(2, np.uint8),
        energy=energy,
        status=Status.FEASIBLE,
        stop=Stop.CONVERGED,
        bound=bound,
        samples=empty.astype(np.uint8),
        energies=empty[:, 0],
        feasible=empty[:, 0] > 0,
        repaired=empty[:, 0] > 0,
        timing=Timing(),
    )
    assert row.gap == solution.gap
    still = dataclasses.replace(row, moved=0, energy=1e-16, bound=-0.5)
    assert still.gap == pytest.approx(0.5)


def test_appending_takes_no_longer_for_a_long_history(tmp_path):
    """Rewriting 100,000 rows took most of a second at each checkpoint."""
    rows = make_rows(100_000)
    file = HistoryFile(tmp_path / "history.csv")
    file.append(rows[:99_900])
    before = written(file.path)
    began = time.process_time()
    file.append(rows)
    file.mark()
    assert time.process_time() - began < 0.3
    assert written(file.path) == before  # moved over, it would be another file
    assert read_history(file.path)[99_890:] == rows[99_890:]


def written(path: Path) -> int:
    return path.stat().st_ino
