"""A run keeps block problems as files: which, what is in them, and what a kill leaves of them."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from icbs import ConfigError, Pruner, Result, RunFolderError
from icbs.config import PrunerConfig
from icbs.run.block_sample import every_nth, sampled
from icbs.run.history import TIMES
from icbs.run.saved_blocks import BlockSaver, SavedBlock
from icbs.run.table_file import TableFile
from problems import Instance, load_instances
from solvers import solve
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.test_failures import SETTINGS as FAILING
from tests.icbs.test_failures import faulty  # noqa: F401
from tests.icbs.test_full_disks import disk, fill  # noqa: F401
from tests.icbs.test_resume import SETTINGS, InterruptionError, same

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "judged by pass": {"acceptance": "pass"},
    "layer error": {"curvature": "gram"},
    "outputs": {"constraint": "output", "compare": "output"},
    "2:4": {"constraint": "2:4", "density": 0.5},
    "one problem of all weights": {"block_size": "all", "passes": 3},
    "one cardinality in all": {"block_size": "all", "passes": 3, "allocation": "global"},
}


def prune(run: Path | None, toy: Toy | None = None, callback: Any = None, **more: Any) -> Result:
    toy = toy or make_toy()
    pruner = Pruner(**SETTINGS | more)
    return pruner.prune(
        toy.model, toy.batches, toy.loss, run=run, callback=callback, progress=False
    )


def resume(run: Path, **more: Any) -> Result:
    toy = make_toy()
    return Pruner.resume(run, toy.model, toy.batches, toy.loss, progress=False, **more)


def table(run: Path) -> list[SavedBlock]:
    return TableFile(run / "blocks" / "blocks.csv", SavedBlock, "table", "").read()


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "blocks").glob("*.npz")}


def facts(run: Path) -> list[dict[str, Any]]:
    """The table without its wall times; NaN as None, which equals itself."""
    rows = [{k: v for k, v in vars(row).items() if k not in TIMES} for row in table(run)]
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


# -- what is in the files -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 3])
def test_every_nth_block_of_the_run_is_kept_as_it_was(tmp_path, kind, every):
    run, settings = tmp_path / "run", {"passes": 7} | KINDS[kind]
    result = prune(run, save_blocks=every, **settings)
    assert same(result, prune(None, **settings))  # the same bits
    rows = result.history
    found = list(load_instances(run / "blocks"))
    assert [block.about["number"] for block in found] == list(range(0, len(rows), every))
    wide = SETTINGS | settings
    for block, record in zip(found, table(run), strict=True):
        row, about = rows[block.about["number"]], block.about
        assert row.proved == (record.status == "optimal")
        for name, value in vars(row).items():
            if name == "weights":
                continue  # moves come after the blocks are saved
            assert getattr(record, name) == value, name
            if name not in TIMES:
                assert about[name] == (None if value != value else value), name
        assert (about["curvature"], about["constraint"], about["solver"]) == (
            wide.get("curvature", "monte-carlo"), wide.get("constraint", "layer"), "anneal"
        )  # fmt: skip
        assert about["status"] == "feasible"
        assert about["kappa"] > 0
        assert record.size == (run / "blocks" / record.file).stat().st_size
        assert record.groups == about["groups"] == block.problem.num_groups
        assert (block.problem.n, block.problem.k) == (row.n, row.k)
        # The status quo has energy 0, up to rounding, and the answer the one of the history.
        assert abs(block.problem.energy(block.start)) < 1e-9
        assert block.problem.energy(block.answer) == row.energy
        assert int((block.start != block.answer).sum()) == row.moved
        if kind == "default":  # nothing but a model of the loss
            assert row.predicted == row.energy


def test_the_saved_problem_is_the_one_that_was_solved(tmp_path):
    """The same solver, start and seed come to the same answer."""
    from icbs import streams

    run = tmp_path / "run"
    prune(run, save_blocks=1, passes=4)
    for block in load_instances(run / "blocks"):
        seed = streams.solver_seed(SETTINGS["seed"], block.about["step"])
        steps = [each for each in table(run) if each.step == block.about["step"]]
        again = solve(
            [load(run, each.file).problem for each in steps], "anneal", seed=seed,
            initial_state=[load(run, each.file).start for each in steps],
        )  # fmt: skip
        for each, answer in zip(steps, again, strict=True):
            assert np.array_equal(answer.x, load(run, each.file).answer)


def load(run: Path, file: str) -> Instance:
    return Instance.load(run / "blocks" / file)


def test_the_table_is_one_that_any_program_reads(tmp_path):
    run = tmp_path / "run"
    prune(run, save_blocks=4, passes=6)
    with (run / "blocks" / "blocks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(files(run))
    assert {row["accepted"] for row in rows} <= {"True", "False"}
    assert all(float(row["energy"]) <= 1e-12 for row in rows)


def test_kappa_is_that_of_the_block(tmp_path):
    """Without damping the number of blocks of the pass, or what was asked for; else more."""
    plain, asked, damped = (tmp_path / name for name in ("plain", "asked", "damped"))
    prune(plain, save_blocks=1, damping=1)
    per_pass = Counter(row.step for row in table(plain))
    assert [row.kappa for row in table(plain)] == [per_pass[row.step] for row in table(plain)]
    prune(asked, save_blocks=1, damping=1, curvature_weight=2.5, passes=3)
    assert {row.kappa for row in table(asked)} == {2.5}
    prune(damped, save_blocks=1)
    rows = table(damped)
    first = next(row for row in rows if row.moved and not row.accepted)
    after = next(row for row in rows if row.layer == first.layer and row.step > first.step)
    count = Counter(row.step for row in rows)
    factor = (after.kappa / count[after.step]) / (first.kappa / count[first.step])
    assert factor == pytest.approx(1.2)


@pytest.mark.usefixtures("faulty")
def test_a_failure_is_kept_with_its_block(tmp_path, faulty):  # noqa: F811
    faulty.fails = 2
    toy, run = make_toy(), tmp_path / "run"
    Pruner(**FAILING, passes=3, save_blocks=1).prune(
        toy.model, toy.batches, toy.loss, run=run, progress=False
    )
    found = list(load_instances(run / "blocks"))
    assert len(found) == 9
    failed = [block for block in found if block.about["failure"]]
    assert len(failed) == 2  # any two of the first pass, whose blocks are solved side by side
    for block in found:
        assert (block.answer is None) == (block in failed)
        assert block.start is not None
    for block in failed:
        assert block.about["step"] == 0
        assert "no license" in block.about["failure"]
        assert block.about["status"] == ""


@pytest.mark.usefixtures("faulty")
def test_a_run_that_is_given_up_has_its_blocks_in_the_table(tmp_path, faulty):  # noqa: F811
    from icbs import SolverFailureError

    toy, run = make_toy(), tmp_path / "run"
    with pytest.raises(SolverFailureError):
        Pruner(**FAILING, passes=5, save_blocks=1).prune(
            toy.model, toy.batches, toy.loss, run=run, progress=False
        )
    assert len(table(run)) == len(files(run)) == 9
    faulty.fails = 0
    resume(run)
    assert len(table(run)) == len(files(run)) == 15
    assert not any(row.failure for row in table(run))


# -- which ----------------------------------------------------------------------------------


@given(st.integers(1, 9), st.lists(st.integers(0, 7), max_size=9))
def test_every_nth_does_not_depend_on_where_passes_end(n, counts):
    numbers, first = [], 0
    for count in counts:
        numbers += [first + i for i in every_nth(n, first, count)]
        first += count
    assert numbers == list(range(0, first, n))


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 9), st.randoms())
def test_a_sample_is_spread_over_layers_and_passes(size, passes, layers, random):
    saved: Counter[str] = Counter()
    steps = []
    for step in range(passes):
        order = random.sample(range(layers), layers)
        blocks = [(f"layer {i}", i) for i in order]
        chosen = sampled(size, step=step, passes=passes, blocks=blocks, saved=saved)
        assert len(chosen) == len(set(chosen))
        saved.update(blocks[i][0] for i in chosen)
        steps += [step] * len(chosen)
    assert saved.total() == min(size, passes * layers)
    counts = [saved[f"layer {i}"] for i in range(layers)]
    assert max(counts) - min(counts) <= 1
    assert steps[0] == 0
    assume(size > 1)
    assert steps[-1] == passes - 1
    gaps = np.diff(np.unique(steps))
    assert gaps.max(initial=1) <= max(1, -(-(passes - 1) // (size - 1)))
    per_pass = [steps.count(step) for step in set(steps)]
    assert max(per_pass) - min(per_pass) <= 1


def test_a_sample_has_early_and_late_passes_and_all_layers(tmp_path):
    run = tmp_path / "run"
    assert same(prune(run, save_blocks="sample:6"), prune(None))
    rows = table(run)
    assert Counter(row.layer for row in rows) == {"0": 2, "2": 2, "4": 2}
    assert [row.step for row in rows] == [0, 4, 7, 10, 13, 16]


@pytest.mark.parametrize("depth", [5, 24, 100])
def test_a_small_sample_of_one_pass_is_spread_over_depth(depth):
    blocks = [(str(i), i) for i in range(depth)]
    chosen = sampled(4, step=0, passes=1, blocks=blocks, saved=Counter())
    assert chosen[0] == 0
    assert np.diff(chosen).max() <= depth / 2 + 1


# -- killed, resumed ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 4, 11])
@pytest.mark.parametrize(
    "more", [{"save_blocks": 2}, {"save_blocks": "sample:9"}, {"save_blocks": 3, **KINDS["2:4"]},
             {"save_blocks": 1, "acceptance": "pass"}],
    ids=str,
)  # fmt: skip
def test_no_block_is_twice_and_none_is_missing(tmp_path, after, more):
    whole, run = tmp_path / "whole", tmp_path / "run"
    expected = prune(whole, **more)

    def interrupt(progress: Any) -> None:
        if progress.step == after:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        prune(run, callback=interrupt, **more)
    if after == 11:  # as a kill in the middle of a file leaves it
        (run / "blocks" / ".icbs-12345678.tmp").mkdir()
        (run / "blocks" / ".icbs-12345678.tmp" / "block-000030.npz").write_bytes(b"half")
    assert same(resume(run), expected)
    assert files(run) == files(whole)
    assert facts(run) == facts(whole)
    assert {path.name for path in (run / "blocks").iterdir()} == {*files(whole), "blocks.csv"}


def test_blocks_beyond_the_checkpoint_are_removed(tmp_path):
    """Of a run that ends earlier than the one that was killed, nothing else is left."""
    run = tmp_path / "run"

    def interrupt(progress: Any) -> None:
        if progress.step == 5:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        prune(run, callback=interrupt, save_blocks=1)
    before = files(run)
    (run / "blocks" / "mine.npz").write_bytes(b"mine")
    resume(run, passes=3)  # the last checkpoint
    left = files(run)
    assert left.pop("mine.npz") == b"mine"
    assert 0 < len(left) == len(table(run)) < len(before)
    assert left.items() <= before.items()
    resume(run, passes=5)
    assert files(run) == before | {"mine.npz": b"mine"}


def test_more_passes_go_on_with_the_numbers(tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    prune(run, save_blocks=2, passes=6)
    resume(run, passes=12)
    rows = table(run)
    assert [row.number for row in rows] == list(range(0, rows[-1].number + 1, 2))
    prune(whole, save_blocks=2, passes=12)
    assert len(files(run)) == len(files(whole))


def test_a_resumed_run_may_save_more_or_none(tmp_path):
    run = tmp_path / "run"
    prune(run, passes=3)
    assert not (run / "blocks").exists()
    first = resume(run, passes=6, save_blocks=1)
    rows = table(run)
    assert {row.step for row in rows} == {3, 4, 5}
    assert rows[0].number == len(first.history) - len(rows)
    before = files(run)
    resume(run, passes=9)  # which says nothing of blocks
    assert files(run) == before
    resume(run, passes=12, save_blocks=1)
    assert files(run).items() > before.items()
    assert {row.step for row in table(run)} == {3, 4, 5, 9, 10, 11}


def test_blocks_that_were_taken_away_are_not_missed(tmp_path, caplog):
    run = tmp_path / "run"
    prune(run, save_blocks=2, passes=6)
    shutil.move(run / "blocks", tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING, "icbs"):
        result = resume(run, passes=9)
    assert "of this run is missing; only new blocks" in caplog.text
    assert same(
        result, prune(tmp_path / "whole", passes=6) and resume(tmp_path / "whole", passes=9)
    )
    assert {row.step for row in table(run)} == {6, 7, 8}


def test_a_damaged_table_is_refused_with_the_remedy(tmp_path):
    run = tmp_path / "run"
    prune(run, save_blocks=2, passes=6)
    path = run / "blocks" / "blocks.csv"
    path.write_bytes(path.read_bytes().replace(b",2,", b",3,", 1))
    before = files(run)
    with pytest.raises(RunFolderError, match=f"blocks.csv is damaged.*or delete {run}/blocks"):
        resume(run, passes=9)
    path.unlink()
    with pytest.raises(RunFolderError, match="not a readable table of blocks.*or delete"):
        resume(run, passes=9)
    assert files(run) == before
    shutil.rmtree(run / "blocks")
    assert resume(run, passes=9).passes == 9


def test_nothing_is_written_or_removed_through_a_link(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    prune(run, save_blocks=2, passes=3)
    shutil.move(run / "blocks", outside)
    (outside / "block-999999.npz").write_bytes(b"precious")
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    (run / "blocks").symlink_to(outside)
    with pytest.raises(RunFolderError, match="blocks is a link; replace it with a folder"):
        resume(run, passes=6)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


# -- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 60_000, 150_000])
def test_never_more_than_the_limit(tmp_path, caplog, limit):
    run, whole = tmp_path / "run", tmp_path / "whole"
    with caplog.at_level(logging.WARNING, "icbs"):
        result = prune(run, save_blocks=1, save_blocks_limit=limit)
    said = [r.getMessage() for r in caplog.records if "save_blocks_limit" in r.getMessage()]
    assert len(said) == 1
    assert "no further blocks are saved" in said[0]
    assert same(result, prune(whole, save_blocks=1))
    kept, all_of_them = files(run), files(whole)
    assert sum(map(len, kept.values())) <= limit
    assert [*sorted(kept)] == [*sorted(all_of_them)][: len(kept)]  # the first, without a gap
    assert kept.items() <= all_of_them.items()
    assert len(kept) < len(all_of_them)


def test_a_run_that_has_stopped_saving_stays_so_unless_the_limit_is_raised(tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    more = {"save_blocks": 1, "save_blocks_limit": 60_000}
    prune(whole, **more)

    def interrupt(progress: Any) -> None:
        if progress.step == 11:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        prune(run, callback=interrupt, **more)
    before = files(run)
    resume(run, passes=14)
    assert files(run) == before
    resume(run)
    assert files(run) == before == files(whole)
    resume(run, passes=20, save_blocks_limit=10**6)
    assert {row.step for row in table(run)} >= {17, 18, 19}
    assert files(run).items() > before.items()


@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
def test_no_smaller_block_slips_in_after_the_limit(tmp_path):
    """The last layer's blocks are smaller; a run that was killed stops where the other did."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    more = {"save_blocks": 1, "block_size": 48}
    prune(tmp_path / "all", **more)
    rows = table(tmp_path / "all")
    bounds = {48: set[int](), 43: set[int]()}
    for row in rows:
        bounds[row.n].add(load(tmp_path / "all", row.file).largest_size())
    small, large = max(bounds[43]), min(bounds[48])
    assert small < large
    stop = next(i for i, row in enumerate(rows) if row.step > 3 and row.n == 48)
    assert any(row.n == 43 for row in rows if row.step > 8)
    limit = sum(row.size for row in rows[:stop]) + (small + large) // 2
    prune(whole, save_blocks_limit=limit, **more)
    assert len(files(whole)) == stop

    def interrupt(progress: Any) -> None:
        if progress.step == 8:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        prune(run, callback=interrupt, save_blocks_limit=limit, **more)
    resume(run)
    assert files(run) == files(whole)


