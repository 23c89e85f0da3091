"""Tests of the GPU search on a device or in the interpreter; started by ``test_gpu.py``.

On a card as they are; without one through Triton's interpreter, which has to be asked for
before Triton is imported, and so in a process of its own. A step takes the interpreter about
40 ms, so the cases there are tiny.
"""

from __future__ import annotations

import dataclasses
import os
from itertools import combinations

import numpy as np
import pytest
import torch

from problems import CardinalityQUBO
from solvers import create, solve
from solvers.base import Request
from solvers.gpu import batch as batch_module
from solvers.gpu.batch import Batch, TabuParameters, padded
from solvers.gpu.large import search_large
from solvers.gpu.search import search
from tests.solvers.gpu_reference import Reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
PLAN = TabuParameters(tenure=3, stall=8, kick=2, patience=40)


def random_matrix(rng, n, dtype=np.float32):
    Q = rng.standard_normal((n, n))
    return (Q + Q.T).astype(dtype)


def random_problem(seed, n, groups=None, factored=False, dtype=np.float32):
    rng = np.random.default_rng(seed)
    k = n // 2 if groups is None else np.bincount(groups) // 2
    if factored:
        A = rng.standard_normal((max(1, n // 4), n)).astype(dtype)
        return CardinalityQUBO.from_factors(A, 0.3 * n * rng.standard_normal(n), k, groups=groups)
    return CardinalityQUBO(random_matrix(rng, n, dtype), k, groups=groups)


def guarded(Q, slots):
    """Copy a matrix to the device, followed by NaN to detect reads past the end."""
    memory = np.full(slots * slots, np.nan, Q.dtype)
    memory[: Q.size] = Q.ravel()
    return torch.from_numpy(memory).to(DEVICE)[: Q.size].view(Q.shape)


def make_batch(sizes, groups=None, dtype=np.float32, seed=0):
    """Programs of several sizes with half of their variables set."""
    rng = np.random.default_rng(seed)
    slots = padded(max(sizes))
    matrices = [random_matrix(rng, n, dtype) for n in sizes]
    x = np.zeros((len(sizes), slots), np.int32)
    labels = np.full((len(sizes), slots), -1, np.int32)
    for row, label, n in zip(x, labels, sizes, strict=True):
        row[:n] = rng.permutation(n) % 2
        if groups is not None:
            label[:n] = np.sort(rng.integers(0, groups, n))
    seeds = rng.integers(-(2**31), 2**31, len(sizes)).astype(np.int32)
    batch = Batch(
        [guarded(Q, slots) for Q in matrices],
        torch.from_numpy(x).to(DEVICE),
        torch.from_numpy(seeds).to(DEVICE),
        None if groups is None else torch.from_numpy(labels).to(DEVICE),
    )
    fields = batch.fields.cpu().numpy()
    references = [
        Reference(
            Q, x[i, :n], fields[i, :n], seeds[i], PLAN, slots,
            None if groups is None else labels[i, :n],
        )
        for i, (Q, n) in enumerate(zip(matrices, sizes, strict=True))
    ]  # fmt: skip
    return batch, references


def assert_same(batch, references):
    tags, fields = batch.tags.cpu().numpy(), batch.fields.cpu().numpy()
    best, best_fields = batch.best_tags.cpu().numpy() & 1, batch.best_fields.cpu().numpy()
    gains, swaps = batch.gains.cpu().numpy(), batch.swaps.cpu().numpy()
    for i, ref in enumerate(references):
        n = len(ref.x)
        np.testing.assert_array_equal(tags[i, :n] & 1, ref.x)
        np.testing.assert_array_equal(np.maximum(tags[i, :n] >> 1, 0), ref.release)
        np.testing.assert_array_equal(fields[i, :n], ref.f)
        np.testing.assert_array_equal(best[i, :n], ref.best_x)
        np.testing.assert_array_equal(best_fields[i, :n], ref.best_f)
        assert gains[i] == ref.best
        assert swaps[i] == ref.step
        assert not best[i, n:].any()


@pytest.mark.parametrize(
    ("sizes", "groups", "dtype", "steps"),
    [
        ((16,), None, np.float32, (20, 12)),
        ((13, 10), None, np.float32, (25,)),
        ((16,), None, np.float64, (16,)),
        ((14,), 3, np.float32, (10, 12)),
        ((3, 2), None, np.float32, (24,)),
    ],
)
def test_same_moves_as_the_reference(sizes, groups, dtype, steps):
    batch, references = make_batch(sizes, groups, dtype)
    for part in steps:
        batch.launch(PLAN, part)
        for ref in references:
            ref.run(part)
        assert_same(batch, references)
    assert min(len(ref.moves) for ref in references) > 4
    assert max(ref.kicks for ref in references) > 0


@pytest.mark.skipif(INTERPRETED, reason="too slow in the interpreter")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [None, 5])
@pytest.mark.parametrize("sizes", [(1024, 1024), (300, 500, 257), (4096,), (30, 20)])
def test_same_moves_as_the_reference_at_full_size(sizes, groups, dtype):
    batch, references = make_batch(sizes, groups, dtype)
    parameters = dataclasses.replace(PLAN, patience=10**6)
    for part in (200, 300):
        batch.launch(parameters, part)
        for ref in references:
            ref.parameters = parameters
            ref.run(part)
    assert_same(batch, references)


def test_fields_and_energies_follow_float64():
    rng = np.random.default_rng(3)
    n = 14 if INTERPRETED else 700
    p = random_problem(3, n)
    x = rng.permutation(np.arange(n) < p.k).astype(np.int32)
    wide = torch.zeros(1, padded(n), dtype=torch.int32)
    wide[0, :n] = torch.from_numpy(x)
    seeds = torch.tensor([7], dtype=torch.int32, device=DEVICE)
    batch = Batch([torch.from_numpy(p.Q).to(DEVICE)], wide.to(DEVICE), seeds)
    np.testing.assert_allclose(batch.fields[0, :n].cpu(), p.fields(x), rtol=3e-7, atol=1e-5)
    batch.launch(PLAN, 25 if INTERPRETED else 3000, 10**6)
    state = (batch.tags[0, :n] & 1).cpu().numpy()
    best = batch.states[0, :n].cpu().numpy()
    assert p.is_feasible(state)
    assert p.is_feasible(best)
    np.testing.assert_allclose(batch.fields[0, :n].cpu(), p.fields(state), atol=1e-3)
    np.testing.assert_allclose(batch.best_fields[0, :n].cpu(), p.fields(best), atol=1e-3)
    assert float(batch.gains[0]) == pytest.approx(p.energy(best) - p.energy(x), abs=1e-3)


@pytest.mark.parametrize("groups", [None, 3])
def test_polish_leaves_no_swap_that_improves(groups):
    sizes = (16, 11) if INTERPRETED else (300, 271)
    batch, references = make_batch(sizes, groups, seed=5)
    counts = [ref.x.sum() for ref in references]
    batch.polish()
    for i, ref in enumerate(references):
        n = len(ref.x)
        x = batch.states[i, :n].cpu().numpy()
        f = batch.best_fields[i, :n].cpu().numpy()
        assert x.sum() == counts[i]
        for g in range(3 if groups else 1):
            assert x[ref.groups == g].sum() == ref.x[ref.groups == g].sum()
        change = f[None, :] - f[:, None] - 2 * ref.Q
        same = ref.groups[None, :] == ref.groups[:, None]
        assert change[(x[:, None] == 1) & (x[None, :] == 0) & same].min() > -1e-4


def test_steps_are_counted_again_before_they_overflow(monkeypatch):
    batch, (ref,) = make_batch((16,))
    monkeypatch.setattr(batch_module, "_REBASE", 20)
    batch.launch(PLAN, 20, 10**6)
    ref.parameters = dataclasses.replace(PLAN, patience=10**6)
    ref.run(20)
    batch.launch(PLAN, 15, 10**6)
    ref.release, ref.step = np.maximum(ref.release - 20, 0), 0
    ref.seed = (int(ref.seed) * 1664525 + 1013904223) % 2**32
    ref.run(15)
    assert int(batch.swaps[0]) == 35
    np.testing.assert_array_equal(batch.tags[0].cpu().numpy() & 1, ref.x)


def quick(**options):
    """The solver, with small parameters if steps are slow."""
    small = {"patience": 12, "stall": 6, "kick": 2, "tenure": 2} if INTERPRETED else {}
    return create("anneal-gpu", device=str(DEVICE.type), **(small | options))


def optimum(p):
    states = np.array(
        [np.isin(np.arange(p.n), c) for c in combinations(range(p.n), p.k)], dtype=np.uint8
    )
    return p.energy(states[p.is_feasible(states)]).min()


@pytest.mark.parametrize("factored", [False, True])
def test_finds_the_optimum_of_small_problems(factored):
    problems = [random_problem(i, 6, factored=factored) for i in range(2)]
    for p, s in zip(problems, solve(problems, quick(), seed=1, num_reads=2), strict=True):
        assert s.energy == pytest.approx(optimum(p), rel=1e-5)
        np.testing.assert_array_equal(s.energies, p.energy(s.samples))
        assert s.feasible.all()
        assert "fallback" not in s.info


def test_groups_hold_in_any_order_and_starts_are_kept():
    groups = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [3, 4, 4]))
    p = random_problem(4, 11, groups, factored=True)
    s = solve(p, quick(patience=20), seed=2)
    assert s.feasible.all()
    assert s.energy == pytest.approx(optimum(p), rel=1e-5)
    again = solve(p, quick(patience=1), seed=3, initial_state=s.x)
    assert again.energy == s.energy


