"""Allocation of a global budget of weights to the layers, by score."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from icbs.config import PrunerConfig
from icbs.config.constants import ALLOCATION_FLOOR
from icbs.errors import DensityWarning, LayerError
from icbs.model.finding import density_of
from icbs.model.layer import Layer
from icbs.model.plain import check_mask
from problems.warn import warn

log = logging.getLogger("icbs")


def share_out(layers: Sequence[Layer], scores: Mapping[str, Tensor], config: PrunerConfig) -> None:
    """Set the layers' densities by one global threshold on the scores.

    The total is exact: the density times the weights of all these layers, rounded once. Each layer
    keeps at least a tenth of its uniform share, and at least one weight is pruned. Layers with a
    density in ``densities`` keep it.

    Parameters
    ----------
    layers : sequence of Layer
    scores : mapping of str to Tensor, shape (out, in)
        Importance of each weight, comparable between layers.
    config : PrunerConfig
    """
    open_ = [layer for layer in layers if density_of(layer.name, layer.module, config) is None]
    if not open_:
        return
    low = np.array([max(1, int(ALLOCATION_FLOOR * x.num_keep)) for x in open_])
    high = np.array([layer.size - 1 for layer in open_])
    values = [scores[layer.name].detach().flatten().float().cpu().numpy() for layer in open_]
    kept = threshold(values, shared_budget(open_), low, high)
    for layer, keep in zip(open_, kept, strict=True):
        layer.density = int(keep) / layer.size
    _report(open_, len(layers) - len(open_))


def shared_budget(layers: Sequence[Layer]) -> int:
    """Return how many weights layers with a common budget keep: a share, rounded once.

    Rounded for each layer, the shares of many small ones would miss the density of the model.
    """
    total = round(sum(layer.density * layer.size for layer in layers))
    return min(max(total, len(layers)), sum(layer.size - 1 for layer in layers))


def _report(layers: Sequence[Layer], apart: int) -> None:
    """Log the allocation; warn of layers that keep almost no weights, or almost all."""
    ranked = sorted(layers, key=lambda layer: layer.density)
    log.info(
        "the budget shared out over %d layers: densities from %.3g (%s) to %.3g (%s); %d layers "
        "keep one of their own",
        len(layers),
        ranked[0].density,
        ranked[0].name,
        ranked[-1].density,
        ranked[-1].name,
        apart,
    )
    least = [layer.name for layer in layers if layer.num_keep <= 1]
    most = [layer.name for layer in layers if layer.num_keep >= layer.size - 1]
    for names, what, remedy in (
        (least, "nothing, or a single weight", "give it a density of its own (densities)"),
        (most, "all their weights, or all but one", "exclude them"),
    ):
        if names:
            more = f", … ({len(names)} in all)" if len(names) > 5 else ""
            warn(
                f"the shared budget leaves {', '.join(names[:5])}{more} with {what}; {remedy}, "
                "or give them a density of their own (densities)",
                DensityWarning,
            )


def threshold(
    values: Sequence[npt.NDArray[np.float32]],
    keep: int,
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Count the entries of each array among the ``keep`` largest of all, within bounds.

    Parameters
    ----------
    values : sequence of arrays
    keep : int
        Total count, between the sums of the bounds.
    low, high : array of int
        Minimum and maximum count of each array. If one is active, the remainder is allocated to
        the other arrays.

    Returns
    -------
    array of int
        Sums to ``keep``.
    """
    counts = np.zeros(len(values), dtype=np.int64)
    free = np.ones(len(values), dtype=bool)
    while free.any():
        members = [i for i, is_free in enumerate(free) if is_free]
        counts[members] = _largest([values[i] for i in members], keep - int(counts[~free].sum()))
        under, over = free & (counts < low), free & (counts > high)
        if not (under.any() or over.any()):
            break
        # Fix the side with the larger violation; the other may then be satisfied.
        short, excess = (low - counts)[under].sum(), (counts - high)[over].sum()
        bound, to = (under, low) if short >= excess else (over, high)
        counts[bound] = to[bound]
        free &= ~bound
    return counts


def _largest(values: Sequence[npt.NDArray[np.float32]], keep: int) -> list[int]:
    """Count the entries of each array among the ``keep`` largest; ties go to the first arrays."""
    total = sum(map(len, values))
    if keep >= total:
        return [len(v) for v in values]
    if keep <= 0:
        return [0] * len(values)
    together = np.concatenate(values)
    together.partition(total - keep)
    cut = together[total - keep]
    counts = [int((v > cut).sum()) for v in values]
    left = keep - sum(counts)
    for i, v in enumerate(values):
        tied = min(left, int((v == cut).sum()))
        counts[i] += tied
        left -= tied
    return counts


def adopt(layers: Sequence[Layer], masks: Mapping[str, Tensor], config: PrunerConfig) -> None:
    """Set the layers' densities from given masks.

    Raises
    ------
    LayerError
        If the masks don't keep the required total number of weights.
    """
    given = [layer for layer in layers if layer.name in masks]
    for layer in given:
        check_mask(layer.name, masks[layer.name])
    kept = sum(int(masks[layer.name].sum()) for layer in given)
    own = [x for x in given if density_of(x.name, x.module, config) is not None]
    wanted = shared_budget([x for x in given if x not in own]) + sum(x.num_keep for x in own)
    if kept != wanted:
        raise LayerError(
            f"the masks keep {kept} weights in all, and the density asks for {wanted}; "
            f"set density={kept / sum(layer.size for layer in given):.6g}"
        )
    for layer in given:
        layer.density = int(masks[layer.name].sum()) / layer.size
    if given:
        _report(given, 0)
