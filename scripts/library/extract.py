"""Blocks of the pruner on the models, saved before rounding."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from icbs.zoo import Task, load_task
from problems.files import write_text
from scripts.library.blocks import pruned
from scripts.library.parts import parts_file, save_parts
from scripts.library.specs import MODELS, Run, Spec

ABOUT = "run.json"


def extract(run: Run, folder: Path) -> dict[str, Any]:
    """Save the blocks of a run that are missing in a folder; return the run's description.

    Blocks of another run (other settings, number of passes, weights or versions) are replaced.
    """
    path = folder / run.key / ABOUT
    about = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known = {key: about.get(key) for key in ("settings", "after", "options")}
    asked = {
        "settings": run.settings,
        "after": run.after,
        "options": MODELS[run.model].options,
    }
    if known != asked:
        about = {}
    missing = [
        spec
        for spec in run.specs
        if run.name(spec) not in about.get("blocks", {})
        or not parts_file(folder, run.key, run.name(spec)).exists()
    ]
    if not missing:
        return about
    print(run.key, flush=True)
    torch.set_num_threads(1)
    began, task = time.perf_counter(), loaded(run.model)
    blocks = about.get("blocks", {})
    with pruned(task, run.after, **run.settings) as moment:
        order = [layer.name for layer in moment.context.layers]
        for look, group in groupby(sorted(missing, key=by_pass(run)), key=run.look):
            specs = list(group)
            parts = moment.look([spec.layer for spec in specs], **look)
            for spec in specs:
                if spec.layer not in parts:
                    print(f"  {run.name(spec)}: the pass has no block of {spec.layer}", flush=True)
                    continue
                save_parts(parts[spec.layer], parts_file(folder, run.key, run.name(spec)))
                depth = order.index(spec.layer) / (len(order) - 1)
                blocks[run.name(spec)] = {"look": {"look": look}, "depth": round(depth, 3)}
    about = {
        "task": MODELS[run.model].task,
        "options": MODELS[run.model].options,
        "sources": MODELS[run.model].sources,
        "weights": digest(task.model),
        "settings": run.settings,
        "after": run.after,
        "versions": {n: version(n) for n in ("icbs-pruning", "torch", "numpy", "transformers")},
        "blocks": blocks,
    }
    write_text(path, json.dumps(about, indent=1) + "\n")
    print(f"{run.key}: {time.perf_counter() - began:.0f} s", flush=True)
    return about


def by_pass(run: Run) -> Callable[[Spec], str]:
    """Return a key that sorts problems of the same pass together."""
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
