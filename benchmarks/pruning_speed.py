"""Blocks per second of the pruner on the garment classifier, and the time of each phase.

    python -m benchmarks.pruning_speed

Blocks of n = 1024 with N = 200 samples in gradient and curvature, all layers from one pass.
Alternating in the same run: the same without cached activations in the acceptance test, and with
one pass per block, as in the paper's code.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer

from icbs import Pruner, pruner
from icbs.acceptance.rule import AcceptanceRule
from icbs.run import context as run_context
from icbs.run.context import RunContext
from icbs.run.start import start_run
from icbs.run.state import RunState
from icbs.selection import selector
from icbs.selection.schedule import visit_order
from icbs.zoo import load_task

RESULTS = Path(__file__).parent / "results" / "pruning_speed.md"
SETTINGS = {
    "density": 0.1,
    "block_size": 1024,
    "curvature_samples": 200,
    "gradient_samples": 200,
    "acceptance_samples": 2000,
    "schedule": "uniform",
}


class Contender:
    """A variant of the pruner with its own model and state."""

    def __init__(self, task, *, remember: bool = True, shared: bool = True) -> None:  # type: ignore[no-untyped-def]
        self.pruner = Pruner(**SETTINGS)
        model = copy.deepcopy(task.model)
        self.context = RunContext.prepare(model, task.batches, task.loss, self.pruner.config)
        self.context.holdout.remember = remember
        self.shared = shared
        self.state: RunState = start_run(self.context)
        self.rates: list[float] = []

    def turn(self, blocks: int) -> None:
        """Solve some blocks and record the rate."""
        with _order(self.shared):
            first, began = len(self.state.history), time.perf_counter()
            while len(self.state.history) < first + blocks:
                self.pruner.step(self.context, self.state)
            done = len(self.state.history) - first
            self.rates.append(done / (time.perf_counter() - began))


@contextmanager
def _order(shared: bool) -> Iterator[None]:
    """Without ``shared``, take a pass for a single layer."""

    def one(layers, visits, step, generator):  # type: ignore[no-untyped-def]
        return [layers[step % len(layers)]]

    vars(pruner)["visit_order"] = visit_order if shared else one
    try:
        yield
    finally:
        vars(pruner)["visit_order"] = visit_order


PHASES = {
    "take_pass": vars(run_context),
    "select_block": vars(selector),
    "build_block": vars(pruner),
    "solve_blocks": vars(pruner),
}
"""Functions that a pass calls, and where it finds them."""


@contextmanager
def _phases(spent: Counter[str]) -> Iterator[None]:
    """Sum the seconds in each phase of a pass, without those of nested phases."""

    def timed(name, function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            began, within = time.perf_counter(), spent.total()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - began - (spent.total() - within)

        return call

    plain = {name: space[name] for name, space in PHASES.items()}
    judge = AcceptanceRule.judge
    for name, function in plain.items():
        PHASES[name][name] = timed(name, function)
    AcceptanceRule.judge = timed("judge", judge)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, function in plain.items():
            PHASES[name][name] = function
        AcceptanceRule.judge = judge  # type: ignore[method-assign]


def main(
    rounds: Annotated[int, typer.Option(help="Turns of each contender.")] = 7,
    blocks: Annotated[int, typer.Option(help="Blocks in a turn.")] = 30,
) -> None:
    """Measure, print and record."""
    task = load_task("garment")
    contenders = {
        "default": Contender(task),
        "without cached activations": Contender(task, remember=False),
        "one pass per block": Contender(task, shared=False),
    }
    for contender in contenders.values():
        contender.turn(6)
        contender.rates.clear()
    spent: Counter[str] = Counter()
    for _ in range(rounds):
        for name, contender in contenders.items():
            with _phases(spent if name == "default" else Counter()):
                contender.turn(blocks)
    base = contenders["default"].rates
    lines = [
        "# Blocks per second",
        "",
        f"Garment classifier, density 0.1, n = 1024, N = 200, acceptance on 2000 samples, "
        f"{torch.get_num_threads()} threads; median of {rounds} alternating turns of {blocks} "
        "blocks. The ratio is the median over turns.",
        "",
        "| variant | blocks/s | speed-up by default settings |",
        "| --- | ---: | ---: |",
    ]
    for name, contender in contenders.items():
        ratio = median(a / b for a, b in zip(base, contender.rates, strict=True))
        lines.append(f"| {name} | {median(contender.rates):.1f} | {ratio:.2f} |")
    total = sum(spent.values())
    lines += [
        "",
        "Time of a pass by phase: "
        + ", ".join(f"{name} {spent[name] / total:.0%}" for name in (*PHASES, "judge"))
        + ".",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    typer.run(main)
