"""Models are pruned, and measured, in evaluation mode and without caches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from icbs.errors import TrainingModeWarning


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode within the context, and say so where it matters."""
    flags = {module: module.training for module in model.modules()}
    noisy = sorted({type(m).__name__ for m in flags if flags[m] and _depends_on_mode(m)})
    if noisy:
        warnings.warn(
            f"the model is in training mode and has {', '.join(noisy)}: it is pruned and "
            "measured in evaluation mode, and handed back in training mode",
            TrainingModeWarning,
            stacklevel=4,
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
    """Keep torch's own transformer layers from computing past the layers that they are made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Keep a language model from caching keys and values, which a second run would extend."""
    config: Any = getattr(model, "config", None)
    if not getattr(config, "use_cache", False):
        yield
        return
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = True
