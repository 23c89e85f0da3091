"""Network Slimming: channels by their batch normalisation's scale, trained with an L1 penalty.

Liu et al. 2017, arXiv 1708.06519: the loss gets ``λ Σ |γ|`` over all scales, so that unimportant
channels end near 0; channels below one global threshold are pruned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.groups.scores import GroupInformation
from icbs.model.wrappers import inside, modules_of

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class shrink_scales:  # noqa: N801
    """Add the subgradient ``λ sign(γ)`` to the gradients of all batch-normalisation scales.

    Parameters
    ----------
    model : nn.Module
        Trained within the context by any optimiser.
    strength : float, default 1e-4
        λ: 1e-4 for VGG, 1e-5 for residual networks in the paper.

    Raises
    ------
    LayerError
        If the model has no batch normalisation with a scale.

    Examples
    --------
    >>> with shrink_scales(model, 1e-4):  # doctest: +SKIP
    ...     train(model, torch.optim.SGD(model.parameters(), 0.1))
    """

    def __init__(self, model: nn.Module, strength: float = 1e-4) -> None:
        if not strength >= 0:
            raise ValueError(f"strength is {strength!r}; it must be at least 0")
        scales = [
            module.weight
            for module in inside(model).modules()
            if isinstance(module, NORMALISATIONS) and module.weight is not None
        ]
        if not scales:
            raise LayerError("the model has no batch normalisation with a scale to shrink")
        self.strength = strength
        self._handles = [scale.register_hook(self._added(scale)) for scale in scales]

    def _added(self, scale: Tensor) -> Any:
        return lambda gradient: gradient + self.strength * torch.sign(scale.detach())

    def release(self) -> None:
        """Stop adding the subgradient."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> shrink_scales:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def slimming(information: GroupInformation) -> npt.NDArray[np.float64]:
    """``Σ |γ|`` over the channels of a group, of the batch normalisations on its way.

    Raises
    ------
    LayerError
        If a dimension has no batch normalisation between its writers and its readers.
    """
    grouping = information.grouping
    modules = modules_of(information.context.model)
    found = np.zeros(grouping.count)
    for own, span in zip(grouping.sets, grouping.spans, strict=True):
        scales = [] if own.dimension is None else own.dimension.between
        known = [s for s in scales if isinstance(modules[s.module], NORMALISATIONS)]
        if not known:
            raise LayerError(
                f"{own.name!r} has no batch normalisation, whose scales initial='slimming' needs; "
                "exclude it, or use another score"
            )
        for one in known:
            scale: Any = modules[one.module].weight
            sums = scale.detach().double().abs()[one.index.to(scale.device)].sum(dim=1)
            found[span] += sums.cpu().numpy()
    return found
