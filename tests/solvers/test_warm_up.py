"""Warm-up must compile all kernels that a run needs."""

import importlib
import pkgutil

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from problems import CardinalityQUBO
from solvers import get, solve


def compiled(package):
    """Number of compiled forms of each kernel of a package, including those called by kernels."""
    modules = [
        importlib.import_module(f"{package}.{module.name}")
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
    ]
    return {
        f"{module.__name__}.{name}": len(kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher)
    }


@pytest.mark.parametrize(
    ("name", "package"), [("anneal", "solvers.anneal"), ("exact", "solvers.exact")]
)
def test_nothing_is_compiled_after_the_warm_up(name, package):
    get(name).warm_up()
    before = compiled(package)
    assert any(before.values())
    rng = np.random.default_rng(1)
    A = rng.normal(size=(20, 60)).astype(np.float32)
    groups = np.arange(60) % 3
    for k, labels in ((30, None), ([10, 5, 0], groups)):
        factored = CardinalityQUBO.from_factors(A, -(A**2).sum(axis=0), k, groups=labels)
        for problem in (factored, CardinalityQUBO(factored.Q, k, groups=labels)):
            solve(problem, name, time_limit=1.0, seed=0)
    assert compiled(package) == before