def test_a_full_disk_costs_blocks_and_no_run(disk, caplog):  # noqa: F811
    run = disk / "run"
    expected = prune(None)

    def callback(progress: Any) -> None:
        if progress.step == 4:
            fill(disk)
        if progress.step == 8:
            (disk / "ballast").unlink()

    with caplog.at_level(logging.WARNING, "icbs"):
        found = prune(run, callback=callback, save_blocks="sample:9")
    assert same(found, expected)
    said = [r.getMessage() for r in caplog.records if "was not saved" in r.getMessage()]
    assert len(said) == 1  # and not for each block
    assert "No space left" in said[0]
    steps = [row.step for row in table(run)]
    assert not {4, 5, 6, 7} & set(steps)
    assert len(steps) == 9  # the sample catches up
    assert len(files(run)) == 9


def test_room_for_the_results_of_the_run_is_left(disk, caplog):  # noqa: F811
    """Blocks that would fill the disk to its last byte would cost the run its masks."""
    run = disk / "run"
    with caplog.at_level(logging.WARNING, "icbs"):
        result = prune(run, save_blocks=1)
    assert "besides the space for checkpoints and results" in caplog.text
    assert (run / "masks.safetensors").exists()
    assert (run / "summary.json").exists()
    assert same(result, prune(None))
    assert 0 < len(files(run)) < len(result.history)


