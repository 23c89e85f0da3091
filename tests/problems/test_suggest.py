"""Suggestions of similar names."""

from __future__ import annotations

import pytest

from problems import CardinalityQUBO, FormatError
from problems.formats import read
from problems.suggest import did_you_mean
from solvers import OptionError, UnknownSolverError, create


@pytest.mark.parametrize(
    ("name", "near"), [("anel", "anneal"), ("CPSAT", "cpsat"), ("xyz", None), (3, None)]
)
def test_the_nearest_name_is_suggested(name, near):
    said = did_you_mean(name, ["anneal", "cpsat", "neal"])
    assert said == (f" (did you mean {near!r}?)" if near else "")


def test_solvers_options_and_formats_suggest(tmp_path):
    with pytest.raises(UnknownSolverError, match="did you mean 'anneal'"):
        create("aneal")
    with pytest.raises(OptionError, match="did you mean 'repair'"):
        create("neal", repare=True)
    CardinalityQUBO([[1.0]], 1).save(tmp_path / "p.npz")
    with pytest.raises(FormatError, match="did you mean 'npz'"):
        read(tmp_path / "p.npz", "npy")
