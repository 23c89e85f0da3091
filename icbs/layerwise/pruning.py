"""Layer-wise pruning of a whole model in one call."""

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
class LayerwiseResult:
    """Masks and figures of a layer-wise pruning."""

    method: str
    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, as for ``Pruner.prune``."""
    density: float
    """Share of the prunable weights that is kept."""
    seconds: float
    model_density: float
    """Share of all matrix weights that is kept, including those left dense."""
    left_dense: dict[str, int]
    """Parameter → number of weights, for all matrices that are left dense."""


def prune_layerwise(
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
) -> LayerwiseResult:
    """Prune a model in place by a method without gradients.

    - ``magnitude``: keep the largest ``|w|`` of each layer.
    - ``wanda``: keep the largest ``|w_ij| ‖X_j‖₂`` of each output (arXiv 2306.11695).
    - ``exchange``: start from Wanda's mask and exchange weights of an output as long as that
      lowers the error of the layer's output;
      see :func:`icbs.layerwise.weight_exchange.exchange_weights`.
    - ``sparsegpt``: see :func:`icbs.layerwise.sparsegpt` (arXiv 2301.00774).
    - ``alps``: see :func:`icbs.layerwise.alps` (arXiv 2406.07831).
    - ``compensated-exchange``: start from SparseGPT's mask and exchange weights of an output, with
      its other weights at their best values;
      see :func:`icbs.layerwise.exchange_compensated`.

    All but ``magnitude`` prune the layers in the order of execution, each with the inputs
    computed by the pruned layers before it; the layers of a decoder block are pruned together.
    Padding is ignored.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of (inputs, targets), or None
        Calibration samples, as for :meth:`icbs.Pruner.prune`; not needed for ``magnitude``.
    method : {"magnitude", "wanda", "exchange", "sparsegpt", "alps", "compensated-exchange"}
    density : float, optional
        Share of weights kept; exact in each layer, and for ``wanda`` and ``exchange`` in each
        output.
    pattern : str, optional
        N:M instead of a density, such as ``"2:4"``.
    update : bool, default True
        Whether the new values that SparseGPT, ALPS or ``compensated-exchange`` give to the kept
        weights are used; otherwise the mask is applied to the dense weights.
    compare : {"layer", "output", "input"}, optional
        Group within which weights are ranked: by default the layer for ``magnitude``, the
        output for ``wanda`` and ``exchange``. SparseGPT ranks within blocks of columns,
        ALPS within the layer.
    batch_size : int, optional
        Samples in a forward pass; by default a few thousand positions.
    max_samples : int, default 65536
        Largest number of calibration samples.
    callback : callable, optional
        ``callback(done, layers)`` after each layer.
    **settings
        ``densities``, ``include`` and ``exclude``, as in :class:`icbs.PrunerConfig`.

    Returns
    -------
    LayerwiseResult

    Raises
    ------
    ConfigError, LayerError, DataError
        The model's weights are unchanged then.
    """
    start = time.perf_counter()
    config = _config(method, density, pattern, compare, batches, settings)
    with evaluation_mode(model) as plain:
        layers = find_layers(plain, config)
        coverage = Coverage.of(plain, layers)
        coverage.report(layers, config)
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
    seconds, model_density = time.perf_counter() - start, coverage.density(kept)
    return LayerwiseResult(method, masks, kept / size, seconds, model_density, coverage.left_dense)


def _config(
    method: str,
    density: float | None,
    pattern: str | None,
    compare: Scope | None,
    batches: Iterable[Any] | None,
    settings: dict[str, Any],
) -> PrunerConfig:
    """Check the arguments and return them as a configuration."""
    if method not in get_args(Method):
        methods = get_args(Method)
        near = did_you_mean(method, methods)
        raise ConfigError(f"unknown method {method!r}{near}; choose from {', '.join(methods)}")
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
        raise ConfigError("neither density nor pattern is given; set density=0.5 or pattern='2:4'")
    chosen["compare"] = compare or ("output" if method in ("wanda", "exchange") else "layer")
    return PrunerConfig.of(**chosen)
