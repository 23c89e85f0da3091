"""Inputs of a recovery: the pruned model, the dense model, samples and loss."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs import streams
from icbs.config.constants import MAX_SAMPLES
from icbs.data.losses import logits_of
from icbs.data.objective import Loss, Objective
from icbs.data.pytree import call
from icbs.data.samples import Samples, diverse_samples, joined, read_samples
from icbs.errors import ConfigError, DataError, LayerError
from icbs.model.calls import reach, slices
from icbs.model.layer import Layer
from icbs.recovery.config import RecoveryConfig
from icbs.recovery.generate import generate_like
from icbs.recovery.masked_layers import (
    check_frozen,
    check_kept,
    check_reference,
    is_frozen,
    is_pruned,
    masked_layers,
)
from icbs.recovery.memory import Plan, batch_of, call_bytes

_FEW = 4
"""Samples for the checks of the loss and of the layers."""


@dataclass
class Subject:
    """A pruned model to recover; methods may change :attr:`tensors` and nothing else."""

    model: nn.Module
    """Pruned, in evaluation mode, without wrappers."""
    dense: nn.Module | None
    """The dense model; parameters that no method changes may be shared with :attr:`model`."""
    layers: list[Layer]
    """Masked layers; ``layer.pruned`` is the mask, ``layer.dense`` the dense weights (those of
    the pruned model if there is no dense one)."""
    dense_layers: list[Layer]
    """The same layers of the dense model; empty without one."""
    objective: Objective
    samples: Samples
    """Calibration samples."""
    heldout: Samples
    """Held-out samples, which must not be used to compute weights."""
    config: RecoveryConfig
    uneven: frozenset[str] = frozenset()
    """Layers that get only some samples or positions, such as experts behind a router."""
    call_bytes: int = 0
    """Bytes of one sample in the inputs and outputs of all layers."""
    plan: Plan = field(default_factory=Plan)
    """Batch sizes that keep the recovery within its memory limit."""

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        batches: Iterable[Any],
        loss: Loss | None,
        config: RecoveryConfig,
        *,
        dense: nn.Module | None = None,
        heldout: Iterable[Any] | None = None,
    ) -> Subject:
        """Check the inputs and split the samples; the model is unchanged.

        Raises
        ------
        ConfigError, LayerError, DataError
            With the remedy.
        """
        if dense is model:
            raise ConfigError(
                "dense is the model itself, which is pruned in place; leave dense out, or pass a "
                "copy (copy.deepcopy)"
            )
        layers = masked_layers(model, masks)
        check_frozen(layers)
        pruned = dense is None and is_pruned(layers)
        if pruned:
            check_kept(layers)
        samples, held = _split(batches, heldout, config)
        if dense is None and not pruned:
            dense = twin(model, layers)
        dense_layers = [] if dense is None else _same_layers(dense, layers)
        if dense is not None:
            check_kept(layers, dense_layers)
            check_reference(layers, dense_layers)
            for layer, other in zip(layers, dense_layers, strict=True):
                layer.dense = other.dense
        if loss is None:
            loss = nn.MSELoss()
            samples, held = (_targets_of(dense, part, config) for part in (samples, held))
        if config.generate:
            generated = generate_like(
                samples, dense, loss, config.generate, config.prompt, config.seed
            )
            if config.judge == "divergence" and heldout is None:
                count = round(config.heldout_share * config.generate)
                held, generated = joined(held, generated[:count]), generated[count:]
            samples = joined(samples, generated)
        device = layers[0].dense.device
        reference = model if dense is None else dense
        few = samples[diverse_samples(samples, _FEW, config.seed)].to(device)
        targets = torch.cat([samples.targets, held.targets])
        objective = Objective.check(loss, reference, few, targets)
        singles = [few[i : i + 1] for i in range(len(few))]
        more = (piece.to(device) for piece in slices(samples, 0))
        found = reach(model, layers, singles, more, run=objective.run, verify=True)
        objective.compute_in(config.precision, device)
        return cls(
            model,
            dense,
            layers,
            dense_layers,
            objective,
            samples,
            held,
            config,
            frozenset(found.uneven),
            call_bytes=call_bytes(model, layers, singles[0]),
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors that methods may change, by name: the model's own, not copies.

        Weights of the masked layers, vectors (biases, parameters of normalisation), both unless
        they are frozen, and the statistics of batch normalisation.
        """
        return movable(self.model, self.layers)

    @property
    def device(self) -> torch.device:
        """Device of the layers."""
        return self.layers[0].dense.device

    def free_layers(self) -> list[Layer]:
        """Return the masked layers that are not frozen."""
        return [layer for layer in self.layers if not is_frozen(layer)]

    def generator(self, number: int) -> torch.Generator:
        """Return a generator that depends only on the seed and a number, such as of a step."""
        return streams.recovery(self.config.seed, number)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set pruned weights to 0."""
        for layer in self.layers:
            pruned = layer.kind.shaped(layer.pruned.view(layer.shape))
            layer.kind.weight.masked_fill_(pruned, 0)

    @torch.no_grad()
    def set_weight(self, layer: Layer, matrix: Tensor) -> None:
        """Set a layer's kept weights from a matrix of shape (out, in)."""
        values = matrix.masked_fill(layer.pruned.view(layer.shape), 0)
        layer.kind.weight.copy_(layer.kind.shaped(values))

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set :attr:`tensors` to given values."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def pieces(self, samples: Samples) -> Iterator[Samples]:
        """Yield parts of samples that fit a forward pass, on the device of the layers."""
        size = self.plan.batch_size
        for start in range(0, len(samples), size):
            yield samples[start : start + size].to(self.device)


