"""How many blocks a second the pruner gets through on the garment classifier, and why not more.

    python -m benchmarks.pruning_speed

Blocks of n = 1024 with N = 200 samples in gradient and curvature, all layers from one pass.
In the same run, turn by turn: the same with the activations of the acceptance test not
remembered, and with one pass for each block, as the paper's own code does.
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
    """One way of working, with a model and a state of its own."""

    def __init__(self, task, *, remember: bool = True, shared: bool = True) -> None:  # type: ignore[no-untyped-def]
        self.pruner = Pruner(**SETTINGS)
        model = copy.deepcopy(task.model)
        self.context = RunContext.prepare(model, task.batches, task.loss, self.pruner.config)
        self.context.holdout.remember = remember
        self.shared = shared
        self.state: RunState = start_run(self.context)
        self.rates: list[float] = []

    def turn(self, blocks: int) -> None:
        """Get through some blocks, and note the rate."""
        with _order(self.shared):
            first, began = len(self.state.history), time.perf_counter()
            while len(self.state.history) < first + blocks:
                self.pruner.step(self.context, self.state)
            done = len(self.state.history) - first
            self.rates.append(done / (time.perf_counter() - began))


@contextmanager
def _order(shared: bool) -> Iterator[None]:
    """With ``shared`` off, a pass serves one layer alone."""

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
    """Add up the seconds in each phase of a pass, without those of phases within it."""

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
        "as shipped": Contender(task),
        "activations not remembered": Contender(task, remember=False),
        "one pass a block": Contender(task, shared=False),
    }
    for contender in contenders.values():
        contender.turn(6)
        contender.rates.clear()
    spent: Counter[str] = Counter()
    for _ in range(rounds):
        for name, contender in contenders.items():
            with _phases(spent if name == "as shipped" else Counter()):
                contender.turn(blocks)
    base = contenders["as shipped"].rates
    lines = [
        "# Blocks a second",
        "",
        f"Garment classifier, density 0.1, n = 1024, N = 200, acceptance on 2000 samples, "
        f"{torch.get_num_threads()} threads; median of {rounds} turns of {blocks} blocks, "
        "in turns. The ratio is taken turn by turn.",
        "",
        "| way of working | blocks/s | as shipped is faster by |",
        "| --- | ---: | ---: |",
    ]
    for name, contender in contenders.items():
        ratio = median(a / b for a, b in zip(base, contender.rates, strict=True))
        lines.append(f"| {name} | {median(contender.rates):.1f} | {ratio:.2f} |")
    total = sum(spent.values())
    lines += [
        "",
        "Where the time of a pass goes: "
        + ", ".join(f"{name} {spent[name] / total:.0%}" for name in (*PHASES, "judge"))
        + ".",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    typer.run(main)
