"""Scores: how much a weight is worth keeping, and the masks that follow from them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from icbs.config import Scope
from icbs.config.constraints import Pattern
from icbs.curvature.passes import Pass
from icbs.model.layer import Layer

Score = Callable[[Layer, Pass, torch.Generator], Tensor]


def magnitude(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``|w|``, shape (out, in)."""
    return layer.dense.abs()


def wanda(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``|w_ij| ‖X_j‖₂``, shape (out, in) (Wanda, arXiv 2306.11695, equation 1)."""
    return layer.dense.abs() * information.squares[layer.name].sqrt()


def gradient(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``|w ∘ ḡ|``: size of the first-order change of the loss, shape (out, in)."""
    return (layer.dense * information.gradients[layer.name]).abs()


def taylor(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``-w ∘ ḡ``: the loss saved, to first order, by keeping the weight, shape (out, in).

    Signed, unlike :func:`gradient`: a pruned weight whose return would *raise* the loss is
    no candidate, however large its gradient.
    """
    return -layer.dense * information.gradients[layer.name]


def random(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), shape (out, in)."""
    drawn = torch.rand(layer.shape, generator=generator)
    return drawn.to(layer.dense.device)


def initial_mask(scores: Tensor, keep: int, scope: Scope, pattern: Pattern | None = None) -> Tensor:
    """Prune all but the ``keep`` best weights of a layer.

    Parameters
    ----------
    scores : Tensor, shape (out, in)
    keep : int
        Weights kept in the layer, exactly, whatever the scope.
    scope : {"layer", "output", "input"}
        Whom a weight is compared with. Each output (input) keeps the same number; where
        ``keep`` does not divide, those whose next score is best keep one more.
    pattern : Pattern, optional
        N:M: a weight is compared with its run, and the rest has no say.

    Returns
    -------
    Tensor of bool, shape (out · in,)
        True where pruned.
    """
    if pattern is not None:
        return ~pattern.mask(scores).flatten()
    if scope == "layer":
        kept = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
        kept[scores.flatten().topk(keep).indices] = True
        return ~kept
    lines = scores if scope == "output" else scores.T
    order = lines.argsort(dim=1, descending=True, stable=True)
    share, rest = divmod(keep, len(lines))
    chosen = torch.zeros_like(lines, dtype=torch.bool)
    chosen.scatter_(1, order[:, :share], True)
    if rest:
        following = order[:, share]
        each = torch.arange(len(lines), device=scores.device)
        best = lines[each, following].topk(rest).indices
        chosen[best, following[best]] = True
    kept = chosen if scope == "output" else chosen.T
    return ~kept.flatten()


def movable(scores: Tensor, pruned: Tensor, fix_prune: float, fix_keep: float) -> Tensor:
    """Weights that may change sides: all but the fixed extremes.

    Parameters
    ----------
    scores : Tensor, shape (out, in)
    pruned : Tensor of bool, shape (out · in,)
    fix_prune, fix_keep : float
        Share of the pruned weights with the lowest scores, and of the kept ones with the
        highest, that stay where they are.

    Returns
    -------
    Tensor of bool, shape (out · in,)
    """
    free = torch.ones_like(pruned)
    flat = scores.flatten()
    for side, share, lowest in ((pruned, fix_prune, True), (~pruned, fix_keep, False)):
        members = side.nonzero().squeeze(1)
        count = int(share * len(members))
        fixed = flat[members].topk(count, largest=not lowest).indices
        free[members[fixed]] = False
    return free
