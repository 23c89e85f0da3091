"""Estimate memory use and choose batch sizes that fit the limit.

If memory is short, a forward pass gets fewer samples; if that is not enough, activations of the
acceptance test are recomputed instead of cached. The choice depends only on sizes and the limit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.config.constants import MOVING_CALLS, MOVING_COLUMNS, SELECTION_SHARE
from icbs.curvature.hooks import hooked
from icbs.curvature.source import CurvatureSource, PassSizes
from icbs.data.objective import Objective
from icbs.data.pytree import tensors, tree_map
from icbs.data.samples import IGNORED, Samples
from icbs.errors import DataError, MemoryLimitError
from icbs.formatting import byte_size as spell
from icbs.model.layer import Layer
from icbs.selection.schedule import selection_point

log = logging.getLogger("icbs")
SPARE = 0.8
"""Share of the free memory that a run may use by default."""
CACHE = 1 << 29
"""Maximum bytes of cached activations of held-out samples. Without them, trials of a small
convolutional network take 1.5 to 2 times as long."""
PER_WEIGHT = 3 + 4
"""Bytes per prunable weight: current, best and movable masks, and the stamp of its last visit."""


@dataclass(frozen=True)
class Survey:
    """Measured memory of one sample, in bytes."""

    activations: int
    """Graph of a forward pass, and temporaries of the backward pass."""
    held: int
    """Inputs and outputs of the prunable layers."""
    shared: int = 0
    """Stored once for all samples of a forward pass, such as weights in a narrower type."""
    sample: int = 0
    """The sample itself: inputs and targets."""
    apart: bool = False
    """Whether gradients need one sample at a time, since some layers get only some samples."""


@dataclass(frozen=True)
class Plan:
    """Batch sizes of a run, and its expected memory."""

    batch_size: int
    """Number of samples in one forward pass."""
    samples: int
    """Maximum number of samples of a pass."""
    remember: bool
    """Whether the acceptance test caches activations."""
    limit: int = 0
    """Bytes allowed."""
    parts: dict[str, int] = field(default_factory=dict)
    """Bytes expected, by purpose."""
    apart: bool = False
    """Whether gradients are taken one sample at a time, regardless of :attr:`batch_size`."""

    @property
    def needed(self) -> int:
        """Total bytes expected."""
        return sum(self.parts.values())

    @property
    def together(self) -> int:
        """Number of samples in one forward and backward pass."""
        return 1 if self.apart else self.batch_size

    def __str__(self) -> str:
        return (
            f"memory: about {spell(self.needed)} of {spell(self.limit)} allowed, "
            f"{self.samples} samples a pass, at most {self.together} at a time"
        )

    @property
    def details(self) -> str:
        """Bytes expected by purpose, as text."""
        return ", ".join(f"{what} {spell(size)}" for what, size in self.parts.items() if size)

    def recorded(self) -> dict[str, Any]:
        """Return the plan as a plain dict, which a resumed run reads."""
        return asdict(self)


def survey(model: nn.Module, layers: Sequence[Layer], objective: Objective, one: Samples) -> Survey:
    """Measure the graphs of forward passes over one and two samples.

    Raises
    ------
    DataError
        If a layer is not called, or the loss does not depend on any layer.
    LayerError
        If a layer does not compute the output of its kind, or runs without gradients.
    """
    # Cloned: a slice shares the storage of all samples.
    one = Samples(tree_map(Tensor.clone, one.inputs), one.targets.clone())
    two = Samples(tree_map(_twice, one.inputs), _twice(one.targets))
    single, numbers = _graph(model, layers, objective, one, verify=True)
    double, _ = _graph(model, layers, objective, two)
    return Survey(
        max(1, double - single),
        numbers * max(4, layers[0].dense.element_size()),
        max(0, 2 * single - double),
        sum(tensor.nbytes for tensor in (*tensors(one.inputs), one.targets)),
    )


def _twice(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor])


def _graph(
    model: nn.Module,
    layers: Sequence[Layer],
    objective: Objective,
    samples: Samples,
    *,
    verify: bool = False,
) -> tuple[int, int]:
    """Bytes of the graph of a forward pass, and entries of the layers' inputs and outputs."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    alive: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            alive[storage.data_ptr()] = storage.nbytes()
        # Detached: an output saved by its own operation would be a reference cycle.
        return tensor.detach()

    with (
        # Only sizes are needed, not the assignment of rows to samples.
        hooked(model, layers, 1, verify=verify) as taps,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        outputs = objective.run(model, samples.inputs)
        total = objective.total(outputs, samples.targets)
        if not total.requires_grad and bool((samples.targets != IGNORED).any()):
            raise DataError(
                "the loss does not depend on any layer to prune; compute it from the model's "
                "outputs, without detach"
            )
        alive |= taps.received
    # The backward pass has temporaries of the size of the largest tensor (the logits, in language
    # models); four were measured on language models.
    return sum(alive.values()) + 4 * max(alive.values(), default=0), taps.numbers


def make_plan(
    model: nn.Module,
    layers: Sequence[Layer],
    found: Survey,
    config: PrunerConfig,
    source: CurvatureSource,
    pool: int,
    held_out: int,
    groups: int | None = None,
) -> Plan:
    """Choose batch sizes that fit the limit, and whether to cache activations.

    Parameters
    ----------
    model, layers, config
    found : Survey
    source : CurvatureSource
    pool, held_out : int
        Samples for gradients, and for the acceptance test.
    groups : int, optional
        Number of groups if groups of weights are pruned, in one block.

    Raises
    ------
    MemoryLimitError
        If a single sample at a time does not fit.
    """
    storages = [tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()]]
    wide = max(4, layers[0].dense.element_size())
    weights = sum(layer.size for layer in layers)
    dense = sum(layer.dense.nbytes for layer in layers)
    fixed = {
        "model": sum({s.data_ptr(): s.nbytes() for s in storages}.values()),
        "dense weights and masks": dense + PER_WEIGHT * weights,
        "gradients and scores": 2 * wide * weights,
        "shared by the samples": found.shared,
    }
    if config.weights == "global":  # rows, calls, and copies and directions of the weights
        count = config.curvature_samples
        rows = 32 * count**2 + wide * count * min(MOVING_COLUMNS, weights)
        calls = min(MOVING_CALLS, count * found.held)
        fixed["moving weights"] = rows + calls + 8 * wide * weights
    elif config.weights == "initial":
        fixed["weights before the start"] = dense
    limit = config.max_memory
    if limit is None:
        limit = int(SPARE * free_memory(layers[0].dense.device)) + fixed["model"] + dense
    samples = config.samples_of(pool)
    midway = source.selects_midway and selection_point(SELECTION_SHARE, samples) is not None
    gates = [layer.size for layer in layers]
    if groups is not None:
        gates = [groups]
        # Index and gate of each weight, at rows and columns, of all groups and of a block.
        fixed["gates of the weights"] = 2 * 16 * weights
    elif config.block_size == "all":
        gates = [sum(gates)]
    else:
        gates = [min(config.block_size * config.blocks_per_layer, size) for size in gates]
    sizes = PassSizes(layers, samples, gates, found.held, midway)
    fixed |= {"samples of a pass": samples * found.sample} | source.memory(sizes)
    # If all layers move at once, every activation changes and a cache is useless.
    cache = 2 * held_out * found.held
    remembers = config.acceptance != "pass" and not found.apart and cache <= CACHE
    for remember in sorted({remembers, False}, reverse=True):
        # The activations of a trial are stored in addition to those of the current state.
        parts = fixed | {"held for the acceptance test": cache if remember else 0}
        room = (limit - sum(parts.values())) // max(1, found.activations)
        size = min(config.batch_size, max(samples, held_out), room)
        if size >= 1:
            parts["activations"] = size * found.activations
            plan = Plan(size, samples, remember, limit, parts, found.apart)
            log.info("%s", plan)
            log.debug("memory by purpose: %s", plan.details)
            return plan
    least = sum(parts.values()) + found.activations
    raise MemoryLimitError(
        f"pruning {weights:,} weights needs about {spell(least)} of memory at least "
        f"({spell(found.activations)} for the forward and backward pass of one sample), and "
        f"{spell(limit)} may be used; raise max_memory, take shorter samples, prune fewer "
        "layers at a time (include), or load the model in a narrower type (bfloat16)"
    )


def free_memory(device: torch.device) -> int:
    """Free bytes on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)
