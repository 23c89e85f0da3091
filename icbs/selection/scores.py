"""Scores of the importance of weights, and initial masks from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from icbs.config import PrunerConfig, Scope
from icbs.config.constraints import Pattern
from icbs.curvature.passes import Pass
from icbs.model.layer import Layer
from icbs.plugins import SCORES

Score = Callable[[Layer, Pass, torch.Generator], Tensor]


def make_score(name: str, config: PrunerConfig) -> Score:
    """Return a score by name; scores that are classes are made with the settings.

    Raises
    ------
    ConfigError
        For an unknown name, or settings that the score can't use.
    """
    found = SCORES.get(name)
    score: Score = found(config) if isinstance(found, type) else found
    return score


def check_layers(score: Score | None, layers: Sequence[Layer]) -> None:
    """Let a score with data of its own refuse layers that these are not made for.

    Raises
    ------
    LayerError
    """
    if (check := getattr(score, "check", None)) is not None:
        check(layers)


def magnitude(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``|w|``, shape (out, in)."""
    return layer.dense.abs()


def wanda(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``|w_ij| ‖X_j‖₂``, shape (out, in) (Wanda, arXiv 2306.11695, equation 1)."""
    return layer.dense.abs() * information.squares[layer.name].sqrt()


def gradient(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``|w ∘ ḡ|``: magnitude of the first-order change of the loss, shape (out, in)."""
    return (layer.dense * information.gradients[layer.name]).abs()


def taylor(layer: Layer, information: Pass, generator: torch.Generator) -> Tensor:
    """``-w ∘ ḡ``: first-order decrease of the loss if the weight is kept, shape (out, in).

    Signed, unlike :func:`gradient`: a pruned weight whose restoration would *increase* the loss
    ranks low, even if its gradient is large.
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
        Exact number of weights kept in the layer, for every scope.
    scope : {"layer", "output", "input"}
        Unit within which weights are compared. Each output (input) keeps the same number; if
        ``keep`` is not divisible, those with the best next score keep one more.
    pattern : Pattern, optional
        N:M: weights are compared within their run; ``keep`` and ``scope`` are ignored.

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
    """Weights that may move: all but the fixed extremes.

    Parameters
    ----------
    scores : Tensor, shape (out, in)
    pruned : Tensor of bool, shape (out · in,)
    fix_prune, fix_keep : float
        Share of the pruned weights with the lowest scores, and of the kept ones with the
        highest, that stay fixed.

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
