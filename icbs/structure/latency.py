"""Wall time of inference: of models side by side, and of each dimension by its width."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icbs.data.pytree import call, tensors
from icbs.downloads import cache_folder
from icbs.model.hooks import watch_calls
from icbs.model.modes import evaluation_mode
from icbs.structure.cutting import cut
from icbs.structure.dimension import ROLES, Dimension
from icbs.structure.operations import operations

Float = npt.NDArray[np.float64]
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Shares of the groups at which a dimension is measured; below, the curve is extended."""
ROUNDS = 7
log = logging.getLogger("icbs")


def latencies(
    runs: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS, warm_up: int = 2
) -> dict[str, float]:
    """Measure several functions in turn, so that a busy machine slows all of them alike.

    Parameters
    ----------
    runs : mapping of names to functions
    rounds : int
        Measured calls of each.
    warm_up : int
        Calls of each before that.

    Returns
    -------
    dict of names to float
        Median seconds of a call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in seconds.items()}


@torch.no_grad()
def model_latencies(
    models: Mapping[str, nn.Module], inputs: Any, rounds: int = ROUNDS
) -> dict[str, float]:
    """Measure the calls of several models on the same inputs, in turn; median seconds."""

    def runner(model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            call(model, inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return run

    return latencies({name: runner(model) for name, model in models.items()}, rounds)


def latency_tables(
    model: nn.Module, dimensions: Sequence[Dimension], inputs: Any
) -> tuple[float, dict[str, tuple[Float, Float]]]:
    """Measure the latency of each dimension by its number of kept groups.

    Dimensions of equal modules and positions (the heads of all layers) are cut together, and the
    difference to the dense model is divided among them. The results are cached on disk for the
    same operations on tensors of the same shapes, device, threads and release of torch.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    dimensions : sequence of Dimension
        Blocks are left out: they are removed with their own heads and neurons.
    inputs
        Inputs of a call, of the size that is to be fast.

    Returns
    -------
    rest : float
        Seconds of a call without what the tables say.
    tables : dict of names to pairs of arrays
        Numbers of kept groups, ascending from 0, and the seconds at each, 0 at 0.
    """
    classes: dict[str, list[Dimension]] = {}
    with evaluation_mode(model) as plain:
        shapes = _output_shapes(plain, inputs)
        for dimension in dimensions:
            if dimension.kind != "blocks":
                classes.setdefault(_shape(plain, dimension, shapes), []).append(dimension)
        key = _key(plain, classes, inputs)
        path = cache_folder() / "latency" / f"{key}.json"
        if path.is_file():
            measured = json.loads(path.read_text())
        else:
            measured = _measure(plain, classes, inputs)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, measured)
    rest: float = measured["dense"]
    tables = {}
    for shape, own in classes.items():
        numbers = np.array([float(n) for n in measured["widths"][shape]])
        # A wider layer is not faster; noise may say so.
        seconds = np.maximum.accumulate(np.array(measured["seconds"][shape]))
        tables.update({dimension.name: (numbers, seconds) for dimension in own})
        rest -= seconds[-1] * len(own)
    return max(rest, 0.0), tables


def _measure(
    model: nn.Module, classes: Mapping[str, Sequence[Dimension]], inputs: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {"widths": {}, "seconds": {}}
    dense = []
    for shape, own in classes.items():
        count = own[0].groups
        numbers = sorted({max(own[0].floor, 1, round(share * count)) for share in SHARES})
        log.info("measuring %d × %s at %s groups", len(own), own[0].name, numbers)
        models = {n: cut(model, own, {d.name: _first(d.groups, n) for d in own}) for n in numbers}
        seconds = model_latencies({str(n): m for n, m in models.items()}, inputs)
        dense.append(seconds[str(count)])
        # The slope at small widths, down to 0, where a dimension costs nothing.
        saved = [(seconds[str(n)] - seconds[str(count)]) / len(own) for n in numbers]
        slope = (saved[-1] - saved[0]) / max(1, numbers[-1] - numbers[0])
        base = saved[0] - slope * numbers[0]
        found["widths"][shape] = [0, *numbers]
        found["seconds"][shape] = [0.0, *(max(0.0, value - base) for value in saved)]
    found["dense"] = statistics.median(dense) if dense else 0.0
    return found


def _first(groups: int, count: int) -> Tensor:
    return torch.arange(groups) < count


def _output_shapes(model: nn.Module, inputs: Any) -> dict[str, str]:
    """Return the shapes of the outputs of each module in a call."""
    found: dict[str, list[str]] = {}

    def after(name: str, args: Any, named: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found.setdefault(name, []).append(str(tuple(output.shape)))

    with torch.no_grad(), watch_calls(dict(model.named_modules()), after=after):
        call(model, inputs)
    return {name: " ".join(shapes) for name, shapes in found.items()}


def _shape(model: nn.Module, dimension: Dimension, shapes: Mapping[str, str]) -> str:
    """Describe the modules of a dimension: equal for layers that take equal time."""
    parts = [
        f"{role} {model.get_submodule(part.module)!r} to {shapes.get(part.module, '')}"
        for role in ROLES
        for part in getattr(dimension, role)
    ]
    return f"{dimension.kind} {dimension.groups}: {', '.join(parts)}"


def _key(model: nn.Module, classes: Mapping[str, Sequence[Dimension]], inputs: Any) -> str:
    """Return the name of the cache file."""
    parameter = next(model.parameters())
    device = parameter.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    facts = {
        "model": type(model).__name__,
        "operations": operations(model, inputs),
        "shapes": {shape: len(own) for shape, own in classes.items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "inputs": [f"{tuple(t.shape)} {t.dtype}" for t in tensors(inputs)],
        "type": str(parameter.dtype),
        "device": f"{device.type} {name} {platform.machine()} {platform.node()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _write(path: Path, content: Any) -> None:
    from problems.files import atomic

    with atomic(path) as temporary:
        Path(temporary).write_text(json.dumps(content))
