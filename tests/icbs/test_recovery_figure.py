"""The course of a recovery: overfitting is told, and drawn."""

from __future__ import annotations

import pytest

from icbs.recovery.result import StepRecord, describe, overfits
from icbs.report.recovery_figure import draw_recovery, recovery_figure

NAN = float("nan")


def rows(*losses, method="distill"):
    lowest, found = float("inf"), []
    for number, (calibration, heldout) in enumerate(losses, 1):
        best, lowest = heldout < lowest, min(lowest, heldout)
        found.append(
            StepRecord(method, number, f"epoch {number}", NAN, NAN, calibration, heldout, best, 1.0)
        )
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([(3.0, 3.0), (2.0, 2.5), (1.0, 2.7)], True),
        ([(3.0, 3.0), (2.0, 2.5), (1.0, 2.4)], False),
        ([(3.0, 3.0), (3.5, 3.5)], False),
        ([(3.0, 3.0)], False),
        ([(3.0, 3.0), (2.0, 0.8081), (1.99, 0.8083)], False),  # noise of the held-out samples
        ([(3.0, 3.0), (2.0, 3.2), (NAN, NAN)], True),
        ([], False),
    ],
)
def test_overfitting_is_a_lower_calibration_and_a_higher_held_out_loss(losses, expected):
    assert overfits(rows(*losses)) is expected


def test_methods_are_compared_with_themselves():
    history = rows((1.0, 1.0)) + rows((0.5, 3.0), (0.6, 2.0), method="blocks")
    assert not overfits(history)


def test_a_line_tells_it():
    summary = {
        "initial_loss": 3.0, "loss": 2.5, "initial_calibration_loss": 3.0, "calibration_loss": 2.0,
        "dense_loss": NAN, "method": "distill", "skipped": {}, "overfits": True,
    }  # fmt: skip
    assert any("overfits; give it more samples" in line for line in describe(summary))
    assert not any("overfits" in line for line in describe(summary | {"overfits": False}))


def test_both_losses_are_drawn(tmp_path):
    history = rows((3.0, 3.0), (2.0, 2.5), (1.0, 2.7)) + rows((1.5, 2.4), method="global")
    (axes,) = recovery_figure(history, 2.0).axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert list(drawn["calibration"]) == [3.0, 2.0, 1.0, 1.5]
    assert list(drawn["held out"]) == [3.0, 2.5, 2.7, 2.4]
    assert list(drawn["result"]) == [2.4]
    draw_recovery(history, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
