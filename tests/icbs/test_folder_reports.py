"""Reports of folders of several runs: searches, and pruning in steps or by other methods."""

from __future__ import annotations

import json

import pytest

from icbs import RunFolderError, TargetError, prune_in_steps, search
from icbs.dashboard.watched import WatchedRuns
from icbs.report.folders import FolderReport
from tests.icbs.conftest import make_toy
from tests.icbs.test_cli import icbs

FAST = {"passes": 3, "block_size": 64}
pytestmark = pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")


def words(result) -> str:
    return " ".join(result.output.split())


def find(folder, **more):
    toy = make_toy()
    arguments = {"max_accuracy_loss": 0.03, "tolerance": 1, "heldout": toy.batches[-1:]} | more
    return search(toy.model, toy.batches[:-1], toy.loss, run=folder, **arguments)


def test_a_report_of_a_search_has_its_curve_and_answer(tmp_path):
    folder = tmp_path / "s"
    result = find(folder, method="wanda")
    said = icbs("report", folder)
    assert said.exit_code == 0, said.output
    for line in result.lines():
        assert line in said.output
    for point in result.curve.points:
        assert any(row.split()[:1] == [f"{point.density:g}"] for row in said.output.splitlines())
        assert result.curve.spell(point) in said.output
    refused = icbs("report", folder, "--html")
    assert refused.exit_code == 2
    assert "--html shows the passes of iCBS, and there are none" in words(refused)
    with pytest.raises(RunFolderError, match="is a search by wanda, and has no run of iCBS"):
        WatchedRuns([folder])


def test_a_search_without_an_answer_says_so(tmp_path):
    folder = tmp_path / "s"

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find(folder, method="magnitude", callback=stop)
    lines = FolderReport.of(folder).lines
    assert "no answer; 1 point of the curve: 0.9 is the lowest so far that meets it" in lines
    assert "interrupted; the same command or call, with the same folder, continues" in lines
    with pytest.raises(TargetError):
        find(tmp_path / "n", method="magnitude", max_accuracy_loss=0.0, high=0.1)
    lines = FolderReport.of(tmp_path / "n").lines
    assert "no answer; 1 point of the curve: none meets it" in lines


@pytest.mark.parametrize(("method", "more"), [("icbs", FAST), ("magnitude", {})])
def test_a_report_of_steps_has_each_step(tmp_path, method, more):
    folder, toy = tmp_path / "r", make_toy()
    result = prune_in_steps(
        toy.model, toy.batches, toy.loss, steps=[0.5, 0.3], density=0.3, method=method,
        recover="least-squares", run=folder, **more,
    )  # fmt: skip
    said = icbs("report", folder)
    assert said.exit_code == 0, said.output
    recovered = [
        json.loads((folder / f"step-{i}" / "recovery" / "summary.json").read_text()) for i in (1, 2)
    ]
    rows = {row.split()[0]: row for row in said.output.splitlines() if row.split()}
    for number, (density, of) in enumerate(zip(result.densities, recovered, strict=True), 1):
        assert rows[str(number)].split()[1:3] == [f"{density:g}", "done"]
        assert f"{of['method']}, loss" in rows[str(number)]
        assert f"→ {of['loss']:.4g}" in rows[str(number)]
    assert f"finished: density {result.density:.4f}" in said.output
    if method == "icbs":
        assert f"'icbs report {folder / 'step-2'}' shows a single run" in said.output
        assert len(WatchedRuns([folder]).readers) == 2
    else:
        with pytest.raises(RunFolderError, match="is pruning by magnitude, recovery least-squares"):
            WatchedRuns([folder])
    refused = icbs("report", folder, "--layers")
    assert refused.exit_code == 2
    assert "--layers and --figure are for a single run" in words(refused)


def test_damaged_files_are_named(tmp_path):
    for name in ("search.json", "steps.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("[]")
        with pytest.raises(RunFolderError, match=rf"{name} is damaged"):
            FolderReport.of(folder)
    assert FolderReport.of(tmp_path) is None
