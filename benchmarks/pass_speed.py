"""Cost of a pass over a language model with blocks of all layers.

    python -m benchmarks.pass_speed

On SmolLM2-135M, in one run: the peak memory, the time of a pass compared with a plain forward
and backward pass over the same sequences (half of them before it, half after), and the number of
weights optimised per second, compared with passes for a single block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psutil
import torch
import typer
from torch import nn

from icbs import Pruner
from icbs.curvature.passes import Pass
from icbs.data.pytree import call
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.run.context import RunContext
from icbs.run.start import start_run
from icbs.run.state import RunState
from icbs.selection.scores import initial_mask
from icbs.zoo import load_task

RESULTS = Path(__file__).parent / "results" / "pass_speed.md"


class Peak:
    """Largest resident memory of this process while the context is open."""

    def __init__(self) -> None:
        self.bytes = 0
        self._open = True

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while self._open:
            self.bytes = max(self.bytes, process.memory_info().rss)
            time.sleep(0.02)


@contextmanager
def _clock(spent: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    spent[name] = spent.get(name, 0.0) + time.perf_counter() - began


def plain(context: RunContext, start: int, stop: int) -> None:
    """Run a training step without an update: forward, loss, and gradients of all weights."""
    for i in range(start, stop):
        piece = context.pool[i : i + 1]
        context.objective.total(call(context.model, piece.inputs), piece.targets).backward()
    context.model.zero_grad(set_to_none=True)


def blocks_of_a_pass(
    pruner: Pruner,
    context: RunContext,
    state: RunState,
    layers: list[Layer],
    spent: dict[str, float],
) -> int:
    """Take one pass for some layers and solve their blocks; return the number of weights."""

    def select(pass_info: Pass) -> dict[str, Gates]:
        with _clock(spent, "choose"):
            return pruner.selector.select(layers, pass_info, state.tabus, state.generator)

    everything, context.layers = context.layers, layers
    try:
        with _clock(spent, "pass"):
            pass_info = context.take_pass(state.generator, select=select)
        with _clock(spent, "build"):
            blocks = pruner.build(context, state, pass_info)
        with _clock(spent, "solve"):
            pruner.solve(context, state, blocks)
    finally:
        context.layers = everything
    return sum(block.problem.n for block in blocks)


def main(
    sequences: Annotated[int, typer.Option(help="In a pass.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens in a sequence.")] = 512,
    layers: Annotated[int | None, typer.Option(help="Decoder blocks kept; all by default.")] = None,
    alone: Annotated[int, typer.Option(help="Passes that serve one block.")] = 2,
    block_size: Annotated[int, typer.Option()] = 2048,
    max_memory: Annotated[str, typer.Option()] = "4GB",
    curvature: Annotated[str, typer.Option()] = "empirical",
    record: Annotated[bool, typer.Option(help="Write the table.")] = True,
) -> None:
    """Measure, print and record."""
    torch.set_num_threads(1)
    task = load_task(
        "language_model", length=length, samples=sequences + 1, test_samples=1, layers=layers
    )
    pruner = Pruner(
        density=0.5,
        block_size=block_size,
        curvature=curvature,
        gradient_samples=sequences,
        curvature_samples=sequences,
        acceptance_samples=1,
        schedule="uniform",
        max_memory=max_memory,
    )
    spent: dict[str, float] = {}
    with Peak() as peak:
        context = RunContext.prepare(task.model, task.batches, task.loss, pruner.config)
        print(context.plan)
        masks = {
            x.name: x.kind.shaped(~initial_mask(x.dense.abs(), x.num_keep, "layer").view(x.shape))
            for x in context.layers
        }
        state = start_run(context, masks)
        del masks
    half = sequences // 2
    with _clock(spent, "plain"):
        plain(context, 0, half)
    with peak_again(peak):
        weights = blocks_of_a_pass(pruner, context, state, context.layers, spent)
    with _clock(spent, "plain"):
        plain(context, half, sequences)
    singly: dict[str, float] = {}
    few = [context.layers[len(context.layers) * (2 * i + 1) // (2 * alone)] for i in range(alone)]
    served = sum(blocks_of_a_pass(pruner, context, state, [layer], singly) for layer in few)
    report(context, spent, singly, weights, served, alone, peak.bytes, record, sequences, length)


@contextmanager
def peak_again(peak: Peak) -> Iterator[None]:
    """Update the peak memory within the context."""
    with Peak() as more:
        yield
    peak.bytes = max(peak.bytes, more.bytes)


def report(
    context: RunContext,
    spent: dict[str, float],
    singly: dict[str, float],
    weights: int,
    served: int,
    alone: int,
    peak: int,
    record: bool,
    sequences: int,
    length: int,
) -> None:
    """Print and save the figures."""
    outside = spent["pass"] + spent["build"]
    together = weights / (outside + spent["solve"])
    apart = served / (singly["pass"] + singly["build"] + singly["solve"])
    size = sum(p.numel() for p in nn.Module.parameters(context.model))
    prunable = sum(layer.size for layer in context.layers)
    lines = [
        "# One pass over a language model",
        "",
        f"SmolLM2 with {size / 1e6:.0f} M parameters in float32, {len(context.layers)} layers of "
        f"{prunable / 1e6:.0f} M prunable weights, {sequences} sequences "
        f"of {length} tokens, blocks of {context.config.block_size}, curvature "
        f"{context.config.curvature!r}, {torch.get_num_threads()} thread; one run.",
        "",
        f"Estimate before the run: {context.plan}.",
        "",
        "| what | measured |",
        "| --- | ---: |",
        f"| peak of resident memory, preparation and pass | {peak / 1e9:.2f} GB |",
        f"| plain forward and backward pass | {spent['plain']:.1f} s |",
        f"| pass with the choice of {len(context.layers)} blocks, and building their problems "
        f"| {outside:.1f} s |",
        f"| the same, over the plain one | {outside / spent['plain']:.2f} |",
        f"| of it, choosing | {spent['choose']:.1f} s |",
        f"| of it, building | {spent['build']:.1f} s |",
        f"| solving the blocks | {spent['solve']:.1f} s |",
        f"| weights optimised per second, all layers from one pass | {together:,.0f} |",
        f"| weights optimised per second, one pass per block (mean of {alone}) | {apart:,.1f} |",
        f"| ratio | {together / apart:.0f} |",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if record:
        RESULTS.write_text(text)


if __name__ == "__main__":
    typer.run(main)
