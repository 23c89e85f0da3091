"""Recipes and index, made by the pruner on the models."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from problems.errors import InvalidProblemError
from problems.files import atomic, write_text
from problems.library.best import improve, write_best
from problems.library.catalogue import BEST, DATA, INDEX, best_values, index
from problems.library.recipe import unit_exponent
from problems.packing import unpack
from scripts.library.extract import extract
from scripts.library.fidelity import LARGEST_DEVIATION
from scripts.library.locking import exclusive
from scripts.library.parts import Parts, load_parts, parts_file
from scripts.library.rounding import LEVELS, rounded
from scripts.library.specs import MODELS, RUNS, Run, Spec

FORMAT = "icbs-library-1"


def make(keys: Sequence[str], folder: Path) -> None:
    """Make the runs of these keys; without keys, those whose problems are not all there."""
    DATA.mkdir(exist_ok=True)
    for run in chosen(keys):
        there = INDEX.exists() and all(run.name(s) in index()["problems"] for s in run.specs)
        if keys or not there:
            make_run(run, folder)


def chosen(keys: Sequence[str]) -> list[Run]:
    """Return the runs of these keys; all without keys."""
    if unknown := set(keys) - {run.key for run in RUNS}:
        raise SystemExit(f"unknown runs {unknown}; there are: {[run.key for run in RUNS]}")
    return [run for run in RUNS if run.key in keys or not keys]


def make_run(run: Run, folder: Path) -> None:
    """Make the problems of a run; of the models only what the folder lacks."""
    about = extract(run, folder)
    blocks = about.pop("blocks")
    problems = {}
    for spec in run.specs:
        name = run.name(spec)
        parts = load_parts(parts_file(folder, run.key, name))
        if made := write(run, spec, parts):
            problems[name] = {"run": run.key} | blocks[name] | made
    with exclusive():
        record(run.key, about, problems)


def write(run: Run, spec: Spec, parts: Parts) -> dict[str, Any] | None:
    """Write the recipe of a block; return its record for the index.

    None of a block that is left out, since rounding changes its best energies too much or no
    state is better than the status quo.
    """
    name = run.name(spec)
    # Searches are not the same each time; a problem that is made again keeps its bits.
    before = index()["problems"].get(name) if INDEX.exists() else None
    best = best_values().get(name) if BEST.exists() else None
    known = [unpack(best["state"], spec.n)] if best else []
    recipe, problem, fidelity = rounded(parts, known, before["bits"] if before else LEVELS[0])
    assert problem.n == spec.n, f"{name}: the block has {problem.n} weights"
    path = DATA / f"{name}.npz"
    if fidelity.at_best >= LARGEST_DEVIATION:
        print(
            f"  {name}: left out, deviation at the best states {fidelity.at_best:.1e}", flush=True
        )
        return None
    save(path, recipe)
    print(
        f"  {name}: {path.stat().st_size / 1024:.1f} KiB, rank correlation "
        f"{fidelity.spearman:.6f}, deviation {fidelity.deviation:.1e}, at the best states "
        f"{fidelity.at_best:.1e}, {fidelity.bits} bits",
        flush=True,
    )
    return {
        "model": run.model,
        "layer": spec.layer,
        "stage": run.stage,
        "curvature": spec.curvature,
        "constraint": run.constraint,
        "n": problem.n,
        "k": problem.k,
        "groups": problem.num_groups,
        "rank": len(problem.A) if problem.is_factored else None,
        "unit_exponent": unit_exponent(recipe),
        "bits": fidelity.bits,
        "spearman": round(fidelity.spearman, 8),
        "deviation": float(f"{fidelity.deviation:.3g}"),
        "deviation_at_best": float(f"{fidelity.at_best:.3g}"),
        "hash": problem.hash,
    }


def save(path: Path, recipe: Mapping[str, Any]) -> None:
    """Write an ``.npz`` whose bytes depend on nothing but its arrays."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, value in sorted(recipe.items()):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_LZMA
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def record(key: str, about: dict[str, Any], problems: dict[str, dict[str, Any]]) -> None:
    """Put a run and its problems into the index; drop what is not specified any more.

    Of a problem that has changed, the best state is kept, and its energy computed again.
    """
    found = json.loads(INDEX.read_text("utf-8")) if INDEX.exists() else {"runs": {}, "problems": {}}
    old = found["problems"]
    changed = {
        name for name, new in problems.items() if old.get(name, {}).get("hash") != new["hash"]
    }
    specified = {run.key: {run.name(spec) for spec in run.specs} for run in RUNS}
    runs = found["runs"] | {key: about}
    others = {name: record for name, record in old.items() if record["run"] != key}
    kept = {
        name: record
        for name, record in (others | problems).items()
        if name in specified.get(record["run"], ())
    }
    write_index({"runs": {k: r for k, r in runs.items() if k in specified}, "problems": kept})
    for path in DATA.glob("*.npz"):
        if path.stem not in kept:
            path.unlink()
    best = best_values() if BEST.exists() else {}
    write_best({n: v for n, v in best.items() if n in kept and n not in changed})
    for name in sorted(changed & best.keys() & kept.keys()):
        state = unpack(best[name]["state"], kept[name]["n"])
        with suppress(InvalidProblemError):  # not better than the status quo any more
            improve(name, state, by=best[name]["by"])


def write_index(found: dict[str, Any]) -> None:
    """Write the index, a line a run and a line a problem, by model and size."""
    models = list(MODELS)
    problems = sorted(
        found["problems"].items(), key=lambda i: (models.index(i[1]["model"]), i[1]["n"], i[0])
    )
    runs = sorted(found["runs"].items(), key=lambda i: models.index(i[0].partition("-")[0]))
    parts = {
        name: "{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(r)}" for n, r in rows) + "\n}"
        for name, rows in (("runs", runs), ("problems", problems))
    }
    inside = ",\n".join(f'"{name}": {text}' for name, text in parts.items())
    write_text(INDEX, f'{{"format": "{FORMAT}",\n{inside}}}\n')
    index.cache_clear()
