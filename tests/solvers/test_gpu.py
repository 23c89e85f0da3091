"""The GPU search: its fallback, and its kernels in the interpreter and on a card."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from problems import CardinalityQUBO
from solvers import OptionError, create, solve
from solvers.gpu import GpuFallbackWarning
from solvers.gpu.batch import padded
from solvers.gpu.device import find_device, warn_fallback
from solvers.gpu.layout import SlotLayout, form_matrix, random_states, set_matrix
from solvers.gpu.search import _pieces

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    warn_fallback.cache_clear()


def random_problem(seed, n, groups=None, factored=False):
    rng = np.random.default_rng(seed)
    k = n // 2 if groups is None else np.bincount(groups) // 2
    if factored:
        A = rng.standard_normal((max(1, n // 4), n)).astype(np.float32)
        return CardinalityQUBO.from_factors(A, rng.standard_normal(n), k, groups=groups)
    Q = rng.standard_normal((n, n))
    return CardinalityQUBO((Q @ Q.T).astype(np.float32), k, groups=groups)


# -- without a card ---------------------------------------------------------------------


@pytest.mark.usefixtures("no_card")
def test_the_cpu_fallback_warns_once():
    p = random_problem(0, 30, factored=True)
    with pytest.warns(GpuFallbackWarning, match="using the CPU solver 'anneal'") as caught:
        s = solve(p, "anneal-gpu", seed=3, num_reads=2)
    assert len([w for w in caught if w.category is GpuFallbackWarning]) == 1
    assert "\n" not in str(caught[0].message)
    assert s.info["fallback"] == "anneal"
    assert s.info["solver"] == "anneal-gpu"
    np.testing.assert_array_equal(s.samples, solve(p, "anneal", seed=3, num_reads=2).samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        several = solve([p, p], "anneal-gpu", seed=3)
    assert [s.info["fallback"] for s in several] == ["anneal", "anneal"]


@pytest.mark.usefixtures("no_card")
def test_reason_is_named(monkeypatch):
    pytest.importorskip("triton")
    assert "no CUDA device" in find_device()
    assert "is the CPU" in find_device("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'triton" in find_device()


@pytest.mark.parametrize("option", ["tenure", "stall", "kick", "patience"])
def test_options_are_checked(option):
    with pytest.raises(OptionError, match=f"{option} is 0; it must be 1 or more"):
        create("anneal-gpu", **{option: 0})


def test_nothing_of_triton_is_loaded_before_a_search():
    code = "import sys, solvers.gpu; print('triton' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "False"


# -- layout and batches ---------------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 4), st.booleans())
def test_layout_keeps_states_and_energies(seed, n, num_groups, factored):
    groups = np.random.default_rng(seed).integers(0, num_groups, n)
    groups[:num_groups] = np.arange(num_groups)[:n]
    p = random_problem(seed, n, groups[:n] if num_groups <= n else None, factored)
    layout = SlotLayout.of(p)
    assert (np.diff(layout.group) >= 0).all()
    seeds = torch.arange(3, dtype=torch.int32)
    x = random_states([layout], torch.zeros(3, dtype=torch.int64), seeds, padded(n))
    assert not x[:, n:].any()
    states = layout.restore(x[:, :n])
    assert p.is_feasible(states).all()
    assert torch.equal(layout.arrange(states), x[:, :n])
    Q = form_matrix(p.tensors(), layout)
    assert Q.dtype == torch.float32
    assert Q.is_contiguous()
    slots = x[:, :n].double()
    energies = ((slots @ Q.double()) * slots).sum(dim=1)
    np.testing.assert_allclose(energies, p.energy(states), atol=1e-4 * n)
    index = torch.tensor([n - 1, 0])
    couplings = set_matrix(p.tensors(), index)
    assert float(couplings[0, 1]) == pytest.approx(float(p.Q[n - 1, 0]), abs=1e-4)


def test_random_states_are_uniform_and_differ_by_seed():
    p = random_problem(0, 12, np.repeat([0, 1], [8, 4]))
    seeds = torch.arange(4000, dtype=torch.int32)
    x = random_states([SlotLayout.of(p)], torch.zeros(4000, dtype=torch.int64), seeds, 16)
    means = x[:, :12].float().mean(dim=0)
    # Five standard deviations of a mean of 4000 coin flips.
    assert float((means - 0.5).abs().max()) < 5 * 0.5 / 4000**0.5
    together = (x[:, 0] * x[:, 1]).float().mean()
    assert float(together) == pytest.approx(0.5 * 3 / 7, abs=0.04)


@given(st.lists(st.integers(1, 10), min_size=1), st.integers(1, 30))
def test_batches_are_cut_to_the_budget(costs, budget):
    pieces = list(_pieces(costs, budget))
    assert [i for a, b in pieces for i in range(a, b)] == list(range(len(costs)))
    for a, b in pieces:
        assert b - a == 1 or sum(costs[a:b]) <= budget


# -- the kernels --------------------------------------------------------------------------


def run_on_device(**environment):
    """Run the tests of the kernels in a separate process."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
    return subprocess.run(
        [*command, "tests/solvers/on_device.py"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    run = run_on_device(TRITON_INTERPRET="1")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_on_a_card():
    pytest.importorskip("triton")
    run = run_on_device(TRITON_INTERPRET="0")
    assert run.returncode == 0, run.stdout + run.stderr


POINTERS = {"matrices": "*i64", "sizes": "*i32", "groups": "*i32"}
REAL = {"f_state": "*fp32", "best_f": "*fp32", "fields": "*fp32", "changes": "*fp32"}
STATE = {
    "seeds": "*i32", "tag_state": "*i32", "best_tag": "*i32", "tags": "*i32",
    "ints": "*i32", "floats": "*fp64", "running": "*i32", "leaving": "*i32", "entering": "*i32",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "grouped", "even"),
    [
        ("tabu", False, True),
        ("tabu", True, False),
        ("refresh", False, True),
        ("best_swap", True, False),
        ("swap", False, True),
    ],
)
def test_kernels_compile_for_the_h100(name, grouped, even, monkeypatch, tmp_path):
    triton = pytest.importorskip("triton", minversion="3.3")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from solvers.gpu import kernels, tabu_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = tabu_kernel.tabu if name == "tabu" else getattr(kernels, name)
    values = {
        "EPSILON": 2.0**-23, "N": 256, "ROWS": 16, "COLUMNS": 128,
        "GROUPED": grouped, "EVEN": even, "ALIGNED": True,
    }  # fmt: skip
    types = POINTERS | REAL | STATE | dict.fromkeys(values, "constexpr")
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    constants = {k: v for k, v in values.items() if k in signature}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(
        source, target=target, options={"num_warps": 1, "enable_fp_fusion": True}
    )
    assert "sm_90" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000
