"""Solvers for comparison; each run is a list of (seconds, energy) of its states.

Seconds are those of the search, without building the model, for all solvers. Solvers with a
penalty use the policy ``mean-move``, and their infeasible samples are repaired.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.plain_annealer import plain_anneal
from problems import CardinalityQUBO
from problems.penalty import penalised, penalty_for
from problems.repair import repair
from solvers import solve

State = npt.NDArray[np.uint8]
Trace = list[tuple[float, float]]

#: Function of a problem, its initial state and a seed.
Contender = Callable[[CardinalityQUBO, State, int], Trace]


def anneal(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run the default solver until it stops."""
    trace: Trace = []

    def note(seconds: float, energy: float) -> None:
        trace.append((seconds, energy))

    answer = solve(problem, "anneal", seed=seed, initial_state=start, callback=note)
    end = answer.timing.build + answer.timing.solve
    trace.append((end, answer.energy))
    return [(max(0.0, seconds - answer.timing.build), energy) for seconds, energy in trace]


def exact(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run branch and bound for up to 10 s; it gets its incumbent from a swap search."""
    trace: Trace = []

    def note(seconds: float, energy: float) -> None:
        trace.append((seconds, energy))

    solve(problem, "exact", time_limit=10.0, seed=seed, initial_state=start, callback=note)
    return trace


def plain(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run the O(n) annealer with the paper's schedule once."""
    problem.Q  # noqa: B018 - formed before the measurement
    began = time.perf_counter()
    x = plain_anneal(problem, start, seed)
    return [(time.perf_counter() - began, problem.energy(x))]


def neal(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run dwave-neal for 100 and for 1000 sweeps."""
    runs: Trace = []
    for sweeps in (100, 1000):
        answer = solve(problem, "neal", seed=seed, initial_state=start, num_sweeps=sweeps)
        runs.append((answer.timing.solve, answer.energy))
    return runs


def tabu(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run D-Wave's tabu search for 50 ms, 0.5 s and 2 s."""
    runs: Trace = []
    for limit in (0.05, 0.5, 2.0):
        answer = solve(problem, "tabu", seed=seed, initial_state=start, time_limit=limit)
        runs.append((answer.timing.solve, answer.energy))
    return runs


def simulated_bifurcation(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run 128 agents of the simulated-bifurcation package for up to 1000 steps."""
    import simulated_bifurcation as package
    import torch

    form = penalised(problem, penalty_for(problem, "mean-move"))
    matrix = torch.from_numpy(form.Q).float()
    torch.manual_seed(seed)
    began = time.perf_counter()
    vector, _ = package.minimize(
        matrix, domain="binary", agents=128, max_steps=1000, best_only=True, verbose=False
    )
    seconds = time.perf_counter() - began
    return [(seconds, problem.energy(repair(problem, vector.numpy().astype(np.uint8))))]


def openjij(problem: CardinalityQUBO, start: State, seed: int) -> Trace:
    """Run OpenJij's annealer for 100 and for 1000 sweeps."""
    import openjij as package

    form = penalised(problem, penalty_for(problem, "mean-move"))
    upper = np.triu(form.Q) + np.triu(form.Q, 1)
    terms = {(int(i), int(j)): float(upper[i, j]) for i, j in zip(*upper.nonzero(), strict=True)}
    runs: Trace = []
    for sweeps in (100, 1000):
        began = time.perf_counter()
        found = package.SASampler().sample_qubo(terms, num_sweeps=sweeps, seed=seed)
        seconds = time.perf_counter() - began
        first = found.first.sample
        x = np.array([first.get(i, 0) for i in range(problem.n)], np.uint8)
        runs.append((seconds, problem.energy(repair(problem, x))))
    return runs


def peers() -> dict[str, tuple[Contender, int]]:
    """Return the installed solvers with the largest n that each solves in seconds."""
    known: dict[str, tuple[Contender, int]] = {
        "exact": (exact, 1024),
        "plain annealer": (plain, 2048),
        "neal (penalty)": (neal, 1024),
        "tabu (penalty)": (tabu, 1024),
    }
    optional: dict[str, tuple[str, Contender, int]] = {
        "simulated bifurcation (penalty)": ("simulated_bifurcation", simulated_bifurcation, 1024),
        "OpenJij (penalty)": ("openjij", openjij, 512),
    }
    for name, (module, contender, largest) in optional.items():
        if importlib.util.find_spec(module) is not None:
            known[name] = contender, largest
    return known


def seconds_to(trace: Trace, energy: Any) -> float:
    """Return the time of the first state of at most this energy, or infinity."""
    return min((seconds for seconds, found in trace if found <= energy), default=float("inf"))
