"""What is shown where a terminal is, and where a file or a pipe is."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from icbs.records import live
from icbs.records.evaluations import Evaluator
from icbs.records.live import Live


def written(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, every: float) -> list[str]:
    monkeypatch.setattr(live, "_LINE_EVERY", every)
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


def test_a_file_gets_a_line_a_pass_and_no_bar(monkeypatch):
    lines = written(monkeypatch, terminal=False, every=-1.0)
    assert [line.split("  ")[0] for line in lines] == [f"iCBS: pass {i} of 4" for i in range(5)]
    for word in ("held-out loss 0.500", "test accuracy 75.00% (pass 0)", "3:00 left"):
        assert word in lines[1]
    assert "test accuracy 75.00%  " in lines[2]  # of these masks


def test_quick_passes_write_few_lines_and_the_last_always(monkeypatch):
    lines = written(monkeypatch, terminal=False, every=3600.0)
    assert [line.split("  ")[0] for line in lines] == ["iCBS: pass 0 of 4", "iCBS: pass 4 of 4"]


def test_a_terminal_gets_the_bar_alone(monkeypatch):
    lines = written(monkeypatch, terminal=True, every=-1.0)
    assert not any("pass 2 of 4" in line for line in lines)
    assert any("loss 0.200" in line for line in lines)
