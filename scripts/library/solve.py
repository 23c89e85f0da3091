"""Best values, bounds and proofs of the set, by the project's own solvers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from problems import InvalidProblemError
from problems.library.best import closed, improve, write_best
from problems.library.catalogue import LibraryProblem, best_values, load, names, record_of
from problems.packing import pack
from problems.scaling import coefficient_sum
from scripts.library.locking import exclusive
from solvers import solve

#: Up to so many variables, all states are looked at.
ENUMERATED = 24
SEEDS = 10


def solve_all(wanted: Sequence[str], seconds: float) -> None:
    """Search the problems of these names; without names, those that are not proved."""
    for name in wanted or names():
        if wanted or not best_values().get(name, {}).get("proved", False):
            search(name, seconds)


def search(name: str, seconds: float) -> None:
    """Search a problem: heuristically from several seeds, then for a proof."""
    entry = load(name)
    began = time.perf_counter()
    if entry.n <= ENUMERATED:
        found = solve(entry.problem, "exhaustive")
        offer(entry, found.x, "exhaustive")
        note(entry, found.energy, proved=True)
    else:
        unit = 2.0 ** record_of(name)["unit_exponent"]
        each = seconds / SEEDS
        for seed in range(SEEDS):
            begin = entry.start if seed % 2 else None
            found = solve(entry.problem, "anneal", seed=seed, time_limit=each, initial_state=begin)
            offer(entry, found.x, f"anneal, {each:g} s, seed {seed}")
        best = load(name).best
        found = solve(entry.problem, "exact", time_limit=seconds, initial_state=best)
        offer(entry, found.x, f"exact, {seconds:g} s")
        if found.bound is not None:
            # Energies are multiples of the unit, and so is the best of bounds.
            bound = math.ceil(found.bound / unit) * unit
            note(entry, bound, proved=found.is_optimal)
    known = best_values().get(name, {})
    print(
        f"{name}: {known.get('energy')} ({known.get('by')}), bound {known.get('bound')}, "
        f"{'proved' if known.get('proved') else 'open'}; {time.perf_counter() - began:.1f} s",
        flush=True,
    )


def offer(entry: LibraryProblem, x: Any, by: str) -> None:
    """Record a state if it is better than the best one known."""
    with exclusive():
        try:
            improve(entry.name, entry.start if x is None else x, by=by)
        except InvalidProblemError as error:
            if "not below" not in str(error):
                raise


def note(entry: LibraryProblem, bound: float, *, proved: bool) -> None:
    """Record a bound if it is higher than the one known, and a proof where it is one."""
    size = coefficient_sum(entry.problem)
    with exclusive():
        if record_of(entry.name)["hash"] != entry.hash:
            return  # made again since
        values = best_values()
        known = values.get(entry.name) or status_quo(entry)
        known["bound"] = max(bound, known.get("bound", -math.inf))
        known["bound"] = min(known["bound"], known["energy"])
        known["proved"] = proved and closed(known["energy"], known["bound"], size)
        write_best(values | {entry.name: known})


def status_quo(entry: LibraryProblem) -> dict[str, Any]:
    """Return the record of a problem of which no state is better than the start."""
    return {"energy": 0.0, "state": pack(entry.start), "by": "the status quo"}
