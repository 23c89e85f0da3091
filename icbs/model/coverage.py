"""Coverage of a density: which weights are pruned, and which are left dense."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from icbs.config import LayerSettings
from icbs.errors import DensityWarning
from icbs.formatting import counted
from icbs.model.adapters import adapters_in
from icbs.model.finding import EVERYTHING, density_of
from icbs.model.kinds import kind_of
from icbs.model.layer import Layer

log = logging.getLogger("icbs")
NOTED = 0.01
"""Share of zeros among the weights to prune from which on they are spoken of."""
MUCH = 0.1
"""Share of the weights that can't be pruned from which on there is a warning."""


@dataclass(frozen=True)
class Coverage:
    """Weights that are pruned, and matrix weights that are left dense."""

    pruned: int
    """Weights of the layers that are pruned."""
    left_dense: dict[str, int] = field(default_factory=dict)
    """Parameter → number of weights, the largest first; embeddings and output layers too."""
    unsupported: dict[str, int] = field(default_factory=dict)
    """Those of them that are neither embeddings nor adapters, and of no kind that is pruned."""
    adapters: int = 0
    """How many of :attr:`left_dense` are weights of adapters."""

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[Layer]) -> Coverage:
        """Count the parameters of a model that have more than one dimension, each once."""
        own = {id(layer.module.weight) for layer in layers}
        modules, adapters = dict(model.named_modules()), adapters_in(model)
        left, unsupported, beside = {}, set(), 0
        for name, parameter in model.named_parameters():
            if id(parameter) in own or isinstance(parameter, nn.parameter.UninitializedParameter):
                continue
            if parameter.numel() <= max(parameter.shape, default=1):  # a vector, in any shape
                continue
            left[name] = parameter.numel()
            module = modules[name.rpartition(".")[0]]
            if module in adapters:
                beside += 1
            elif not _can_be_dense(module):
                unsupported.add(name)
        ranked = dict(sorted(left.items(), key=lambda item: -item[1]))
        pruned = sum(layer.size for layer in layers)
        odd = {name: size for name, size in ranked.items() if name in unsupported}
        return cls(pruned, ranked, odd, beside)

    def density(self, kept: int) -> float:
        """Share of all matrix weights that is kept, given how many of the pruned layers' are."""
        left = sum(self.left_dense.values())
        return (kept + left) / (self.pruned + left)

    def tell(self, layers: Sequence[Layer], config: LayerSettings) -> None:
        """Say what is left dense, and what else the density does not say; warn where it is much.

        Parameters
        ----------
        layers : sequence of Layer
            Dense.
        config : LayerSettings
        """
        left = sum(self.left_dense.values())
        if left:
            log.info(
                "%s weights of %s are pruned; %s, %s of all matrix weights, stay dense: %s",
                f"{self.pruned:,}",
                counted(len(layers), "layer"),
                f"{left:,}",
                f"{left / (left + self.pruned):.0%}",
                listed(self.left_dense),
            )
        if self.adapters:
            warnings.warn(
                f"{self.adapters} matrices of adapters are left dense: merging them into their "
                "base layers would make pruned weights dense again",
                DensityWarning,
                stacklevel=4,
            )
        beyond = sum(self.unsupported.values())
        share = beyond / (beyond + self.pruned)
        if share > MUCH and all(pattern in EVERYTHING for pattern in config.include):
            kept = sum(layer.num_keep for layer in layers)
            warnings.warn(
                f"{share:.0%} of the weights are of no kind that can be pruned and stay dense: "
                f"{listed(self.unsupported)}; the density holds for the other layers, and over "
                f"all matrix weights it is {self.density(kept):.3f}",
                DensityWarning,
                stacklevel=4,
            )
        _tell_default(layers, config)
        _tell_zeros(layers)


def _can_be_dense(module: nn.Module) -> bool:
    """Whether a module's weights are left dense by choice: they can be pruned, or are looked up."""
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False  # of nn.MultiheadAttention
    return kind_of(module) is not None or isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _tell_default(layers: Sequence[Layer], config: LayerSettings) -> None:
    """Warn of layers whose density nobody has chosen."""
    rest = [layer.name for layer in layers if density_of(layer.name, layer.module, config) is None]
    if config.densities and rest and "density" not in config.model_fields_set:
        some = ", ".join(rest[:5]) + (f", … ({len(rest)} in all)" if len(rest) > 5 else "")
        warnings.warn(
            f"densities says nothing of {some}: the default density of {config.density} is "
            "theirs; set density, or exclude them",
            DensityWarning,
            stacklevel=5,
        )


def _tell_zeros(layers: Sequence[Layer]) -> None:
    """Speak of weights that are 0 before anything is pruned."""
    zeros = {layer.name: zeros_of(layer) for layer in layers}
    total, size = sum(zeros.values()), sum(layer.size for layer in layers)
    if total < NOTED * size:
        return
    text = (
        f"{total / size:.1%} of the weights to prune are 0 already, and density counts entries "
        "of the mask, whatever the weights"
    )
    full = [x.name for x in layers if zeros[x.name] > x.size - x.num_keep]
    if full:
        some = ", ".join(full[:5]) + (f", … ({len(full)} in all)" if len(full) > 5 else "")
        warnings.warn(
            f"{text}: more are 0 in {some} than the masks prune, so that they keep zeros; "
            "choose a lower density",
            DensityWarning,
            stacklevel=5,
        )
    else:
        log.info("%s", text)


def zeros_of(layer: Layer) -> int:
    """Count the weights of a dense layer that are 0."""
    return layer.size - int(layer.dense.count_nonzero())


def kept_zeros(layer: Layer) -> int:
    """Count the weights of a layer that its mask keeps though they are 0 when dense."""
    return int((~layer.pruned.view_as(layer.dense) & (layer.dense == 0)).sum())


def listed(sizes: dict[str, int], most: int = 5) -> str:
    """Write the first names with their sizes, and how many more there are."""
    shown = ", ".join(f"{name} ({size:,})" for name, size in list(sizes.items())[:most])
    more = len(sizes) - most
    return shown + (f", … ({more} more)" if more > 0 else "")


def density_in_words(facts: Mapping[str, Any]) -> str:
    """Say what a density is the density of, from a run's :meth:`icbs.Result.summary`.

    Empty for a summary of an older version, which does not say so.
    """
    if facts.get("left_dense") is None:
        return ""
    kept = round(facts["density"] * facts["weights"])
    words = (
        f"{kept:,} of {facts['weights']:,} weights kept in {counted(facts['layers'], 'layer')} "
        f"(density {facts['density']:.4f})"
    )
    if left := facts["left_dense"]:
        words += (
            f"; {sum(left.values()):,} matrix weights are left dense: {listed(left)}; "
            f"over all of them the density is {facts['model_density']:.4f}"
        )
    if facts["kept_zeros"]:
        words += f"; {facts['kept_zeros']:,} of the weights kept were 0 already"
    return words
