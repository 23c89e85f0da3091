"""Tables of comparisons: written row by row, and drawn at random at any size."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

SIZES = (12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096)
EMPTY = {
    "family": "",
    "k": 1,
    "groups": 1,
    "options": "{}",
    "time_limit": 1.0,
    "bound": np.nan,
    "feasible": True,
    "feasible_share": np.nan,
    "raw_energy": np.nan,
    "status": "",
    "stop": "",
    "known": "",
    "error": "",
    "build_seconds": 0.0,
    "solve_seconds": 0.0,
    "decode_seconds": 0.0,
    "penalty": np.nan,
    "best_known": np.nan,
    "best_proved": False,
    "start_kind": "status quo",
    "versions": "{}",
    "machine": "test",
    "cores": 1,
}


def run(problem, solver, seed, incumbents, *, end=None, n=8, start=1.0, limit=1.0, **values):
    """Return the rows of one run: (seconds, energy) pairs, and its end.

    ``end`` is (seconds, energy); the last incumbent at the time limit if omitted.
    """
    key = f"{problem}/{solver}/{seed}"
    common = {
        **EMPTY,
        "run": key,
        "problem": problem,
        "solver": solver,
        "seed": seed,
        "n": n,
        "start_energy": start,
        "time_limit": limit,
    }
    for name in ("best_known", "best_proved", "family", "start_kind", "k"):
        if name in values:
            common[name] = values.pop(name)
    if end is None:
        end = (limit, incumbents[-1][1])
    has = np.isfinite(end[1])
    rows = [
        {**common, "row": "incumbent", "seconds": t, "energy": energy} for t, energy in incumbents
    ]
    last = {"status": "solved" if has else "nothing", "known": "bounded", "feasible": has}
    rows.append(
        {**common, "row": "end", "seconds": end[0], "energy": end[1], **last, **values},
    )
    return rows


def table(*runs):
    return pd.DataFrame([row for rows in runs for row in rows])


#: label: (slope of progress, final exponent of the gap at n = 4096, begins after)
DRAWN = {
    "anneal": (1.6, -5.0, 2e-3),
    "tabu": (1.1, -3.5, 4e-3),
    "neal": (0.9, -2.5, 2e-2),
    "cpsat": (0.7, -1.5, 3e-2),
    "exact": (1.0, -2.0, 5e-3),
    "random": (0.2, -0.4, 1e-3),
}


def drawn(problems=12, solvers=tuple(DRAWN), seeds=3, incumbents=20, seed=0, limit=1.0):
    """Draw a random table with all kinds of rows of a campaign: proofs, penalties, failures."""
    rng = np.random.default_rng(seed)
    runs = []
    for i in range(problems):
        n = SIZES[i % len(SIZES)]
        name = f"{('garment', 'deit', 'smollm')[i % 3]}-{1 + i // 11}-{n}-early"
        start, best = 0.0, -float(rng.uniform(0.5, 2.0)) * n / 100
        facts = {
            "n": n,
            "k": n // 2,
            "start": start,
            "limit": limit,
            "family": ("fisher", "gram", "sum")[i % 3],
            "start_kind": "random mean" if i % 5 == 4 else "status quo",
            "best_known": best,
            "best_proved": n <= 64,
        }
        for solver in solvers:
            for s in range(seeds):
                runs.append(_drawn(rng, name, solver, s, best, incumbents, facts))
    frame = table(*runs)
    frame["options"] = json.dumps({"sweeps": 100})
    return frame


def _drawn(rng, problem, solver, seed, best, incumbents, facts):
    slope, exponent, begins = DRAWN.get(solver, (1.0, -3.0, 1e-2))
    n, limit, start = facts["n"], facts["limit"], facts["start"]
    fail = {"end": (0.01, np.nan), "feasible": False}
    if solver == "exact" and n > 2048:
        error = f"UnsupportedError: at most 2048 variables, the problem has {n}"
        return run(problem, solver, seed, [], status="unsupported", error=error, **fail, **facts)
    if solver == "cpsat" and n == 4096:
        fail["end"] = (limit * 1.5, np.nan)
        return run(problem, solver, seed, [], status="timeout", error="killed", **fail, **facts)
    if solver == "neal" and n == 2048 and seed == 1:
        error = "BackendError: <neal> failed: out of memory & more"
        return run(problem, solver, seed, [], status="failed", error=error, **fail, **facts)
    begins *= (n / 64) ** 0.8
    if begins >= limit:
        return run(problem, solver, seed, [], end=(limit, np.nan), **facts)
    last = exponent - 3.0 * max(0.0, 1 - np.log(n) / np.log(4096)) - rng.exponential(0.3)
    seconds = np.sort(begins * (limit / begins) ** rng.random(incumbents))
    progress = (np.log(seconds / begins) / np.log(limit / begins)) ** (1 / slope)
    gaps = np.minimum.accumulate(10.0 ** (last * progress + rng.normal(0, 0.1, incumbents)))
    gaps[gaps < 3e-7] = 0.0
    energies = best + gaps * (start - best)
    pairs = list(zip(seconds.tolist(), energies.tolist(), strict=True))
    more = {}
    if solver in ("exact", "cpsat") and n <= (64 if solver == "exact" else 32):
        more = {"end": (float(seconds[-1]), best), "known": "optimal", "bound": best}
    elif solver in ("exact", "cpsat"):
        more = {"bound": best - (start - best) * 0.02 * np.log2(n / 16)}
    if solver == "neal":
        share = float(rng.uniform(0.2, 1.0)) if n > 32 else 1.0
        more = {"penalty": 3.0, "feasible_share": share, "raw_energy": energies[-1] + 1e-3 * n}
        pairs = pairs[-1:]
    return run(problem, solver, seed, pairs, **more, **facts)