def movable(model: nn.Module, layers: Iterable[Layer]) -> dict[str, Tensor]:
    """Return the tensors that a recovery may change; see :attr:`Subject.tensors`."""
    found: dict[str, Tensor] = {
        f"{layer.name}.weight": layer.kind.module.weight for layer in layers if not is_frozen(layer)
    }
    own = {id(tensor) for tensor in found.values()}
    for name, parameter in model.named_parameters():
        vector = parameter.numel() <= max(parameter.shape, default=1)
        if vector and parameter.requires_grad and id(parameter) not in own:
            found[name] = parameter
    for name, module in normalisations(model).items():
        found[f"{name}.running_mean"] = module.running_mean
        found[f"{name}.running_var"] = module.running_var
    return {name: tensor.detach() for name, tensor in found.items()}


def normalisations(model: nn.Module) -> dict[str, Any]:
    """Return the batch normalisations that have running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    }


def twin(model: nn.Module, layers: Iterable[Layer]) -> nn.Module:
    """Copy a model; only tensors that a recovery may change are duplicated in memory."""
    moved = {tensor.data_ptr() for tensor in movable(model, layers).values()}
    shared = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {id(t): t for t in shared if t.data_ptr() not in moved}
    return copy.deepcopy(model, memo)


def _same_layers(dense: nn.Module, layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers of the dense model, without copies of their weights.

    Raises
    ------
    LayerError
        If it is not the same model.
    """
    masks = {layer.name: layer.mask for layer in layers}
    try:
        found = {layer.name: layer for layer in masked_layers(dense, masks)}
    except LayerError as error:
        raise LayerError(f"dense is not the dense model of the masks: {error}") from error
    for layer in found.values():
        layer.dense = layer.weight
    return [found[layer.name] for layer in layers]


def _split(
    batches: Iterable[Any], heldout: Iterable[Any] | None, config: RecoveryConfig
) -> tuple[Samples, Samples]:
    """Return calibration and held-out samples.

    Raises
    ------
    DataError
        If there are fewer than two samples, or samples are not usable.
    """
    samples = read_samples(batches, MAX_SAMPLES)
    if heldout is not None:
        return samples, read_samples(heldout, MAX_SAMPLES)
    if len(samples) < 2:
        raise DataError(
            "batches holds one sample; weights and the held-out loss need one each: give more, "
            "or held-out samples (heldout)"
        )
    order = torch.randperm(len(samples), generator=streams.samples(config.seed))
    count = min(max(1, round(config.heldout_share * len(samples))), len(samples) - 1)
    return samples[order[count:]], samples[order[:count]]


@torch.no_grad()
def _targets_of(dense: nn.Module | None, samples: Samples, config: RecoveryConfig) -> Samples:
    """Replace the targets by the dense model's outputs.

    Raises
    ------
    ConfigError
        Without a dense model.
    """
    if dense is None:
        raise ConfigError(
            "without a loss the outputs of the dense model are the targets, and the model is "
            "pruned already; pass a loss, or the dense model (dense)"
        )
    size = batch_of(samples, config.batch_size)
    device = next(dense.parameters()).device
    found = []
    for start in range(0, len(samples), size):
        piece = samples[start : start + size].to(device)
        found.append(logits_of(call(dense, piece.inputs)).cpu())
    return Samples(samples.inputs, torch.cat(found))
