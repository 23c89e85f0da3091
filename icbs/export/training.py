"""Masks for further training and for other tools: held at zero, torch's own forms, N:M checks."""

from __future__ import annotations

from collections.abc import Mapping
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

    Gradients of pruned weights are 0, and after each step of any optimiser the weights are set
    to 0 again, which undoes the effects of momentum and decay. No parameter and no key of the
    state dict is added or replaced.

    Layers are looked up by name after each step, so that replaced parameters and layers are
    held too (``load_state_dict(assign=True)``), and so are copies of the model by
    ``copy.deepcopy``. Their gradients are 0 from the first step on.

    Parameters
    ----------
    model : nn.Module
    masks : mapping of str to Tensor of bool
        As for :func:`icbs.apply_masks`, which is applied first.

    Raises
    ------
    LayerError
        If a layer is missing or has another shape; also raised by an optimiser's step, after
        the model has changed.

    Examples
    --------
    >>> with hold_masks(model, masks):  # doctest: +SKIP
    ...     train(model, torch.optim.AdamW(model.parameters()))

    Without ``with``, masks are held until :meth:`release`.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        apply_masks(model, masks)
        self._pruned = {name: ~mask for name, mask in masks.items()}
        self._holds: WeakKeyDictionary[nn.Module, _ModelHold] = WeakKeyDictionary()
        self._step = register_optimizer_step_post_hook(self._after_step)
        self._hold(inside(model)).enforce()

    def release(self) -> None:
        """Stop holding the masks; the weights stay as they are."""
        self._step.remove()
        for model, hold in self._holds.items():
            hold.remove_hooks()
            vars(model).pop(self._key, None)
        self._holds.clear()

    def __enter__(self) -> hold_masks:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def _key(self) -> str:
        return f"_icbs_hold_{id(self)}"

    def _hold(self, model: nn.Module) -> _ModelHold:
        """Hold a model. The hold is one of its attributes, so that it is copied with it."""
        hold = self._holds[model] = vars(model)[self._key] = _ModelHold(self, model)
        return hold

    def _after_step(self, *_: Any) -> None:
        for hold in list(self._holds.values()):
            hold.enforce()


class _ModelHold:
    """The held weights of one model, and the hooks on their gradients."""

    def __init__(self, owner: hold_masks, model: nn.Module) -> None:
        self.owner, self.model = owner, ref(model)
        self.held: dict[str, tuple[Tensor, Any]] = {}

    @torch.no_grad()
    def enforce(self) -> None:
        """Set the pruned weights of the layers' current parameters to 0."""
        model = self.model()
        modules = {} if model is None else modules_of(model)
        for name, pruned in self.owner._pruned.items():
            weight = modules[name]._parameters.get("weight") if name in modules else None
            if weight is None or weight.shape != pruned.shape:
                there = "no weight" if weight is None else f"a weight of {tuple(weight.shape)}"
                raise LayerError(
                    f"hold_masks holds a weight of {tuple(pruned.shape)} in layer {name!r}, which "
                    f"has {there} now; call release() before changing the model"
                )
            before, handle = self.held.get(name, (None, None))
            if weight is not before:
                if handle is not None:
                    handle.remove()
                trained = weight.requires_grad
                handle = weight.register_hook(_zero_where(pruned)) if trained else None
                self.held[name] = weight, handle
            weight.masked_fill_(pruned.to(weight.device), 0)

    def remove_hooks(self) -> None:
        """Remove the hooks on gradients."""
        for _, handle in self.held.values():
            if handle is not None:
                handle.remove()
        self.held.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> _ModelHold | None:
        # The model's copy exists already; its attributes are set after this.
        copy = memo.get(id(self.model()))
        return None if copy is None else self.owner._hold(copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # pickled models are not held


def to_torch_pruning(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Convert masks to the parametrisation of ``torch.nn.utils.prune``, in place.

    Each layer gets ``weight_orig`` (a parameter) and ``weight_mask`` (a buffer), and
    ``weight`` is their product; ``torch.nn.utils.prune.remove`` undoes it. The model can be
    deep-copied until its first forward pass with gradients, after which ``weight`` is not a
    leaf of the graph.

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
        module.weight = product.detach()  # not in a graph until the layer runs


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
        Needed for masks of another shape: of convolutions, and of transformers' ``Conv1D``,
        whose weights are (in, out).

    Raises
    ------
    LayerError
        If a mask does not have the pattern, or ``of`` does not divide its width.
    ConfigError
        If ``keep`` and ``of`` are not a pattern.
    """
    if not (of >= 1 and 0 <= keep <= of):
        raise ConfigError(f"keep={keep}, of={of} is not a pattern; choose 0 ≤ keep ≤ of, of ≥ 1")
    modules = {} if model is None else modules_of(model)
    for name, mask in masks.items():
        check_mask(name, mask)
        kind = kind_of(modules[name]) if name in modules else None
        if kind is not None:
            mask = kind.matrix(mask)
        if mask.ndim != 2 or mask.shape[1] % of:
            raise LayerError(
                f"the mask of {name!r} has shape {tuple(mask.shape)}; N:M needs (out, in), the "
                f"second a multiple of {of}; pass model for weights of other layouts"
            )
        kept = mask.reshape(len(mask), -1, of).sum(dim=2)
        if bad := int((kept > keep).sum()):
            raise LayerError(
                f"{bad} of the {kept.numel()} groups of {of} in {name!r} keep more than {keep}; "
                f"prune with the constraint '{keep}:{of}'"
            )


def _zero_where(pruned: Tensor) -> Any:
    return lambda gradient: gradient.masked_fill(pruned.to(gradient.device), 0)
