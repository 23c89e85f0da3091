"""The weights that a density covers, and those that are left dense."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from icbs.config import LayerSettings
from icbs.errors import DensityWarning
from icbs.formatting import counted
from icbs.groups.summary import in_words as groups_in_words
from icbs.model.adapters import adapters_in
from icbs.model.finding import EVERYTHING, density_of
from icbs.model.kinds import kind_of
from icbs.model.layer import Layer
from problems.warn import warn

log = logging.getLogger("icbs")
LOGGED_ZEROS = 0.01
"""Share of zeros among the weights to prune from which on they are logged."""
UNSUPPORTED_SHARE = 0.1
"""Share of weights of unsupported layers above which there is a warning."""


@dataclass(frozen=True)
class Coverage:
    """Numbers of weights that are pruned, and of matrix weights that are left dense."""

    pruned: int
    """Weights of the layers that are pruned."""
    left_dense: dict[str, int] = field(default_factory=dict)
    """Parameter → number of weights, the largest first; embeddings and output layers too."""
    unsupported: dict[str, int] = field(default_factory=dict)
    """The part of :attr:`left_dense` in modules that can't be pruned, other than embeddings and
    adapters."""
    adapters: int = 0
    """Number of parameters of :attr:`left_dense` that belong to adapters."""
    stacks: dict[str, int] = field(default_factory=dict)
    """The part of :attr:`unsupported` with several matrices in a parameter, by their number."""

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[Layer]) -> Coverage:
        """Count the parameters of a model that have more than one dimension, each once."""
        own = {id(layer.module.weight) for layer in layers}
        modules, adapters = dict(model.named_modules()), adapters_in(model)
        left, unsupported, adapter_count = {}, set(), 0
        stacks = {}
        for name, parameter in model.named_parameters():
            if id(parameter) in own or isinstance(parameter, nn.parameter.UninitializedParameter):
                continue
            if parameter.numel() <= max(parameter.shape, default=1):  # a vector, in any shape
                continue
            left[name] = parameter.numel()
            module = modules[name.rpartition(".")[0]]
            if module in adapters:
                adapter_count += 1
            elif not _left_by_choice(module):
                unsupported.add(name)
                own_type = not type(module).__module__.startswith("torch.")  # no kernels
                if own_type and parameter.ndim == 3 and min(parameter.shape) > 1:
                    stacks[name] = len(parameter)
        ranked = dict(sorted(left.items(), key=lambda item: -item[1]))
        pruned = sum(layer.size for layer in layers)
        sizes = {name: size for name, size in ranked.items() if name in unsupported}
        return cls(pruned, ranked, sizes, adapter_count, stacks)

    def reason(self, name: str) -> str:
        """Return why a parameter is left dense; empty if that is a choice."""
        if name in self.stacks:
            return (
                f"{self.stacks[name]} matrices in one parameter, such as experts, which are not "
                "called as layers; to prune them, give each its own nn.Linear"
            )
        return "of an unsupported type" if name in self.unsupported else ""

    def density(self, kept: int) -> float:
        """Return the share of all matrix weights kept if ``kept`` of the pruned layers' are."""
        left = sum(self.left_dense.values())
        return (kept + left) / (self.pruned + left)

    def report(self, layers: Sequence[Layer], config: LayerSettings) -> None:
        """Log which weights stay dense or are 0 already, and warn of large shares of them.

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
            warn(
                f"{self.adapters} matrices of adapters are left dense: merging them into their "
                "base layers would make pruned weights dense again",
                DensityWarning,
            )
        unsupported = sum(self.unsupported.values())
        share = unsupported / (unsupported + self.pruned)
        everything = all(pattern in EVERYTHING for pattern in config.include)
        if share > UNSUPPORTED_SHARE and everything:
            kept = sum(layer.num_keep for layer in layers)
            warn(
                f"{share:.0%} of the weights are in layers of unsupported types and stay dense: "
                f"{listed(self.unsupported)}{self._on_stacks()}; the density applies to the "
                f"other layers, and over all matrix weights it is {self.density(kept):.3f}",
                DensityWarning,
            )
        _warn_of_default_density(layers, config)
        _report_zeros(layers)

    def _on_stacks(self) -> str:
        """Explain the first stack of matrices, for a warning."""
        name = next((name for name in self.unsupported if name in self.stacks), "")
        return f" ({name}: {self.reason(name)})" if name else ""


def _left_by_choice(module: nn.Module) -> bool:
    """Whether a module is supported, or an embedding, so that leaving it dense is a choice."""
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False  # of nn.MultiheadAttention
    return kind_of(module) is not None or isinstance(module, nn.Embedding | nn.EmbeddingBag)


def _warn_of_default_density(layers: Sequence[Layer], config: LayerSettings) -> None:
    """Warn of layers without an entry in ``densities`` where ``density`` is not set either."""
    rest = [layer.name for layer in layers if density_of(layer.name, layer.module, config) is None]
    if config.densities and rest and "density" not in config.model_fields_set:
        some = ", ".join(rest[:5]) + (f", … ({len(rest)} in all)" if len(rest) > 5 else "")
        warn(
            f"densities has no pattern for {some}: they get the default density of "
            f"{config.density}; set density, or exclude them",
            DensityWarning,
        )


def _report_zeros(layers: Sequence[Layer]) -> None:
    """Log weights that are 0 before pruning; warn if masks must keep some of them."""
    zeros = {layer.name: zeros_of(layer) for layer in layers}
    total, size = sum(zeros.values()), sum(layer.size for layer in layers)
    if total < LOGGED_ZEROS * size:
        return
    text = (
        f"{total / size:.1%} of the weights to prune are 0 already; density counts entries of "
        "the mask, zero or not"
    )
    full = [x.name for x in layers if zeros[x.name] > x.size - x.num_keep]
    if full:
        some = ", ".join(full[:5]) + (f", … ({len(full)} in all)" if len(full) > 5 else "")
        warn(
            f"{text}: {some} have more zeros than their masks prune, so that the masks keep "
            "zeros; choose a lower density",
            DensityWarning,
        )
    else:
        log.info("%s", text)


def zeros_of(layer: Layer) -> int:
    """Count the zeros among a layer's dense weights."""
    return layer.size - int(layer.dense.count_nonzero())


