"""The mask of lowest loss among all masks of a density, by evaluating every one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.config.constants import MAX_SAMPLES
from icbs.data.objective import Loss, Objective
from icbs.data.samples import diverse_samples, read_samples
from icbs.enumeration.mask_losses import MaskLosses
from icbs.enumeration.mask_set import MAX_MASKS, MaskSet
from icbs.model.finding import find_layers
from icbs.model.modes import evaluation_mode
from icbs.model.wrappers import inside

Callback = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class TrueOptimum:
    """The best of all masks with the same numbers of kept weights, and the losses of all."""

    masks: dict[str, Tensor]
    """Layer name → best mask, True where the weight is kept, in the shape of the weight."""
    loss: float
    """Training loss of these masks, over all samples."""
    losses: npt.NDArray[np.float64] = field(repr=False)
    """Training losses of all masks, shape (number of masks,), in the order of ``mask_set``."""
    mask_set: MaskSet = field(repr=False)
    mask_losses: MaskLosses = field(repr=False)

    def loss_of(self, masks: Mapping[str, Tensor]) -> float:
        """Return the training loss of other masks, over the same samples.

        Parameters
        ----------
        masks : mapping of str to Tensor of bool
            One for each pruned layer, True where the weight is kept; of any density.
        """
        layers = self.mask_losses.layers
        flat = [layer.kind.matrix(masks[layer.name]).flatten() for layer in layers]
        return float(self.mask_losses(torch.cat(flat)[None])[0])

    def rank(self, loss: float) -> int:
        """Return the rank of a loss among all masks: 1 for the optimum.

        Losses that differ by rounding count as equal.
        """
        dtype = self.mask_losses.layers[0].dense.dtype
        rounding = 16 * torch.finfo(dtype).eps * max(1.0, abs(loss))
        return 1 + int((self.losses < loss - rounding).sum())

    def share(self, start: float, loss: float) -> float:
        """Return the achieved share of the possible decrease of the loss.

        Parameters
        ----------
        start : float
            Training loss at the start.
        loss : float
            Training loss that was reached.

        Returns
        -------
        float
            ``(start - loss) / (start - optimum)``; NaN if the start is the optimum.
        """
        possible = start - self.loss
        return (start - loss) / possible if possible > 0 else float("nan")


def true_optimum(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    masks: Mapping[str, Tensor] | None = None,
    max_masks: int = MAX_MASKS,
    callback: Callback | None = None,
    **settings: Any,
) -> TrueOptimum:
    """Find the masks of lowest training loss, by evaluating all masks of a density.

    It answers how good a quadratic model of the loss and a solver are, for models of some two
    dozen weights: 24 weights have 2.7 million masks of density 0.5, which takes a minute or two.

    Parameters
    ----------
    model, batches, loss
        As for :meth:`icbs.Pruner.prune`; the model is dense, and stays as it is.
    masks : mapping of str to Tensor of bool, optional
        Masks whose numbers of kept weights hold, instead of those of the density: one number
        for each layer, in total with ``allocation="global"``, or for each unit of the
        ``constraint``.
    max_masks : int, default 5,000,000
        Largest number of masks that are evaluated.
    callback : callable, optional
        ``callback(done, total)``, numbers of masks, while it continues.
    **settings
        Settings of the pruner, of which those of layers and density count; see
        :class:`icbs.PrunerConfig`.

    Returns
    -------
    TrueOptimum

    Raises
    ------
    ConfigError
        If there are more masks than ``max_masks``; the message has their number.
    LayerError, DataError
        For a model, masks or samples that can't be used; see :meth:`icbs.Pruner.prune`.

    Examples
    --------
    >>> optimum = true_optimum(model, batches, loss, density=0.5)  # doctest: +SKIP
    >>> optimum.loss, optimum.rank(optimum.loss_of(result.masks))  # doctest: +SKIP
    """
    config = PrunerConfig.of(**settings)
    with evaluation_mode(model) as plain:  # refused before the model is copied
        MaskSet.of(find_layers(plain, config), config, masks).check(max_masks)
    subject = copy.deepcopy(inside(model)).eval()
    with evaluation_mode(subject) as plain:
        layers = find_layers(plain, config)
        mask_set = MaskSet.of(layers, config, masks)
        samples = read_samples(batches, MAX_SAMPLES)
        few = samples[diverse_samples(samples, 4, config.seed, Objective(loss).ignored)]
        few = few.to(layers[0].dense.device)
        objective = Objective.check(loss, plain, few, samples.targets)
        objective.compute_in(config.precision, layers[0].dense.device)
        evaluate = MaskLosses(subject, layers, objective, samples)
        count, step = mask_set.count, evaluate.masks_at_once
        losses = np.empty(count)
        for first in range(0, count, step):
            last = min(first + step, count)
            keep = torch.from_numpy(mask_set.masks(first, last))
            losses[first:last] = evaluate(keep).cpu().numpy()
            if callback is not None:
                callback(last, count)
        best = int(np.nanargmin(losses))
        keep = torch.from_numpy(mask_set.masks(best, best + 1)[0])
        pieces = keep.split([layer.size for layer in layers])
        found = {
            layer.name: layer.kind.shaped(piece.view(layer.shape)).contiguous()
            for layer, piece in zip(layers, pieces, strict=True)
        }
    return TrueOptimum(found, float(losses[best]), losses, mask_set, evaluate)
