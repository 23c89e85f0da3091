"""Contexts for pruning and measuring: evaluation mode, no wrappers, no caches, no fast paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from icbs.errors import TrainingModeWarning
from icbs.model.wrappers import unwrapped
from problems.warn import warn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model in evaluation mode within the context; warn if that changes its outputs.

    Yields
    ------
    nn.Module
        The model without wrappers (see :func:`icbs.model.wrappers.unwrapped`), in which hooks
        run and layers have plain names.

    Raises
    ------
    LayerError
        If the model does not run as modules: exported, scripted or sharded.
    """
    with unwrapped(model) as plain, _evaluating(plain):
        yield plain


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    noisy = sorted({type(m).__name__ for m in flags if flags[m] and _depends_on_mode(m)})
    if noisy:
        warn(
            f"the model is in training mode and has {', '.join(noisy)}: it is pruned and "
            "measured in evaluation mode, and returned to training mode afterwards",
            TrainingModeWarning,
        )
    model.eval()
    try:
        with without_cache(model), without_fast_paths():
            yield
    finally:
        for module, training in flags.items():
            module.training = training


def _depends_on_mode(module: nn.Module) -> bool:
    batch_norm = nn.modules.batchnorm._BatchNorm
    dropout = nn.modules.dropout._DropoutNd
    return isinstance(module, batch_norm | dropout)


@contextmanager
def without_fast_paths() -> Iterator[None]:
    """Make torch's own transformer layers call their submodules instead of fused kernels."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Switch off the cache of keys and values, which a second forward pass would extend.

    A language model may be a part of the model, or have parts with their own configurations
    (encoder and decoder, text and vision models): the cache is switched off in all of them.
    """
    changed: list[tuple[Any, Any]] = []
    try:
        for config in _configs(model):
            if value := getattr(config, "use_cache", False):
                with suppress(AttributeError):  # a frozen configuration keeps its cache
                    config.use_cache = False
                    changed.append((config, value))
        yield
    finally:
        for config, value in changed:
            config.use_cache = value


def _configs(model: nn.Module) -> list[Any]:
    """Return the configurations of all modules, with nested ones, each once."""
    found: dict[int, Any] = {}
    left = [getattr(module, "config", None) for module in model.modules()]
    while left:
        config = left.pop()
        if id(config) in found or not hasattr(config, "__dict__"):
            continue
        found[id(config)] = config
        left += [value for value in vars(config).values() if hasattr(value, "use_cache")]
    return list(found.values())
