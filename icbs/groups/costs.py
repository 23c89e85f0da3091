"""Costs of a model as a function of its pruned groups: parameters, multiplications, latency.

The parameters and multiply-accumulates (MACs) of a module are proportional to its kept inputs
times its kept outputs, so that the cost is bilinear in the numbers of kept channels. Heads also
save the products of attention, ``2 T²`` MACs per channel for T positions (Kwon et al. 2022,
arXiv 2204.09656, appendix). The MACs of the dense model, and those of attention, are counted in a
call, with operations that no group changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from icbs.errors import LayerError
from icbs.groups.grouping import Grouping, State
from icbs.model.kinds import Convolution, Kind, kind_of
from icbs.model.wrappers import modules_of
from icbs.structure.blocks import module_of
from icbs.structure.counts import counted_work

Float = npt.NDArray[np.float64]


class Costs(ABC):
    """Cost of the model as a function of the state of its groups (1 = pruned)."""

    unit: str = ""

    @abstractmethod
    def total(self, state: State) -> float:
        """Return the cost of the whole model."""

    @abstractmethod
    def slopes(self, state: State) -> Float:
        """Return the saving of each group at a state, shape (groups,)."""


@dataclass
class _Term:
    """Cost ``factor · inputs · outputs`` of a module, where each side may be pruned."""

    factor: float
    inputs: float
    outputs: float
    reads: list[tuple[slice, float]]
    """Groups that the module reads, and channels of each."""
    writes: list[tuple[slice, float]]

    def sides(self, state: State) -> tuple[float, float]:
        """Return the kept inputs and outputs."""
        kept_in = self.inputs - sum(c * float(state[s].sum()) for s, c in self.reads)
        kept_out = self.outputs - sum(c * float(state[s].sum()) for s, c in self.writes)
        return kept_in, kept_out


class CountedCosts(Costs):
    """Parameters or MACs, counted from the shapes of the modules.

    Parameters
    ----------
    grouping : Grouping
    dense : float
        Cost of the dense model.
    terms : sequence of _Term
        Cost of the modules that the groups touch.
    fixed : Float, shape (groups,)
        Saving of each group that does not depend on others.
    """

    def __init__(
        self, grouping: Grouping, dense: float, terms: Sequence[_Term], fixed: Float, unit: str
    ) -> None:
        self.count, self.dense, self.terms = grouping.count, dense, terms
        self.fixed, self.unit = fixed, unit

    def total(self, state: State) -> float:
        """Return the cost of the whole model."""
        cost = self.dense - float(self.fixed @ state)
        for term in self.terms:
            inputs, outputs = term.sides(state)
            cost += term.factor * (inputs * outputs - term.inputs * term.outputs)
        return cost

    def slopes(self, state: State) -> Float:
        """Return the saving of each group at a state."""
        found = self.fixed.copy()
        for term in self.terms:
            inputs, outputs = term.sides(state)
            for span, channels in term.reads:
                found[span] += term.factor * channels * outputs
            for span, channels in term.writes:
                found[span] += term.factor * channels * inputs
        return found


class TableCosts(Costs):
    """Latency by the number of kept groups of each set, from a table of measurements.

    Parameters
    ----------
    grouping : Grouping
    rest : float
        Latency of the parts without groups.
    tables : mapping of str to pair of arrays
        Set name → numbers of kept groups (ascending), and the latency at each; values between
        are interpolated.
    """

    unit = "seconds"

    def __init__(
        self, grouping: Grouping, rest: float, tables: Mapping[str, tuple[Float, Float]]
    ) -> None:
        self.grouping, self.rest, self.tables = grouping, rest, tables

    def total(self, state: State) -> float:
        """Return the latency of the whole model."""
        return self.rest + sum(
            float(np.interp((state[span] == 0).sum(), *self.tables[own.name]))
            for own, span in zip(self.grouping.sets, self.grouping.spans, strict=True)
        )

    def slopes(self, state: State) -> Float:
        """Return the mean saving of a group of each set, from its full width to its floor."""
        found = np.zeros(self.grouping.count)
        for own, span in zip(self.grouping.sets, self.grouping.spans, strict=True):
            widths, seconds = self.tables[own.name]
            whole, least = np.interp([own.count, own.floor], widths, seconds)
            found[span] = max(0.0, whole - least) / max(1, own.count - own.floor)
        return found


def count_costs(
    grouping: Grouping, model: nn.Module, example_inputs: Any, quantity: str
) -> CountedCosts:
    """Count the parameters or MACs of a model and of its groups.

    Parameters
    ----------
    grouping : Grouping
    model : nn.Module
    example_inputs : any
        Inputs of one sample; MACs are those of one sample of this size.
    quantity : {"macs", "parameters"}
    """
    modules = modules_of(model)
    work = counted_work(model, modules, example_inputs)
    positions = work.positions
    macs = quantity == "macs"
    kinds = {name: kind for name, m in modules.items() if (kind := kind_of(m)) is not None}
    fixed = np.zeros(grouping.count)
    terms: dict[str, _Term] = {}
    for own, span in zip(grouping.sets, grouping.spans, strict=True):
        if own.dimension is None:
            sizes = np.zeros(own.count)
            for part in own.parts:
                assert part.gate is not None
                weights = np.bincount(part.gate.cpu().numpy(), minlength=own.count)
                sizes += weights * (positions.get(part.layer.name, 0.0) if macs else 1.0)
            fixed[span] += sizes
            continue
        for reader in own.dimension.readers:
            term = _term_of(terms, reader.module, kinds, positions, macs=macs)
            term.reads.append((span, _channels(reader.index)))
        for writer in own.dimension.writers:
            term = _term_of(terms, writer.module, kinds, positions, macs=macs)
            term.writes.append((span, _channels(writer.index)))
            if not macs and getattr(modules[writer.module], "bias", None) is not None:
                fixed[span] += _channels(writer.index)
        for between in own.dimension.between:
            each = _each_channel(modules[between.module], positions.get(between.module), macs=macs)
            fixed[span] += each * _channels(between.index)
        if own.kind == "heads" and macs:
            fixed[span] += work.products(module_of(own.dimension)) / own.count
    dense = work.total if macs else float(sum(p.numel() for p in model.parameters()))
    return CountedCosts(grouping, dense, list(terms.values()), fixed, quantity)


def _channels(index: Tensor) -> float:
    """Return the number of channels of a group."""
    return float(index.shape[1])


def _term_of(
    terms: dict[str, _Term],
    name: str,
    kinds: Mapping[str, Kind],
    positions: Mapping[str, float],
    *,
    macs: bool,
) -> _Term:
    if name not in terms:
        kind = kinds[name]
        rows, width = kind.matrix(kind.weight).shape
        kernel = 1
        if isinstance(kind, Convolution):
            kernel = kind.module.kernel_size[0] * kind.module.kernel_size[1]
        places = positions.get(name, 0.0) if macs else 1.0
        inputs = width // kernel * kind.groups
        terms[name] = _Term(places * kernel / kind.groups, inputs, rows, [], [])
    return terms[name]


def _each_channel(module: nn.Module, positions: float | None, *, macs: bool) -> float:
    """Return the cost of a channel of a module with entries by channel."""
    entries = sum(p.numel() / len(p) for p in module.parameters(recurse=False))
    if not macs:
        return float(entries)
    if isinstance(module, nn.Conv2d):  # depthwise
        return float(module.weight[0].numel()) * (positions or 0.0)
    return 0.0


def measure_costs(grouping: Grouping, model: nn.Module, example_inputs: Any) -> TableCosts:
    """Measure the latency of the model by the widths of its dimensions.

    Measurements are cached on disk; see :func:`icbs.structure.latency.latency_tables`.

    Raises
    ------
    LayerError
        For groups that can't be cut.
    """
    from icbs.structure.latency import latency_tables

    dimensions = [own.dimension for own in grouping.sets if own.dimension is not None]
    if len(dimensions) < len(grouping.sets) or any(d.kind == "blocks" for d in dimensions):
        raise LayerError(
            "a budget of latency needs heads, neurons or channels, whose removal is measured; use "
            "density, or a budget of macs or parameters"
        )
    return TableCosts(grouping, *latency_tables(model, dimensions, example_inputs))