def test_a_folder_deleted_under_a_run_is_not_made_anew(tmp_path, caplog):
    run = tmp_path / "run"

    def callback(progress: Any) -> None:
        if progress.step == 5:
            shutil.rmtree(run)

    with (
        caplog.at_level(logging.WARNING, "icbs"),
        pytest.raises(RunFolderError, match="was deleted or replaced") as caught,
    ):
        prune(run, callback=callback, save_blocks=1)
    assert same(caught.value.result, prune(None))
    assert "was not saved" in caplog.text
    assert not run.exists()


def test_nothing_is_saved_in_another_run_of_the_same_name(tmp_path):
    run = tmp_path / "run"
    content: dict[str, bytes] = {}

    def callback(progress: Any) -> None:
        if progress.step == 5:
            shutil.rmtree(run)
            prune(run, passes=1, seed=1, save_blocks=1)
            content.update(files(run))

    with pytest.raises(RunFolderError, match="was deleted or replaced"):
        prune(run, callback=callback, save_blocks=1)
    assert files(run) == content


# -- settings -------------------------------------------------------------------------------


def test_without_a_run_folder_there_is_nowhere_to_keep_them(toy):
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"save_blocks = 5 needs a run folder.*run="):
        prune(None, toy, save_blocks=5)
    assert all(value.equal(before[name]) for name, value in toy.model.state_dict().items())


