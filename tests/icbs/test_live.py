"""Live progress in a terminal, and lines in a file or a pipe."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from icbs import Pruner
from icbs.cli import live
from icbs.cli.live import Live
from icbs.report.evaluations import Evaluator


def written(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, every: float) -> list[str]:
    monkeypatch.setattr(live, "_LINE_INTERVAL", every)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=60)
    evaluator = Evaluator(lambda model: {"accuracy": 0.75}, 2)
    with Live(console, "iCBS", evaluator) as show:
        for step in range(5):
            show(
                SimpleNamespace(
                    step=step, passes=4, seconds=60.0 * step, remaining=60.0 * (4 - step),
                    loss=1.0 / (step + 1), density=0.5, blocks=3 * step, accepted=step, model=None,
                )
            )  # fmt: skip
    return console.file.getvalue().splitlines()


def test_a_file_gets_lines_instead_of_a_bar(monkeypatch):
    lines = written(monkeypatch, terminal=False, every=-1.0)
    assert [line.split("  ")[0] for line in lines] == [f"iCBS: pass {i}/4" for i in range(5)]
    for word in ("held-out loss 0.500", "test accuracy 75.00% (pass 0)", "3:00 left"):
        assert word in lines[1]
    assert "test accuracy 75.00%  " in lines[2]  # of these masks


def test_fast_passes_print_few_lines_including_the_last(monkeypatch):
    lines = written(monkeypatch, terminal=False, every=3600.0)
    assert [line.split("  ")[0] for line in lines] == ["iCBS: pass 0/4", "iCBS: pass 4/4"]


def test_a_terminal_gets_only_the_bar(monkeypatch):
    lines = written(monkeypatch, terminal=True, every=-1.0)
    assert not any("iCBS: pass" in line for line in lines)
    assert any("loss 0.200" in line for line in lines)


def test_a_library_run_prints_or_logs_or_neither(toy, capsys, caplog):
    pruner = Pruner(density=0.3, passes=2, block_size=16)
    with caplog.at_level("INFO", logger="icbs"):
        pruner.prune(toy.model, toy.batches, toy.loss)  # no terminal: the log
    said = [record.getMessage() for record in caplog.records if "pass" in record.getMessage()]
    assert [text.split(",")[0] for text in said if "held-out" in text] == [
        f"pass {i} of 2" for i in range(3)
    ]
    assert capsys.readouterr().err == ""
    pruner.prune(toy.model, toy.batches, toy.loss, progress=True)
    assert len(capsys.readouterr().err.splitlines()) == 3
    caplog.clear()
    pruner.prune(toy.model, toy.batches, toy.loss, progress=False)
    assert capsys.readouterr().err == ""
    assert not [r for r in caplog.records if "held-out" in r.getMessage()]


def test_a_result_has_a_short_repr_and_a_summary(toy):
    result = Pruner(density=0.25, passes=2, block_size=16).prune(
        toy.model, toy.batches, toy.loss, progress=False
    )
    assert len(repr(result).splitlines()) == 1
    assert len(repr(result)) < 160
    assert f"density={result.density:.4g}" in repr(result)
    lines = str(result).splitlines()
    assert len(lines) <= 10
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert lines[0].startswith(f"{kept} of 624 weights kept in 3 layers")


def test_an_interrupted_run_names_the_call_to_resume(toy, tmp_path, caplog):
    def interrupt(progress):
        if progress.step == 1:
            raise KeyboardInterrupt

    pruner = Pruner(density=0.3, passes=4, block_size=16)
    with pytest.raises(KeyboardInterrupt):
        pruner.prune(toy.model, toy.batches, toy.loss, run=tmp_path / "run", callback=interrupt)
    assert f"icbs.Pruner.resume({str(tmp_path / 'run')!r}" in caplog.text
