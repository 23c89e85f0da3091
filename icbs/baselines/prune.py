"""One call for every baseline: dense model and calibration samples in, pruned model out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from icbs.baselines.exchange import exchange
from icbs.baselines.moments import Moments, gather
from icbs.baselines.sparsegpt import sparsegpt
from icbs.baselines.walk import walk, without_cache
from icbs.config import PrunerConfig, Scope
from icbs.errors import ConfigError, DataError
from icbs.finding import find_layers
from icbs.layers import Layer
from icbs.samples import Samples, read_samples
from icbs.scores import initial_mask
from icbs.state import evaluation_mode
from icbs.trees import tensors

Method = Literal["magnitude", "wanda", "exchange", "sparsegpt"]
POSITIONS = 4096
"""Of sequences, run through the model at a time."""
NUMBERS = 1 << 22
"""Of other inputs, run through the model at a time."""


@dataclass(frozen=True)
class Baseline:
    """What a baseline made of a model."""

    method: str
    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, as ``Pruner.prune`` takes them."""
    density: float
    """Share of the prunable weights that is kept."""
    seconds: float


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
    callback: Callable[[int, int], object] | None = None,
    **settings: Any,
) -> Baseline:
    """Prune a model in place by a method that needs no gradients.

    - ``magnitude``: keep the largest ``|w|`` of each layer.
    - ``wanda``: keep the largest ``|w_ij| ‖X_j‖₂`` of each output (arXiv 2306.11695).
    - ``exchange``: from Wanda's mask, exchange weights of an output as long as that lowers
      the error of the layer's output; see :func:`icbs.baselines.exchange`.
    - ``sparsegpt``: see :func:`icbs.baselines.sparsegpt` (arXiv 2301.00774).

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
    callback : callable, optional
        ``callback(done, layers)`` after each layer.
    **settings
        ``densities``, ``include``, ``exclude`` and ``max_samples``, as in
        :class:`icbs.PrunerConfig`.

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
    layers = find_layers(model, config)
    if config.pattern is not None:
        config.pattern.check({layer.name: layer.shape[1] for layer in layers})
    with evaluation_mode(model):
        if method == "magnitude":
            for layer in layers:
                _keep_best(layer, layer.dense.abs(), config)
        else:
            assert batches is not None
            samples = read_samples(batches, config.max_samples)
            pieces = _pieces(samples, batch_size, layers[0].dense.device)
            try:
                with torch.no_grad(), without_cache(model):
                    _sweep(model, layers, pieces, method, config, update, callback)
            except BaseException:
                for layer in layers:
                    layer.set_mask(torch.zeros_like(layer.pruned))
                raise
    kept, size = sum(layer.num_kept for layer in layers), sum(layer.size for layer in layers)
    masks = {layer.name: layer.mask for layer in layers}
    return Baseline(method, masks, kept / size, time.perf_counter() - began)


def _sweep(
    model: nn.Module,
    layers: list[Layer],
    pieces: list[Samples],
    method: Method,
    config: PrunerConfig,
    update: bool,
    callback: Callable[[int, int], object] | None,
) -> None:
    done = 0
    for group, feed in walk(model, layers, pieces):
        moments = gather(group, feed, gram=method != "wanda")
        for layer in group:
            moment = moments[layer.name]
            if not torch.isfinite(moment.total).all():
                raise DataError(
                    f"the inputs of layer {layer.name!r} are NaN or infinite; check the data, or "
                    "load the model in a wider floating-point type"
                )
            if method == "sparsegpt":
                _apply_sparsegpt(layer, moment, config, update)
            else:
                _keep_best(layer, layer.dense.abs() * moment.norms, config)
            if method == "exchange":
                _apply_exchange(layer, moment, config)
            done += 1
            if callback is not None:
                callback(done, len(layers))


def _keep_best(layer: Layer, scores: Tensor, config: PrunerConfig) -> None:
    layer.set_mask(initial_mask(scores, layer.num_keep, config.compare, config.pattern))


def _apply_exchange(layer: Layer, moment: Moments, config: PrunerConfig) -> None:
    groups = layer.kind.groups
    parts = zip(
        layer.dense.chunk(groups), layer.pruned.view(layer.shape).chunk(groups), strict=True
    )
    masks = [
        exchange(dense, moment.mean[number], ~pruned, config.pattern)
        for number, (dense, pruned) in enumerate(parts)
    ]
    layer.set_mask(~torch.cat(masks).flatten())


def _apply_sparsegpt(layer: Layer, moment: Moments, config: PrunerConfig, update: bool) -> None:
    groups, parts = layer.kind.groups, []
    try:
        # The outputs of a group see the group's own inputs, and share their Hessian.
        for number, dense in enumerate(layer.dense.chunk(groups)):
            keep = layer.num_keep * (number + 1) // groups - layer.num_keep * number // groups
            parts.append(sparsegpt(dense, moment.mean[number], keep, config.pattern))
    except torch.linalg.LinAlgError as error:
        raise DataError(
            f"the inputs of layer {layer.name!r} have second moments that can't be inverted "
            f"({error}); use more samples, or a wider floating-point type"
        ) from error
    weight, mask = (torch.cat(values) for values in zip(*parts, strict=True))
    layer.set_mask(~mask.flatten())
    if update:
        layer.kind.weight.copy_(layer.kind.shaped(weight))


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
        raise ConfigError(f"unknown method {method!r}; choose of {', '.join(get_args(Method))}")
    if method != "magnitude" and batches is None:
        raise ConfigError(f"{method} needs calibration samples; pass batches")
    known = ("densities", "include", "exclude", "max_samples")
    if unknown := [name for name in settings if name not in known]:
        raise ConfigError(f"unknown setting {unknown[0]!r}; the settings are: {', '.join(known)}")
    chosen: dict[str, Any] = dict(settings)
    if density is not None:
        chosen["density"] = density
    if pattern is not None:
        chosen["constraint"] = pattern
    if density is None and pattern is None:
        raise ConfigError("say how much to keep: density=0.5, or pattern='2:4'")
    chosen["compare"] = compare or ("output" if method in ("wanda", "exchange") else "layer")
    return PrunerConfig.of(**chosen)


def _pieces(samples: Samples, size: int | None, device: torch.device) -> list[Samples]:
    """Split samples into what is run at a time."""
    if size is None:
        first = tensors(samples.inputs)[0]
        each = max(1, first[0].numel())
        size = max(1, (NUMBERS if first.is_floating_point() else POSITIONS) // each)
    return [samples[i : i + size].to(device) for i in range(0, len(samples), size)]