def kept_zeros(layer: Layer) -> int:
    """Count the zeros among a layer's dense weights that its mask keeps."""
    return int((~layer.pruned.view_as(layer.dense) & (layer.dense == 0)).sum())


def listed(sizes: dict[str, int], most: int = 5) -> str:
    """Return the first names with their sizes, and the number of those left out."""
    shown = ", ".join(f"{name} ({size:,})" for name, size in list(sizes.items())[:most])
    more = len(sizes) - most
    return shown + (f", … ({more} more)" if more > 0 else "")


def density_in_words(facts: Mapping[str, Any]) -> str:
    """Describe which weights a density counts, from a run's :meth:`icbs.Result.summary`.

    Empty for a summary of an older version, which lacks the counts.
    """
    if facts.get("left_dense") is None:
        return ""
    if facts.get("groups"):
        return groups_in_words(facts)
    kept = round(facts["density"] * facts["weights"])
    words = (
        f"{kept:,} of {facts['weights']:,} weights kept in {counted(facts['layers'], 'layer')} "
        f"(density {facts['density']:.4f})"
    )
    if left := facts["left_dense"]:
        words += (
            f"; {sum(left.values()):,} matrix weights are left dense: {listed(left)}; "
            f"over all matrix weights the density is {facts['model_density']:.4f}"
        )
    if facts["kept_zeros"]:
        words += f"; {facts['kept_zeros']:,} of the kept weights were 0 already"
    return words
