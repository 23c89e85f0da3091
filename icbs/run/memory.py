"""Estimate memory use and choose batch sizes that fit the limit.

Where memory is short, fewer samples go into a forward pass, and then activations of the
acceptance test are computed again rather than remembered. The choice depends on sizes and the
limit alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.config.constants import SELECTION_SHARE
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
"""Share of the free memory that a run takes without being told how much it may."""
CACHE = 1 << 29
"""Bytes of held-out samples' activations that are worth remembering. Trials of a small
convolutional network take 1.5 to 2 times as long without them."""
PER_WEIGHT = 3 + 4
"""Bytes a prunable weight: masks now, best and movable, and the time of its last visit."""


@dataclass(frozen=True)
class Survey:
    """Bytes that one sample takes, measured on one."""

    activations: int
    """Alive at the end of a forward pass, and while its loss is differentiated."""
    held: int
    """Inputs and outputs of the prunable layers."""
    shared: int = 0
    """Held once for all samples of a forward pass, such as weights in a narrower type."""
    sample: int = 0
    """The sample itself: what is put in and what should come out."""
    apart: bool = False
    """Whether gradients must be taken one sample at a time, since layers see some samples only."""


@dataclass(frozen=True)
class Plan:
    """How a run keeps within its memory."""

    batch_size: int
    """Samples in one forward pass."""
    samples: int
    """Samples of a pass, at most."""
    remember: bool
    """Whether the acceptance test remembers activations."""
    limit: int = 0
    """Bytes allowed."""
    parts: dict[str, int] = field(default_factory=dict)
    """Bytes expected, by purpose."""
    apart: bool = False
    """Whether gradients are taken one sample at a time, whatever :attr:`batch_size`."""

    @property
    def needed(self) -> int:
        """Bytes expected in all."""
        return sum(self.parts.values())

    @property
    def together(self) -> int:
        """Samples in one forward pass of which gradients are taken."""
        return 1 if self.apart else self.batch_size

    def __str__(self) -> str:
        return (
            f"memory: about {spell(self.needed)} of {spell(self.limit)} allowed, "
            f"{self.samples} samples a pass, at most {self.together} at a time"
        )

    @property
    def details(self) -> str:
        """Bytes expected by purpose, in words."""
        return ", ".join(f"{what} {spell(size)}" for what, size in self.parts.items() if size)

    def recorded(self) -> dict[str, Any]:
        """Return the decisions as a plain dict, from which a resumed run takes them."""
        return asdict(self)


def survey(model: nn.Module, layers: Sequence[Layer], objective: Objective, one: Samples) -> Survey:
    """Run one sample forward, and two, and add up what their graphs hold.

    Raises
    ------
    DataError
        If a layer does not run, or the loss does not depend on any.
    LayerError
        If a layer does something else than its kind, or runs without gradients.
    """
    # A slice of many samples holds the storage of them all.
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
    """Bytes that the graph of a forward pass holds, and numbers through the layers."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    alive: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            alive[storage.data_ptr()] = storage.nbytes()
        # An output kept by its own operation would be a circle that nothing ever frees.
        return tensor.detach()

    with (
        # Sizes alone matter here, not which sample is which.
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
    # Backward, the largest tensor (the logits, in language models) meets others of its size;
    # as many as were measured on language models.
    return sum(alive.values()) + 4 * max(alive.values(), default=0), taps.numbers


def make_plan(
    model: nn.Module,
    layers: Sequence[Layer],
    found: Survey,
    config: PrunerConfig,
    source: CurvatureSource,
    pool: int,
    held_out: int,
) -> Plan:
    """Choose batch sizes that fit the limit, and whether to remember activations.

    Parameters
    ----------
    model, layers, config
    found : Survey
    source : CurvatureSource
    pool, held_out : int
        Samples for gradients, and for the acceptance test.

    Raises
    ------
    MemoryLimitError
        If not even one sample at a time would fit.
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
    limit = config.max_memory
    if limit is None:
        limit = int(SPARE * free_memory(layers[0].dense.device)) + fixed["model"] + dense
    samples = config.samples_of(pool)
    midway = source.selects_midway and selection_point(SELECTION_SHARE, samples) is not None
    gates = [layer.size for layer in layers]
    if config.block_size == "all":
        gates = [sum(gates)]
    else:
        gates = [min(config.block_size, size) for size in gates]
    sizes = PassSizes(layers, samples, gates, found.held, midway)
    fixed |= {"samples of a pass": samples * found.sample} | source.memory(sizes)
    # Where all layers move at once, every activation changes: there is nothing to remember.
    cache = 2 * held_out * found.held
    remembers = config.acceptance != "pass" and not found.apart and cache <= CACHE
    for remember in sorted({remembers, False}, reverse=True):
        # A trial's activations are held in addition to those of the current state.
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
    """Bytes free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)
