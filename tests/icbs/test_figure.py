"""The picture of a run, also of one with hundreds of layers."""

from __future__ import annotations

import dataclasses
import warnings

import pytest

from icbs.history import Row
from icbs.report.figure import COLOURED, Curve, draw


@pytest.mark.parametrize("layers", [1, COLOURED, 210])
def test_a_picture_has_room_for_its_axes_whatever_the_number_of_layers(tmp_path, layers):
    blank = {field.name: 0 for field in dataclasses.fields(Row)}
    rows = [
        Row(**blank | {"layer": f"{i}", "moved": 3, "predicted": -0.1, "actual": -0.01 * (i + 1)})
        for i in range(layers)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        draw([Curve("iCBS", [], rows)], {"dense": {"loss": 3.0}}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
