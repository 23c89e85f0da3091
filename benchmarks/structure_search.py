"""The particle filter against our search, for an equal number of forward passes.

Kernels of the small CNN, half of them pruned. Anwar et al. 2015 (arXiv 1512.08571) search masks by
their loss alone; our search takes gradients, each of which is counted as two forward passes.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.fashion_cnn import load
from icbs import Pruner
from icbs.groups.particle_filter import particle_filter
from icbs.run.context import RunContext

DENSITY, PASSES, PARTICLES = 0.5, 3, 5
SETTINGS: dict[str, Any] = {
    "groups": "kernels",
    "density": DENSITY,
    "allocation": "global",
    "gradient_samples": 1024,
    "curvature_samples": 1024,
    "acceptance_samples": 1024,
}


class Counter:
    """Number of samples that passed a model, and how many of them with gradients."""

    def __init__(self, model: nn.Module) -> None:
        self.plain = self.graded = 0
        model.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            self.graded += len(output)
        else:
            self.plain += len(output)

    @property
    def passes(self) -> int:
        """Forward passes of a sample; with drawn targets there are two backward passes."""
        return self.plain + (1 + 2 + 2) * self.graded


def compare_searches(seeds: tuple[int, ...] = (0, 1)) -> list[dict[str, Any]]:
    """Return a row for each search and seed."""
    task, rows = load(), []
    dense = copy.deepcopy(task.model)
    for seed in seeds:
        settings = SETTINGS | {"seed": seed}
        budgets = []
        for name, own in (
            ("magnitude", {"initial": "magnitude", "passes": 0}),
            ("ours", {"passes": PASSES}),
        ):
            model = copy.deepcopy(dense)
            counter = Counter(model)
            result = Pruner(**settings | own).prune(model, task.batches, task.loss, progress=False)
            budgets.append(counter.passes)
            figures = dict(task.evaluate(model))
            rows.append(
                {"search": name, "seed": seed, "passes": budgets[-1], "loss": result.loss}
                | {"figures": figures}
            )
        for start in ("random", "magnitude"):
            model = copy.deepcopy(dense)
            rows.append(_filtered(task, model, settings, start, budgets[-1]) | {"seed": seed})
    return rows


def _filtered(
    task: Any, model: nn.Module, settings: dict[str, Any], start: str, budget: int
) -> dict[str, Any]:
    """Search by the particle filter from random masks, or also that of the magnitudes."""
    pruner = Pruner(**settings | {"initial": "magnitude", "passes": 0})
    context = RunContext.prepare(model, task.batches, task.loss, pruner.config)
    grouping = context.grouping
    assert grouping is not None
    sizes = np.sqrt(grouping.gates.total([p.weights.double() ** 2 for p in grouping.gates.parts]))
    pruned = grouping.count - round(DENSITY * grouping.count)
    smallest = np.zeros(grouping.count, dtype=np.uint8)
    smallest[np.argsort(sizes)[:pruned]] = 1

    def loss(state: Any) -> float:
        grouping.close(state)
        return context.holdout.measure()

    counter = Counter(model)
    # At least the budget: the best mask of a round is kept, and not evaluated again.
    rounds = 1 + math.ceil((budget / context.holdout.count - PARTICLES) / (PARTICLES - 1))
    found = particle_filter(
        loss, grouping.count, pruned,
        particles=PARTICLES, rounds=rounds, temperature=0.01, exchanges=20,
        start=smallest if start == "magnitude" else None, seed=settings["seed"],
    )  # fmt: skip
    grouping.close(found.state)
    return {
        "search": f"particle filter, {start} start",
        "passes": counter.passes,
        "loss": found.loss,
        "figures": dict(task.evaluate(model)),
    }
