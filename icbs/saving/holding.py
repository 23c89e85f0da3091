"""Masks that stay: through fine-tuning, and in the forms that torch itself knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.optimizer import register_optimizer_step_post_hook

from icbs.errors import ConfigError, LayerError
from icbs.layers.kinds import kind_of
from icbs.saving.masks import apply_masks, masked_weights
from icbs.saving.values import check_mask


class hold_masks:  # noqa: N801
    """Keep a model's pruned weights at exactly 0 while the others are trained.

    From the call on, gradients of pruned weights are 0, and after each step of any
    optimiser they are set to 0 again, whatever its momentum or decay has made of them. The
    model's parameters and its state dict stay as they are.

    Parameters
    ----------
    model : nn.Module
    masks : mapping of str to Tensor of bool
        As for :func:`icbs.apply_masks`, which is applied first.

    Raises
    ------
    LayerError
        If a layer is missing or has another shape.

    Examples
    --------
    >>> with hold_masks(model, masks):  # doctest: +SKIP
    ...     train(model, torch.optim.AdamW(model.parameters()))

    Outside of a ``with`` the hold lasts until :meth:`release`.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        apply_masks(model, masks)
        self._held = list(masked_weights(model, masks).values())
        self._handles: list[Any] = [register_optimizer_step_post_hook(self._after_step)]
        for weight, pruned in self._held:
            if weight.requires_grad:
                self._handles.append(weight.register_hook(_zero_where(pruned)))

    def release(self) -> None:
        """Let go; the weights stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> hold_masks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        for weight, pruned in self._held:
            weight.masked_fill_(pruned.to(weight.device), 0)


def to_torch_pruning(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Turn masks into the parametrisation of ``torch.nn.utils.prune``, in place.

    Each layer gets ``weight_orig`` (a parameter) and ``weight_mask`` (a buffer), and
    ``weight`` is their product; ``torch.nn.utils.prune.remove`` undoes it.

    Raises
    ------
    LayerError
        If a layer is missing or has another shape.
    """
    modules = dict(model.named_modules())
    for name, (_, pruned) in masked_weights(model, masks).items():
        prune.custom_from_mask(modules[name], "weight", ~pruned)


def check_pattern(
    masks: Mapping[str, Tensor], keep: int = 2, of: int = 4, model: nn.Module | None = None
) -> None:
    """Check an N:M pattern: at most ``keep`` of every ``of`` weights along the input are kept.

    2:4 is what ``torch.sparse.to_sparse_semi_structured`` compresses, for weights of a
    16-bit type on a CUDA device.

    Parameters
    ----------
    masks : mapping of str to Tensor of bool, each of shape (out, in)
    keep, of : int
    model : nn.Module, optional
        Needed where masks have another shape: of convolutions, and of transformers' ``Conv1D``,
        whose weights are (in, out).

    Raises
    ------
    LayerError
        If a mask does not have the pattern, or ``of`` does not divide its width.
    ConfigError
        If there is no such pattern.
    """
    if not (of >= 1 and 0 <= keep <= of):
        raise ConfigError(f"keep={keep}, of={of} is no pattern; choose 0 ≤ keep ≤ of")
    modules = {} if model is None else dict(model.named_modules())
    for name, mask in masks.items():
        check_mask(name, mask)
        kind = kind_of(modules[name]) if name in modules else None
        if kind is not None:
            mask = kind.matrix(mask)
        if mask.ndim != 2 or mask.shape[1] % of:
            raise LayerError(
                f"the mask of {name!r} has shape {tuple(mask.shape)}; runs of {of} along the "
                f"input need (out, in) with a multiple of {of}; for other weights pass the model"
            )
        kept = mask.reshape(len(mask), -1, of).sum(dim=2)
        if bad := int((kept > keep).sum()):
            raise LayerError(
                f"{bad} of the {kept.numel()} runs of {of} in {name!r} keep more than {keep}; "
                f"prune with the constraint '{keep}:{of}'"
            )


def _zero_where(pruned: Tensor) -> Any:
    return lambda gradient: gradient.masked_fill(pruned.to(gradient.device), 0)
