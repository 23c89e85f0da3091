"""Masks that stay: through fine-tuning, and in the forms that torch itself knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.optimizer import register_optimizer_step_post_hook

from icbs.errors import ConfigError, LayerError
from icbs.export.masks import apply_masks, masked_weights
from icbs.model.kinds import kind_of
from icbs.model.plain import check_mask
from icbs.model.wrappers import inside, modules_of


class hold_masks:  # noqa: N801
    """Keep a model's pruned weights at exactly 0 while the others are trained.

    From the call on, gradients of pruned weights are 0, and after each step of any
    optimiser they are set to 0 again, whatever its momentum or decay has made of them. The
    model's parameters and its state dict stay as they are.

    Layers are looked up by name after each step, so that parameters and layers that have been
    put in the place of others are held too (``load_state_dict(assign=True)``), and so are
    copies of the model that ``copy.deepcopy`` makes meanwhile. Their gradients are 0 from
    the first step on.

    Parameters
    ----------
    model : nn.Module
    masks : mapping of str to Tensor of bool
        As for :func:`icbs.apply_masks`, which is applied first.

    Raises
    ------
    LayerError
        If a layer is missing or has another shape; from an optimiser's step, if it has come
        to that since.

    Examples
    --------
    >>> with hold_masks(model, masks):  # doctest: +SKIP
    ...     train(model, torch.optim.AdamW(model.parameters()))

    Outside of a ``with`` the hold lasts until :meth:`release`.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        apply_masks(model, masks)
        self._pruned = {name: ~mask for name, mask in masks.items()}
        self._grips: WeakKeyDictionary[nn.Module, _Grip] = WeakKeyDictionary()
        self._step = register_optimizer_step_post_hook(self._after_step)
        self._take(inside(model)).enforce()

    def release(self) -> None:
        """Let go; the weights stay as they are."""
        self._step.remove()
        for model, grip in self._grips.items():
            grip.let_go()
            vars(model).pop(self._key, None)
        self._grips.clear()

    def __enter__(self) -> hold_masks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def _key(self) -> str:
        return f"_icbs_hold_{id(self)}"

    def _take(self, model: nn.Module) -> _Grip:
        """Hold a model; as one of its attributes, the grip is copied where the model is."""
        grip = self._grips[model] = vars(model)[self._key] = _Grip(self, model)
        return grip

    def _after_step(self, *_: Any) -> None:
        for grip in list(self._grips.values()):
            grip.enforce()


class _Grip:
    """Hold of one model: the weights of the moment, and the hooks on their gradients."""

    def __init__(self, hold: hold_masks, model: nn.Module) -> None:
        self.hold, self.model = hold, ref(model)
        self.held: dict[str, tuple[Tensor, Any]] = {}

    @torch.no_grad()
    def enforce(self) -> None:
        """Set pruned weights to 0, whichever parameters are in their layers now."""
        model = self.model()
        modules = {} if model is None else modules_of(model)
        for name, pruned in self.hold._pruned.items():
            weight = modules[name]._parameters.get("weight") if name in modules else None
            if weight is None or weight.shape != pruned.shape:
                there = "no weight" if weight is None else f"a weight of {tuple(weight.shape)}"
                raise LayerError(
                    f"hold_masks holds a weight of {tuple(pruned.shape)} in layer {name!r}, and "
                    f"there is {there} now; release the hold before the model is changed"
                )
            before, handle = self.held.get(name, (None, None))
            if weight is not before:
                if handle is not None:
                    handle.remove()
                asks = weight.requires_grad
                handle = weight.register_hook(_zero_where(pruned)) if asks else None
                self.held[name] = weight, handle
            weight.masked_fill_(pruned.to(weight.device), 0)

    def let_go(self) -> None:
        """Take the hooks off."""
        for _, handle in self.held.values():
            if handle is not None:
                handle.remove()
        self.held.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Grip | None:
        # The copy of the model is there already, and filled after this.
        copy = memo.get(id(self.model()))
        return None if copy is None else self.hold._take(copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # what is pickled is not held


def to_torch_pruning(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Turn masks into the parametrisation of ``torch.nn.utils.prune``, in place.

    Each layer gets ``weight_orig`` (a parameter) and ``weight_mask`` (a buffer), and
    ``weight`` is their product; ``torch.nn.utils.prune.remove`` undoes it. The model can be
    deep-copied until it runs with gradients: that leaves a product in the graph, which torch
    does not copy.

    Raises
    ------
    LayerError
        If a layer is missing or has another shape.
    """
    modules = modules_of(model)
    for name, (_, pruned) in masked_weights(model, masks).items():
        module = modules[name]
        prune.custom_from_mask(module, "weight", ~pruned)
        product: Any = module.weight
        module.weight = product.detach()  # in no graph until the layer runs


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
    modules = {} if model is None else modules_of(model)
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
