"""Coefficients as tensors give the results of arrays, and stay on their device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import problems.quadratic
from problems import CardinalityQUBO, InvalidProblemError
from problems.scaling import Scaled, check_energies
from problems.tensors import Tensors
from tests.problems.problem_cases import any_problems, tolerance


@pytest.fixture
def held(monkeypatch):
    """Treat every tensor as one on an accelerator, so that the CPU stands in for it."""
    monkeypatch.setattr(
        problems.quadratic, "stays_on_device", lambda values: isinstance(values, torch.Tensor)
    )


def twin(p):
    """The same problem, stored as tensors."""
    kept = {"groups": p.groups, "offset": p.offset}
    if p.is_factored:
        A, linear = torch.tensor(p.A), torch.tensor(p.linear)
        return CardinalityQUBO.from_factors(A, linear, p.cardinalities, **kept)
    return CardinalityQUBO(torch.tensor(p.Q), p.cardinalities, **kept)


@given(any_problems(), st.integers(0, 2**31), st.sampled_from([None, 3]))
def test_tensors_evaluate_as_arrays_do(p, seed, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            problems.quadratic, "stays_on_device", lambda values: isinstance(values, torch.Tensor)
        )
        if chunk:
            patch.setattr(problems.tensors, "_CHUNK", chunk)
        other = twin(p)
        X = np.random.default_rng(seed).integers(0, 2, (3, p.n))
        near = {"rtol": 0, "atol": tolerance(p)}
        np.testing.assert_allclose(other.energy(X), p.energy(X), **near)
        np.testing.assert_allclose(other.energy(X[0]), p.energy(X[0]), **near)
        np.testing.assert_allclose(other.fields(X[0]), p.fields(X[0]), **near)
        np.testing.assert_allclose(other.diagonal, p.diagonal, **near)
        form = p.tensors()
        states = torch.from_numpy(X)
        np.testing.assert_allclose(form.energy(states) + p.offset, p.energy(X), **near)
        np.testing.assert_allclose(form.fields(states)[1], p.fields(X[1]), **near)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("exponent", [-1060, -300, 0, 300, 900])
@pytest.mark.parametrize("factored", [True, False])
def test_tensors_are_scaled_as_arrays_are(factored, exponent):
    rng = np.random.default_rng(0)
    A, linear = rng.integers(-3, 4, (3, 5)), np.ldexp(rng.normal(size=5), exponent)
    p = CardinalityQUBO(np.ldexp((A.T @ A).astype(float), exponent), 2)
    if factored:
        p = CardinalityQUBO.from_factors(np.ldexp(A.astype(float), exponent // 2), linear, 2)
    here, there = Scaled.of(p), Scaled.of(twin(p))
    assert twin(p).peaks == p.peaks
    assert isinstance(there.problem.held, Tensors)
    assert there.exponent == here.exponent
    assert there.problem.hash == here.problem.hash
    check_energies(twin(p))


@pytest.mark.usefixtures("held")
def test_tensors_whose_energies_leave_float64_are_refused():
    for p in (
        CardinalityQUBO(np.full((3, 3), 1e308), 1),
        CardinalityQUBO.from_factors(np.full((3, 3), 1e160), np.zeros(3), 1),
    ):
        with pytest.raises(InvalidProblemError, match="energies overflow float64"):
            check_energies(twin(p))


@given(any_problems(dtype=np.float32))
def test_tensors_hold_the_same_problem(p):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            problems.quadratic, "stays_on_device", lambda values: isinstance(values, torch.Tensor)
        )
        other = twin(p)
    assert (other.n, other.k, other.dtype) == (p.n, p.k, p.dtype)
    assert other.is_factored == p.is_factored
    assert repr(other) == repr(p)
    assert other.hash == p.hash
    np.testing.assert_array_equal(other.Q, p.Q)


@pytest.mark.usefixtures("held")
def test_energies_never_bring_the_matrix_to_the_host(monkeypatch):
    p = CardinalityQUBO(torch.eye(4), 2)

    def refuse(self):
        raise AssertionError("the matrix was copied to the host")

    monkeypatch.setattr(Tensors, "arrays", refuse)
    assert p.energy([1, 1, 0, 0]) == 2.0
    assert p.fields([1, 1, 0, 0]).tolist() == [1.0] * 4
    assert p.is_feasible([1, 1, 0, 0])
    assert p.tensors().Q is p.tensors("cpu").Q
    with pytest.raises(AssertionError, match="copied"):
        _ = p.Q


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(
    ("Q", "message"),
    [
        (torch.ones(2, 3), r"Q has shape \(2, 3\)"),
        (torch.ones(2), "Q has 1 dimensions"),
        (torch.tensor([[0.0, float("nan")], [0.0, 0.0]]), r"Q\[0, 1\] is nan"),
        (torch.tensor([[0.0, 1.0], [2.0, 0.0]]), "not symmetric"),
        (torch.ones(2, 2, dtype=torch.complex64), "dtype torch.complex64"),
        (torch.ones(2, 2, dtype=torch.bool), "dtype torch.bool"),
    ],
)
def test_bad_tensors_are_refused(Q, message):
    with pytest.raises(InvalidProblemError, match=message):
        CardinalityQUBO(Q, 1)


@pytest.mark.usefixtures("held")
def test_bad_factors_are_refused():
    with pytest.raises(InvalidProblemError, match="3 columns but linear has 2"):
        CardinalityQUBO.from_factors(torch.ones(1, 3), np.ones(2), 1)
    with pytest.raises(InvalidProblemError, match=r"linear\[1\] is inf"):
        CardinalityQUBO.from_factors(torch.ones(1, 2), [0.0, float("inf")], 1)


@pytest.mark.usefixtures("held")
def test_other_dtypes_and_rounding_are_taken_as_for_arrays():
    assert CardinalityQUBO(torch.eye(2, dtype=torch.bfloat16), 1).dtype == np.float32
    assert CardinalityQUBO(torch.eye(2, dtype=torch.int32), 1).dtype == np.float64
    Q = torch.tensor([[0.0, 1.0], [1.0 + 1e-7, 0.0]])
    assert CardinalityQUBO(Q, 1).Q[0, 1] == CardinalityQUBO(Q, 1).Q[1, 0]


def test_arrays_that_torch_can_not_share_are_copied():
    Q = np.eye(3)
    Q.flags.writeable = False
    assert torch.equal(CardinalityQUBO(Q, 1).tensors().Q, torch.eye(3, dtype=torch.float64))
    swapped = np.eye(3)[::-1, ::-1]
    assert torch.equal(CardinalityQUBO(swapped, 1).tensors().Q, torch.eye(3, dtype=torch.float64))


def test_tensors_share_memory_with_the_arrays_they_stand_for():
    Q = np.eye(3, dtype=np.float32)
    assert np.shares_memory(CardinalityQUBO(Q, 1).tensors().Q.numpy(), Q)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tensors_stay_on_their_device():
    Q = torch.eye(5, device="cuda")
    p = CardinalityQUBO(Q, 2)
    assert p.device == Q.device
    assert p.tensors().Q.data_ptr() == Q.data_ptr()
    assert p.energy([1, 1, 0, 0, 0]) == 2.0
    A = torch.randn(3, 5, device="cuda")
    f = CardinalityQUBO.from_factors(A, np.zeros(5), 2)
    x = np.array([1, 1, 0, 0, 0])
    assert f.energy(x) == pytest.approx(float(A[:, :2].sum(dim=1).square().sum()), rel=1e-5)
    assert CardinalityQUBO(np.eye(5), 2).tensors("cuda").Q.is_cuda
