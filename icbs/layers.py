"""The prunable layers of a model: found by pattern, each with its dense weights and mask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.errors import LayerError


@dataclass
class Layer:
    """A linear layer and the state of its mask.

    The mask is the only truth: weights are always ``dense`` where kept and 0 where pruned.
    """

    name: str
    module: nn.Linear
    density: float
    dense: Tensor = field(repr=False)
    """Weights before pruning, shape (out, in), contiguous; never written to."""
    pruned: Tensor = field(repr=False)
    """Which weights are pruned, bool, flat, shape (out · in,)."""

    @classmethod
    def of(cls, name: str, module: nn.Linear, density: float) -> Layer:
        """Wrap a module with nothing pruned yet."""
        dense = module.weight.detach().clone().contiguous()
        return cls(name, module, density, dense, torch.zeros(dense.numel(), dtype=torch.bool))

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.dense.numel()

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.dense.shape[0], self.dense.shape[1]

    @property
    def num_keep(self) -> int:
        """Number of weights to keep: the density, exact to the weight."""
        return round(self.density * self.size)

    @property
    def num_kept(self) -> int:
        """Number of weights kept by the mask as it stands."""
        return self.size - int(self.pruned.sum())

    def unravel(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (outputs) and columns (inputs) of flat indices."""
        columns = self.shape[1]
        return index // columns, index % columns

    @torch.no_grad()
    def set_mask(self, pruned: Tensor) -> None:
        """Take a whole mask, flat bool, and write the weights that follow from it."""
        self.pruned = pruned.clone()
        zero = self.dense.new_zeros(())
        self.module.weight.copy_(torch.where(pruned.view_as(self.dense), zero, self.dense))

    @torch.no_grad()
    def set_block(self, index: Tensor, pruned: Tensor) -> None:
        """Set the mask at flat indices, and the weights there; exact in both directions."""
        self.pruned[index] = pruned
        rows, columns = self.unravel(index)
        values = torch.where(pruned, self.dense.new_zeros(()), self.dense[rows, columns])
        self.module.weight[rows, columns] = values


def find_layers(model: nn.Module, config: PrunerConfig) -> list[Layer]:
    """Return the layers to prune, in the model's own order.

    Raises
    ------
    LayerError
        If a pattern matches nothing or only unsupported modules, if weights are shared
        between modules or not finite, or if a density leaves a layer empty or whole.
    """
    modules = {name: m for name, m in model.named_modules() if name}
    linear = {name: m for name, m in modules.items() if isinstance(m, nn.Linear)}
    for pattern in [*config.include, *config.exclude, *config.densities]:
        _check_pattern(pattern, modules, linear)
    chosen = [
        name for name in linear if _any(name, config.include) and not _any(name, config.exclude)
    ]
    if not chosen:
        raise LayerError(
            f"include={config.include} and exclude={config.exclude} leave no layer to prune; "
            f"the model's linear layers are: {_listed(linear)}"
        )
    _check_shared(model, linear, chosen)
    layers = [Layer.of(name, linear[name], _density(name, config)) for name in chosen]
    for layer in layers:
        _check_layer(layer)
    return layers


def matches(name: str, pattern: str) -> bool:
    """Whether a module's name matches a glob, or a regular expression after ``re:``."""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    return fnmatchcase(name, pattern)


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


def _density(name: str, config: PrunerConfig) -> float:
    found = [d for pattern, d in config.densities.items() if matches(name, pattern)]
    return found[-1] if found else config.density


def _check_pattern(
    pattern: str, modules: dict[str, nn.Module], linear: dict[str, nn.Linear]
) -> None:
    try:
        hits = [name for name in modules if matches(name, pattern)]
    except re.error as error:
        raise LayerError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if not hits:
        raise LayerError(
            f"pattern {pattern!r} matches no module; the linear layers are: {_listed(linear)}"
        )
    if not any(name in linear for name in hits):
        kinds = sorted({type(modules[name]).__name__ for name in hits})
        raise LayerError(
            f"pattern {pattern!r} matches only {', '.join(kinds)}, and nn.Linear is what can be "
            f"pruned; the linear layers are: {_listed(linear)}"
        )


def _check_shared(model: nn.Module, linear: dict[str, nn.Linear], chosen: list[str]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in chosen:
        shared = owners.get(id(linear[name].weight), [])
        if len(shared) > 1:
            raise LayerError(
                f"layer {name!r} shares its weights ({', '.join(shared)}); "
                f"a mask on one would prune the other: add {name!r} to exclude"
            )


def _check_layer(layer: Layer) -> None:
    weight = layer.module.weight
    if not weight.is_floating_point() or weight.is_meta:
        raise LayerError(
            f"layer {layer.name!r} has {weight.dtype} weights on {weight.device}; "
            "load it with real floating-point weights"
        )
    if not torch.isfinite(layer.dense).all():
        raise LayerError(
            f"layer {layer.name!r} has weights that are NaN or infinite; "
            "repair the model or exclude the layer"
        )
    if not 0 < layer.num_keep < layer.size:
        raise LayerError(
            f"density {layer.density} keeps {layer.num_keep} of the {layer.size} weights of "
            f"{layer.name!r}; choose one that leaves both kept and pruned weights, or exclude it"
        )


def _listed(names: dict[str, nn.Linear], most: int = 20) -> str:
    shown = list(names)[:most]
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return (", ".join(shown) or "none") + more
