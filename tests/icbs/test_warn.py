"""The line at which a warning points."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import pytest
from torch import nn

from icbs import Pruner
from icbs.errors import DensityWarning, TrainingModeWarning
from problems.warn import warn
from tests.icbs.conftest import make_toy


def files(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return {w.category: w.filename for w in caught}


def test_the_users_line_is_found_from_any_depth():
    toy = make_toy()
    model = nn.Sequential(*toy.model, nn.Dropout(0.1)).train()

    @contextmanager
    def manager():
        pruner = Pruner(densities={"0": 0.5}, passes=1, block_size=16)
        pruner.prune(model, toy.batches, toy.loss)
        yield

    def call():
        with manager():
            pass

    found = files(call)
    assert found[TrainingModeWarning] == found[DensityWarning] == __file__


def test_outside_of_the_library_it_is_the_calling_line():
    with pytest.warns(UserWarning, match="hello") as caught:
        warn("hello")
    assert caught[0].filename == __file__
