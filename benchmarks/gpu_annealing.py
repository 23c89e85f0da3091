"""Speed of the GPU search, compared with the card's memory bandwidth and with one CPU core.

    python -m benchmarks.gpu_annealing

**Rate.** A program is one replica of one block. A step of a program is one swap: it reads two
rows of Q and evaluates all partners of one variable exactly, n/2 swaps at k = n/2. n evaluated
proposals are one sweep-equivalent, or two steps.

**Limit.** Each step must read 2·4·n bytes. This bandwidth is compared with that of a triad
``c = a + 2b`` over 3 GiB in the same run. If many replicas share few blocks (n = 8192 does not
fit 1024 times) the rows come from the L2 cache, and more than 100 % is possible.

**CPU.** The same blocks, from the same initial state, by ``solve(…, "anneal")`` on one thread and
by ``solve(…, "anneal-gpu")`` in one batch, both with their own stopping rules; the ratio is that
of the times per block, next to the difference of the energies.

Blocks are random but similar to those of pruning: 200 per-sample gradients with a mean, weights
with heavy tails, the quadratic model at a random mask (``icbs.blocks.block``).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from problems import CardinalityQUBO
from solvers import solve
from solvers.gpu.batch import Batch, TabuParameters, default_warps, padded
from solvers.gpu.device import device_name, find_device

RESULTS = Path(__file__).parent / "results" / "gpu_annealing.md"
SAMPLES = 200
PLAN = TabuParameters(tenure=4, stall=25, kick=6, patience=2**31 - 1)
HEAD = "# Annealing on a GPU\n\n"
HOW = "    pip install 'icbs-pruning[gpu]'\n    python -m benchmarks.gpu_annealing\n"


@dataclass
class Row:
    """A row of the table."""

    n: int
    blocks: int
    replicas: int
    steps: float
    """Steps a second, all programs together."""
    bandwidth: float
    """Bytes a second that the steps must read."""


def main(
    sizes: Annotated[list[int], typer.Option(help="Variables of a block.")] = [  # noqa: B006
        256, 512, 1024, 2048, 4096, 8192,
    ],
    batches: Annotated[list[int], typer.Option(help="Programs in a launch.")] = [  # noqa: B006
        1, 4, 16, 64, 256, 1024,
    ],
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 0.2,
    largest: Annotated[int, typer.Option(help="Blocks solved on CPU and GPU.")] = 256,
) -> None:  # fmt: skip
    """Measure, print and record."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    device = find_device("cpu" if interpreted else None)
    if isinstance(device, str):
        text = f"{HEAD}Not yet measured: {device}. On a machine with a CUDA device:\n\n{HOW}"
        print(text)
        if not RESULTS.exists():
            RESULTS.write_text(text)
        return
    torch.set_num_threads(1)
    limit = bandwidth(device, 1 << (10 if interpreted else 28))
    parts = [
        f"{HEAD}{device_name(device)}, torch {torch.__version__}; measured with\n\n{HOW}\n"
        f"A triad moves {limit / 1e9:.0f} GB/s. What a step and a sweep are, and what is counted "
        "as read, stands at the head of the script.\n",
        rates(sizes, batches, seconds, limit, device),
        warps(sizes, batches, seconds, limit, device),
        against_cpu(sizes, batches, largest, device),
    ]
    text = "\n".join(parts)
    print(text)
    if not interpreted:
        RESULTS.write_text(text)


