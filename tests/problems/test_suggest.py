"""Suggestions of similar names."""

from __future__ import annotations

import pytest

from problems import CardinalityQUBO, FormatError, library
from problems.errors import UnknownProblemError
from problems.formats import read
from problems.suggest import did_you_mean
from solvers import OptionError, UnknownSolverError, create


@pytest.mark.parametrize(
    ("name", "near"), [("anel", "anneal"), ("CPSAT", "cpsat"), ("xyz", None), (3, None)]
)
def test_the_nearest_name_is_suggested(name, near):
    said = did_you_mean(name, ["anneal", "cpsat", "neal"])
    assert said == (f" (did you mean {near!r}?)" if near else "")


def test_the_nearest_names_come_in_order():
    names = ["garment-0-12-late", "garment-2-12-early", "garment-0-64-early", "deit-v0-12-early"]
    said = did_you_mean("garment-0-12-lat", names, 2)
    assert said == " (did you mean 'garment-0-12-late' or 'garment-2-12-early'?)"
    assert did_you_mean("xyz", names, 5) == ""


def test_a_message_on_the_library_has_five_names_and_the_command_for_all():
    with pytest.raises(UnknownProblemError) as told:
        library.load("garment-0-48-early")
    assert "did you mean 'garment-0-64-early', '" in str(told.value)
    assert str(told.value).count("garment-") <= 6
    assert f"lists all {len(library.names())}" in str(told.value)


def test_solvers_options_and_formats_suggest(tmp_path):
    with pytest.raises(UnknownSolverError, match="did you mean 'anneal'"):
        create("aneal")
    with pytest.raises(OptionError, match="did you mean 'repair'"):
        create("neal", repare=True)
    CardinalityQUBO([[1.0]], 1).save(tmp_path / "p.npz")
    with pytest.raises(FormatError, match="did you mean 'npz'"):
        read(tmp_path / "p.npz", "npy")
