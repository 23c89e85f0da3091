"""Import paths that have changed still lead to the same objects, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest

from icbs._renamed import RENAMED


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_paths_lead_to_the_new_modules(old: str, new: str) -> None:
    sys.modules.pop(f"icbs.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"icbs.{old} is now icbs.{new}"):
        found = importlib.import_module(f"icbs.{old}")
    assert found is importlib.import_module(f"icbs.{new}")
    assert found.__name__ == f"icbs.{new}"
    assert found.__spec__ is not None
    assert found.__spec__.name == f"icbs.{new}"


def test_modules_within_old_packages() -> None:
    from icbs.layerwise.prune import prune

    sys.modules.pop("icbs.baselines.prune", None)
    with pytest.warns(
        DeprecationWarning, match=r"icbs.baselines.prune is now icbs.layerwise.prune"
    ):
        module = importlib.import_module("icbs.baselines.prune")
    assert module.prune is prune
