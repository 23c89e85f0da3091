"""Recipes and index, made by the pruner on the models."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from icbs.zoo import Task, load_task
from problems.files import atomic, write_text
from problems.library.best import write_best
from problems.library.catalogue import DATA, INDEX, best_values, index
from scripts.library.blocks import Parts, pruned
from scripts.library.rounding import tested
from scripts.library.specs import MODELS, RUNS, Run, Spec

FORMAT = "icbs-library-1"


def make(keys: Sequence[str] = ()) -> None:
    """Make the runs of these keys; without keys, those whose problems are not all there."""
    torch.set_num_threads(1)
    DATA.mkdir(exist_ok=True)
    if unknown := set(keys) - {run.key for run in RUNS}:
        raise SystemExit(f"unknown runs {unknown}; there are: {[run.key for run in RUNS]}")
    for run in RUNS:
        there = INDEX.exists() and all(run.name(s) in index()["problems"] for s in run.specs)
        if run.key in keys or not (keys or there):
            make_run(run)


def make_run(run: Run) -> None:
    """Make the problems of a run."""
    print(run.key, flush=True)
    model, began = MODELS[run.model], time.perf_counter()
    task = loaded(run.model)
    about = {
        "task": model.task,
        "options": model.options,
        "sources": model.sources,
        "weights": digest(task.model),
        "settings": run.settings,
        "after": run.after,
        "versions": {n: version(n) for n in ("icbs-pruning", "torch", "numpy", "transformers")},
    }
    problems = {}
    with pruned(task, run.after, **run.settings) as moment:
        order = [layer.name for layer in moment.context.layers]
        for look, group in groupby(sorted(run.specs, key=repr_of(run)), key=run.look):
            specs = list(group)
            parts = moment.look([spec.layer for spec in specs], **look)
            for spec in specs:
                depth = order.index(spec.layer) / (len(order) - 1)
                problems[run.name(spec)] = {
                    "run": run.key,
                    "look": {"look": look},
                    "depth": round(depth, 3),
                } | write(run, spec, parts[spec.layer])
    record(run.key, about, problems)
    print(f"{run.key}: {time.perf_counter() - began:.0f} s", flush=True)


def repr_of(run: Run) -> Any:
    """Return a key that puts problems of the same pass beside one another."""
    return lambda spec: repr(run.look(spec))


@cache
def loaded(model: str) -> Task:
    """Load the task of a model."""
    return load_task(MODELS[model].task, **MODELS[model].options)


def digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights by name."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.numpy()).tobytes())
    return found.hexdigest()


def write(run: Run, spec: Spec, parts: Parts) -> dict[str, Any]:
    """Write the recipe of a block; return what the index holds of it."""
    name = run.name(spec)
    recipe, problem, fidelity = tested(parts)
    assert problem.n == spec.n, f"{name}: the block has {problem.n} weights"
    path = DATA / f"{name}.npz"
    save(path, recipe)
    print(
        f"  {name}: {path.stat().st_size / 1024:.1f} KiB, rank correlation "
        f"{fidelity.spearman:.6f}, deviation {fidelity.deviation:.1e}",
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
        "exponent": int(recipe["exponent"]),
        "spearman": round(fidelity.spearman, 8),
        "deviation": float(f"{fidelity.deviation:.3g}"),
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
    """Put a run and its problems into the index; drop best values of what has changed."""
    found = json.loads(INDEX.read_text("utf-8")) if INDEX.exists() else {"runs": {}, "problems": {}}
    old = found["problems"]
    changed = {
        name for name, new in problems.items() if old.get(name, {}).get("hash") != new["hash"]
    }
    found["runs"][key] = about
    found["problems"] = {n: r for n, r in old.items() if r["run"] != key} | problems
    write_index(found)
    if (DATA / "best.json").exists():
        kept = {n: v for n, v in best_values().items() if n in found["problems"]}
        write_best({n: v for n, v in kept.items() if n not in changed})
    else:
        write_best({})


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