def rates(
    sizes: list[int], batches: list[int], seconds: float, limit: float, device: torch.device
) -> str:
    """Measure steps per second for each size and batch."""
    lines = [
        "## Steps and sweeps a second\n",
        "| n | programs | blocks × replicas | µs a step | steps/s | sweep-equivalents/s "
        "| read, GB/s | of the triad |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in sizes:
        for count in batches:
            row = measure(n, count, seconds, device)
            programs = row.blocks * row.replicas
            lines.append(
                f"| {n} | {programs} | {row.blocks} × {row.replicas} "
                f"| {1e6 * programs / row.steps:.2f} | {row.steps:.3g} | {row.steps / 2:.3g} "
                f"| {row.bandwidth / 1e9:.0f} | {row.bandwidth / limit:.0%} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def warps(
    sizes: list[int], batches: list[int], seconds: float, limit: float, device: torch.device
) -> str:
    """Measure the largest batch of each size with different numbers of warps per program."""
    choices = [1, 2, 4, 8, 16]
    lines = [
        "## Warps of a program\n",
        f"{max(batches)} programs; percent of the triad. The default stands in bold.\n",
        "| n |" + "".join(f" {w} |" for w in choices),
        "| ---: |" + " ---: |" * len(choices),
    ]
    for n in sizes:
        cells = []
        for w in choices:
            if not 1 <= n // (32 * w) <= 64:
                cells.append("")
                continue
            share = f"{measure(n, max(batches), seconds, device, w).bandwidth / limit:.0%}"
            default = default_warps(padded(n), max(batches), device)
            cells.append(f"**{share}**" if w == default else share)
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def against_cpu(sizes: list[int], batches: list[int], largest: int, device: torch.device) -> str:
    """Solve the same blocks on one core and in one batch."""
    lines = [
        "## One batch against one core\n",
        "`higher by` is the median of (GPU's energy - CPU's) over the decrease that the CPU "
        "found: negative where the GPU's answer is better.\n",
        "| n | blocks | CPU, ms a block | GPU, ms a block | cores' worth | higher by |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for n in sizes:
        count = min(largest, max(batches), most_blocks(n, device))
        blocks = [draw_block(n, seed, device) for seed in range(count)]
        problems = [problem for problem, _ in blocks]
        starts = [start for _, start in blocks]
        sample = range(min(count, 8))
        arrays = [p if p.device.type == "cpu" else on_host(p) for p in problems[: len(sample)]]
        cpu_seconds, answers = [], []
        with one_core():
            solve(arrays[0], "anneal", seed=0, initial_state=starts[0])
            for i in sample:
                begin = time.perf_counter()
                answers.append(solve(arrays[i], "anneal", seed=0, initial_state=starts[i]))
                cpu_seconds.append(time.perf_counter() - begin)
        gpu = f"{device.type}:{device.index or 0}" if device.type == "cuda" else "cpu"
        solve(problems[:1], "anneal-gpu", seed=0, initial_state=starts[:1], device=gpu, patience=1)
        begin = time.perf_counter()
        found = solve(problems, "anneal-gpu", seed=0, initial_state=starts, device=gpu)
        gpu_seconds = (time.perf_counter() - begin) / count
        higher = median((found[i].energy - answers[i].energy) / -answers[i].energy for i in sample)
        cpu = median(cpu_seconds)
        lines.append(
            f"| {n} | {count} | {1e3 * cpu:.2f} | {1e3 * gpu_seconds:.3f} "
            f"| {cpu / gpu_seconds:.0f} | {higher:.1e} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def measure(
    n: int, count: int, seconds: float, device: torch.device, warps: int | None = None
) -> Row:
    """Time steps of ``count`` programs; the best of three."""
    blocks = min(count, most_blocks(n, device))
    replicas = count // blocks
    matrices, starts = [], []
    for seed in range(blocks):
        problem, start = draw_block(n, seed, device)
        form = problem.tensors(device)
        assert form.A is not None
        assert form.linear is not None
        Q = form.A.T @ form.A
        Q.diagonal().add_(form.linear.to(Q.dtype))
        matrices += [Q] * replicas
        starts += [start] * replicas
    x = torch.zeros(len(matrices), padded(n), dtype=torch.int32, device=device)
    x[:, :n] = torch.from_numpy(np.array(starts)).to(device)
    seeds = torch.arange(len(matrices), dtype=torch.int32, device=device)
    batch = Batch(matrices, x, seeds, warps=warps)
    steps = 64 if device.type == "cuda" else 2
    batch.launch(PLAN, steps)
    spent = timed(lambda: batch.launch(PLAN, steps), device)
    steps = max(steps, min(1 << 20, int(steps * seconds / spent)))
    spent = min(timed(lambda: batch.launch(PLAN, steps), device) for _ in range(3))
    rate = len(matrices) * steps / spent
    return Row(n, blocks, replicas, rate, rate * 2 * 4 * n)


@contextmanager
def one_core() -> Iterator[None]:
    """Run on a single core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall seconds of work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def bandwidth(device: torch.device, entries: int) -> float:
    """Return the bytes per second of a triad, the best of ten."""
    a, b = (torch.randn(entries, device=device) for _ in range(2))
    c = torch.empty_like(a)
    times = [timed(lambda: torch.add(a, b, alpha=2, out=c), device) for _ in range(10)]
    return 3 * 4 * entries / min(times)


def most_blocks(n: int, device: torch.device) -> int:
    """Return the number of matrices that fill half of the free memory."""
    if device.type != "cuda":
        return 4
    torch.cuda.empty_cache()
    return max(1, int(0.5 * torch.cuda.mem_get_info(device)[0] / (4 * n * n)))


def draw_block(n: int, seed: int, device: torch.device) -> tuple[CardinalityQUBO, np.ndarray]:
    """Draw a block on the device; its initial state has energy 0."""
    rng = np.random.default_rng(seed)
    start = rng.permutation(np.arange(n) < n // 2).astype(np.uint8)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    weights = 0.05 * normal(n).exp() * normal(n).sign()
    gates = (normal(SAMPLES, n) + 0.2 * normal(n)) * weights
    x = torch.from_numpy(start).to(device, torch.float32)
    A = gates / (2 * SAMPLES) ** 0.5
    coupled = 2 * (A.T @ (A @ x))
    mean = gates.mean(dim=0)
    linear = (-mean - coupled).double()
    offset = float(mean.double() @ x.double() + 0.5 * (coupled.double() @ x.double()))
    return CardinalityQUBO.from_factors(A, linear, n // 2, offset=offset), start


def on_host(problem: CardinalityQUBO) -> CardinalityQUBO:
    """Copy a problem from a device."""
    return CardinalityQUBO.from_factors(problem.A, problem.linear, problem.k, offset=problem.offset)


if __name__ == "__main__":
    typer.run(main)
