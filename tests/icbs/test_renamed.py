"""Old import paths give the same objects as the new ones, with a warning."""

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
    module = importlib.import_module(f"icbs.{new}")
    public = [name for name in dir(module) if not name.startswith("_")]
    assert public
    assert all(getattr(found, name) is getattr(module, name) for name in public)


def test_modules_within_old_packages() -> None:
    from icbs.layerwise.sweep import sweep

    sys.modules.pop("icbs.baselines.sweep", None)
    with pytest.warns(
        DeprecationWarning, match=r"icbs.baselines.sweep is now icbs.layerwise.sweep"
    ):
        module = importlib.import_module("icbs.baselines.sweep")
    assert module.sweep is sweep


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("icbs.layerwise", "prune", "icbs.layerwise.pruning.prune_layerwise"),
        ("icbs.layerwise", "exchange", "icbs.layerwise.weight_exchange.exchange_weights"),
        ("icbs.layerwise", "Baseline", "icbs.layerwise.pruning.LayerwiseResult"),
        ("icbs.lm", "pack", "icbs.lm.windows.pack_windows"),
    ],
)
def test_old_names_give_the_new_objects(module: str, old: str, new: str) -> None:
    home, _, name = new.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is now {new}"):
        found = getattr(importlib.import_module(module), old)
    assert found is getattr(importlib.import_module(home), name)