def test_same_answer_alone_and_in_a_batch_of_several_sizes():
    problems = [random_problem(1, 12), random_problem(2, 18), random_problem(3, 9)]
    solver = quick(patience=6)
    together = solve(problems, solver, seed=5)
    alone = solve(problems[2], solver, seed=together[2].info["seed"])
    np.testing.assert_array_equal(together[2].samples, alone.samples)


def test_time_limit_is_used(monkeypatch):
    monkeypatch.setattr(batch_module, "_FIRST", 8 if INTERPRETED else 64)
    s = solve(random_problem(0, 16), quick(), seed=0, time_limit=0.5)
    assert s.stop.value == "time limit"
    assert s.feasible.all()


def test_memory_cuts_a_batch_into_launches(monkeypatch):
    monkeypatch.setattr("solvers.gpu.search._budget", lambda device: 1.0)
    problems = [random_problem(i, 5) for i in range(2)]
    requests = [Request(seed=i) for i in range(2)]
    found = search(problems, requests, lambda slots: TabuParameters(2, 4, 1, 6), DEVICE)
    for p, answer in zip(problems, found, strict=True):
        assert answer.states.device.type == DEVICE.type
        assert p.is_feasible(answer.states).all()


@pytest.mark.parametrize(("factored", "grouped"), [(True, False), (False, True)])
def test_working_sets_of_a_large_problem(factored, grouped):
    n, width = (30, 12) if INTERPRETED else (5000, 512)
    groups = np.random.default_rng(1).integers(0, 3, n) if grouped else None
    p = random_problem(6, n, groups, factored=factored)
    x = np.zeros(n, np.uint8)
    for g, k in enumerate(p.cardinalities):
        x[np.flatnonzero(p.groups == g)[:k]] = 1
    parameters = dataclasses.replace(PLAN, patience=4 if INTERPRETED else 300)
    request = Request(seed=1, num_reads=1 if INTERPRETED else 2, initial_state=x)
    found = search_large(p, request, parameters, DEVICE, width)
    states = found.states.cpu().numpy()
    assert p.is_feasible(states).all()
    energies = p.energy(states)
    assert (energies < p.energy(x)).all()
    # Nearly swap-local: single swaps gain little compared with the search.
    f = p.fields(states[0])
    change = f[None, :] - f[:, None] - 2 * p.Q
    same = p.groups[None, :] == p.groups[:, None]
    left = change[(states[0][:, None] == 1) & (states[0][None, :] == 0) & same].min()
    assert left > 0.05 * (energies[0] - p.energy(x))


@pytest.mark.skipif(INTERPRETED, reason="needs a card")
def test_problems_on_the_card_are_never_copied_to_the_host(monkeypatch):
    from problems.tensors import Tensors

    A = torch.randn(100, 800, device=DEVICE)
    p = CardinalityQUBO.from_factors(A, torch.randn(800), 300)

    def refuse(self):
        raise AssertionError("the factors were copied to the host")

    monkeypatch.setattr(Tensors, "arrays", refuse)
    s = solve(p, "anneal-gpu", seed=0, num_reads=4)
    assert s.feasible.all()
    assert s.info["device"] == torch.cuda.get_device_name()


@pytest.mark.skipif(INTERPRETED, reason="needs a card")
def test_card_and_cpu_reach_the_same_energies():
    problems = [random_problem(i, 512, factored=True) for i in range(8)]
    card = solve(problems, "anneal-gpu", seed=0, num_reads=8)
    cpu = solve(problems, "anneal", seed=0)
    for a, b in zip(card, cpu, strict=True):
        assert a.energy <= b.energy + 1e-3 * abs(b.energy)
