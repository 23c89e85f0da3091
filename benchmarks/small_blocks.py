"""Pruning the garment classifier by many small blocks, with solvers of quantum kinds and others.

    python -m benchmarks.small_blocks

Each pass has ``--count`` disjoint blocks of ``--size`` weights in each layer that is due. All
solvers get the same settings and seed; ``random``, the best of as many random states as the circuit
has shots, is the null.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import typer

from icbs import Pruner, Result
from icbs.zoo import Task, load_task
from solvers import create
from solvers.qaoa import Qaoa

RESULTS = Path(__file__).parent / "results"
SHOTS = 256


def main(
    size: Annotated[int, typer.Option(help="Weights in a block.")] = 14,
    count: Annotated[int, typer.Option(help="Blocks of a layer in one pass.")] = 32,
    passes: Annotated[int, typer.Option(help="Passes.")] = 10,
    annealer_passes: Annotated[int, typer.Option(help="Passes with the mocked annealer.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Prune with each solver, print and record."""
    task = load_task("garment")
    dense = task.evaluate(task.model)
    settings: dict[str, Any] = {
        "density": 0.1,
        "initial": "wanda",
        "block_size": size,
        "blocks_per_layer": count,
        "curvature_weight": 1.0,
        "acceptance": "pass",
        "seed": seed,
    }
    lines = [
        "# Pruning by many small blocks",
        "",
        f"Garment classifier (test accuracy {dense['accuracy']:.2%} before pruning) at density "
        f"0.1, start Wanda, {passes} passes of up to {count} blocks of {size} weights in each "
        f"layer, κ = 1, one test of the held-out loss a pass. `qaoa` is simulated without noise, "
        f"with {SHOTS} shots; `random` is the best of {SHOTS} random states; `qpu` is D-Wave's "
        f"mock of an annealer, on a Zephyr graph, for {annealer_passes} passes. Seconds in the "
        "columns from *curvature* on; *per block* is by the clock, two blocks at a time.",
        "",
        "| solver | passes | held-out loss | test accuracy | blocks kept | curvature | solver | "
        "acceptance | per block |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, solver in _solvers().items():
        some = annealer_passes if name == "qpu, mock" else passes
        model = copy.deepcopy(task.model)
        result = Pruner(solver=solver, passes=some, **settings).prune(
            model, task.batches, task.loss, progress=False
        )
        lines.append(_row(name, result, task, model))
        print(lines[-1], flush=True)
    lines += ["", f"Held-out loss of the start: {result.initial_loss:.4f}."]
    (RESULTS / "small_blocks.md").write_text("\n".join(lines) + "\n")


def _solvers() -> dict[str, Any]:
    from dwave.system.testing import MockDWaveSampler

    mock = MockDWaveSampler(topology_type="zephyr", topology_shape=[4, 4], parameter_warnings=False)
    return {
        "qaoa, p = 2, ramp": Qaoa(optimizer="ramp", shots=SHOTS),
        "qaoa, p = 2, warm start, ramp": Qaoa(optimizer="ramp", start="relaxation", shots=SHOTS),
        "qaoa, p = 2, optimised": Qaoa(shots=SHOTS),
        "random": create("random", draws=SHOTS),
        "neal": create("neal", num_sweeps=100),
        "anneal": create("anneal"),
        "exact": create("exact"),
        "qpu, mock": create("qpu", sampler=mock, anneals=20),
    }


def _row(name: str, result: Result, task: Task, model: Any) -> str:
    blocks = len(result.history)
    cells = [
        name,
        f"{result.passes}",
        f"{result.loss:.4f}",
        f"{task.evaluate(model)['accuracy']:.2%}",
        f"{sum(row.accepted for row in result.history)} of {blocks}",
        *(f"{result.costs[part]:.1f}" for part in ("curvature", "solver", "acceptance")),
        f"{1e3 * result.costs['solver'] / blocks:.1f} ms",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
