"""One call for every baseline: dense model and calibration samples in, pruned model out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig, Scope
from icbs.config.constants import MAX_SAMPLES
from icbs.data.samples import read_samples
from icbs.errors import ConfigError
from icbs.layerwise.sweep import Method, keep_best, pieces_of, sweep
from icbs.model.coverage import Coverage
from icbs.model.finding import find_layers
from icbs.model.modes import evaluation_mode
from problems.suggest import did_you_mean


@dataclass(frozen=True)
class Baseline:
    """What a baseline made of a model."""

    method: str
    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, as ``Pruner.prune`` takes them."""
    density: float
    """Share of the prunable weights that is kept."""
    seconds: float
    model_density: float
    """Share of all matrix weights that is kept, those left dense among them."""
    left_dense: dict[str, int]
    """Parameter → number of weights, of all matrix weights that are left dense."""


def prune(
    model: nn.Module,
    batches: Iterable[Any] | None,
    method: Method = "wanda",
    *,
    density: float | None = None,
    pattern: str | None = None,
    update: bool = True,
    compare: Scope | None = None,
    batch_size: int | None = None,
    max_samples: int = MAX_SAMPLES,
    callback: Callable[[int, int], object] | None = None,
    **settings: Any,
) -> Baseline:
    """Prune a model in place by a method that needs no gradients.

    - ``magnitude``: keep the largest ``|w|`` of each layer.
    - ``wanda``: keep the largest ``|w_ij| ‖X_j‖₂`` of each output (arXiv 2306.11695).
    - ``exchange``: from Wanda's mask, exchange weights of an output as long as that lowers
      the error of the layer's output; see :func:`icbs.layerwise.exchange`.
    - ``sparsegpt``: see :func:`icbs.layerwise.sparsegpt` (arXiv 2301.00774).

    All but the first take the layers in the order in which they run, each with the inputs
    that the pruned ones before it give; the layers of a decoder block are pruned together.
    Padding never counts.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of (inputs, targets), or None
        Calibration samples, as for :meth:`icbs.Pruner.prune`; ``magnitude`` needs none.
    method : {"magnitude", "wanda", "exchange", "sparsegpt"}
    density : float, optional
        Share of weights kept; exact in each layer, and for ``wanda`` and ``exchange`` in each
        output.
    pattern : str, optional
        N:M in place of a density, such as ``"2:4"``.
    update : bool, default True
        Whether SparseGPT's new values of the surviving weights stay. Without them its mask
        alone is applied, and dense weights survive.
    compare : {"layer", "output", "input"}, optional
        Whom a weight is compared with: by default the layer for ``magnitude``, the output
        for ``wanda`` and ``exchange``. SparseGPT compares within blocks of columns.
    batch_size : int, optional
        Samples run at a time; by default some thousand positions.
    max_samples : int, default 65536
        Calibration samples read, at most.
    callback : callable, optional
        ``callback(done, layers)`` after each layer.
    **settings
        ``densities``, ``include`` and ``exclude``, as in :class:`icbs.PrunerConfig`.

    Returns
    -------
    Baseline

    Raises
    ------
    ConfigError, LayerError, DataError
        Before the model is touched, or with the model as it was.
    """
    began = time.perf_counter()
    config = _config(method, density, pattern, compare, batches, settings)
    with evaluation_mode(model) as plain:
        layers = find_layers(plain, config)
        coverage = Coverage.of(plain, layers)
        coverage.tell(layers, config)
        if method == "magnitude":
            for layer in layers:
                keep_best(layer, layer.dense.abs(), config)
        else:
            assert batches is not None
            samples = read_samples(batches, max_samples)
            pieces = pieces_of(samples, batch_size, layers[0].dense.device)
            try:
                sweep(plain, layers, pieces, method, config, update=update, callback=callback)
            except BaseException:
                for layer in layers:
                    layer.set_mask(torch.zeros_like(layer.pruned))
                raise
    kept, size = sum(layer.num_kept for layer in layers), sum(layer.size for layer in layers)
    masks = {layer.name: layer.mask for layer in layers}
    seconds, whole = time.perf_counter() - began, coverage.density(kept)
    return Baseline(method, masks, kept / size, seconds, whole, coverage.left_dense)


def _config(
    method: str,
    density: float | None,
    pattern: str | None,
    compare: Scope | None,
    batches: Iterable[Any] | None,
    settings: dict[str, Any],
) -> PrunerConfig:
    """Check what was asked for."""
    if method not in get_args(Method):
        methods = get_args(Method)
        near = did_you_mean(method, methods)
        raise ConfigError(f"unknown method {method!r}{near}; choose of {', '.join(methods)}")
    if method != "magnitude" and batches is None:
        raise ConfigError(f"{method} needs calibration samples; pass batches")
    known = ("densities", "include", "exclude")
    if unknown := [name for name in settings if name not in known]:
        near = did_you_mean(unknown[0], known)
        raise ConfigError(
            f"unknown setting {unknown[0]!r}{near}; the settings are: {', '.join(known)}"
        )
    chosen: dict[str, Any] = dict(settings)
    if density is not None:
        chosen["density"] = density
    if pattern is not None:
        chosen["constraint"] = pattern
    if density is None and pattern is None:
        raise ConfigError("say how much to keep: density=0.5, or pattern='2:4'")
    chosen["compare"] = compare or ("output" if method in ("wanda", "exchange") else "layer")
    return PrunerConfig.of(**chosen)
