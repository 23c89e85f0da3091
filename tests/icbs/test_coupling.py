"""Shrinkage of couplings: the estimate against its definition, and the blocks that use it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icbs.blocks.block import build_block
from icbs.curvature.source import QuadraticModel
from icbs.groups.coupling import estimated_coupling
from icbs.model.gates import Gates
from tests.icbs.group_models import grouping_of, perceptron


def by_definition(rows: np.ndarray) -> float:
    """Loop over pairs of columns: variances of the mean products, over squared correlations."""
    rows = rows / np.sqrt(np.square(rows).mean(axis=0))
    count, width = rows.shape
    variances = correlations = 0.0
    for i in range(width):
        for j in range(width):
            if i != j:
                products = rows[:, i] * rows[:, j]
                variances += products.var(ddof=1) / count
                correlations += products.mean() ** 2
    return float(np.clip(1 - variances / correlations, 0, 1))


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 7), st.floats(0, 3))
@settings(max_examples=50, deadline=None)
def test_the_estimate_is_that_of_its_definition(seed, count, width, common):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, width)) + common * rng.normal(size=(count, 1))
    model = QuadraticModel(factor=torch.from_numpy(rows) / count**0.5)
    assert estimated_coupling([model]) == pytest.approx(by_definition(rows), abs=1e-9)


def test_more_samples_shrink_less():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(40, 40)) + 2 * rng.normal(size=(40, 1))

    def coupling(count: int) -> float:
        rows = rng.normal(size=(count, 40)) @ mixing.T
        return estimated_coupling([QuadraticModel(factor=torch.from_numpy(rows))])

    assert coupling(5) < coupling(100) < coupling(10_000)
    assert coupling(10_000) > 0.99


def test_zero_columns_and_models_without_samples_are_harmless():
    rows = torch.zeros(6, 4)
    assert estimated_coupling([QuadraticModel(factor=rows)]) == 1
    rows[:, 1] = 1
    assert estimated_coupling([QuadraticModel(factor=rows)]) == 1
    assert estimated_coupling([QuadraticModel(matrix=torch.eye(4))]) == 1


@given(st.integers(0, 10_000), st.floats(0, 1), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_coupling_scales_the_terms_between_gates_alone(seed, coupling, dense):
    grouping = grouping_of(*perceptron(), "neurons")
    gates: Gates = grouping.gates
    rng = np.random.default_rng(seed)
    start = (rng.random(len(gates)) < 0.5).astype(np.uint8)
    grouping.close(start)
    rows = rng.normal(size=(5, len(gates)))
    curvature = rows.T @ rows
    shrunk = coupling * curvature + (1 - coupling) * np.diag(np.diag(curvature))
    zeros = [torch.zeros(len(part.index)) for part in gates.parts]
    model = QuadraticModel(gradients=zeros)
    if dense:
        model.matrix = torch.from_numpy(curvature)
    else:
        model.factor = torch.from_numpy(rows)
    block = build_block(gates, [model], kappa=3, coupling=coupling)
    x = rng.permutation(start)
    u = x.astype(float) - start
    assert block.problem.energy(x) == pytest.approx(1.5 * u @ shrunk @ u, rel=1e-5, abs=1e-5)
    assert block.predicted(x, block.problem.energy(x)) == pytest.approx(block.problem.energy(x))