@pytest.mark.parametrize("given", [0, -3, 2.5, True, "all", "sample:0", "sample:", ":5", "1e3"])
def test_what_is_no_number_of_blocks_is_refused(given):
    with pytest.raises(ConfigError, match="save_blocks = .*N .every N-th block., such as 10, or"):
        PrunerConfig.of(save_blocks=given)


@pytest.mark.parametrize(
    ("given", "read"),
    [(7, 7), ("7", 7), ("007", 7), ("sample:60", "sample:60"), ("sample:06", "sample:6")],
)
def test_numbers_are_read_as_people_write_them(given, read):
    assert PrunerConfig.of(save_blocks=given).save_blocks == read


def test_runs_that_save_nothing_write_no_word_of_it(tmp_path):
    from icbs.export.safetensors_files import read_header

    prune(tmp_path / "run", passes=3)
    assert "blocks" not in read_header(tmp_path / "run" / "checkpoint.safetensors", "checkpoint")
    assert not (tmp_path / "run" / "blocks").exists()


def test_the_saver_alone(tmp_path):
    """With no block before, what is not of a run is left alone."""
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "block-000001.npz").write_bytes(b"left by a run that was killed")
    (tmp_path / "blocks" / "notes.txt").write_text("mine")
    saver = BlockSaver(tmp_path, PrunerConfig(save_blocks=1), ["a"])
    saver.restore(None)
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == ["notes.txt"]
    mark = saver.flush()
    assert (mark["rows"], mark["full"]) == (0, 0)
    assert json.loads(json.dumps(mark)) == mark
