"""Neurons and channels by the dependency graph of Torch-Pruning (arXiv 2301.12900).

The graph follows a traced call of any model and says which inputs and outputs belong together.
Only this file imports the package.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from icbs.data.pytree import call
from icbs.downloads.optional import optional
from icbs.structure.dimension import Dimension, Slice
from icbs.structure.matrices import (
    inputs_of,
    is_batch_norm,
    is_convolution,
    is_depthwise,
    is_linear,
    is_transposed,
    outputs_of,
)
from icbs.structure.outputs import output_tensors

Entry = tuple[str, str, int]
"""Module, role (``readers``, ``writers``, ``between``), channel."""


class UnfollowedError(Exception):
    """A dimension that can't be cut; the message names the module and the reason."""


class NormalisedError(UnfollowedError):
    """A dimension with a normalisation or embedding, as the residual stream of transformers."""


@dataclass
class Graph:
    """The dependency graph of a model for one call.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    inputs
        Inputs of a call: a dict by keyword, a tuple or list by position.

    Raises
    ------
    MissingPackageError
        If torch-pruning is not installed.
    """

    model: nn.Module
    inputs: Any
    names: dict[nn.Module, str] = field(init=False)

    def __post_init__(self) -> None:
        self.pruning = optional("torch_pruning")
        self.names = {module: name for name, module in self.model.named_modules()}
        self.graph = self.pruning.DependencyGraph()
        transposed = {type(m): self._transposed() for m in self.names if is_transposed(m)}
        with warnings.catch_warnings(), _requiring_gradients(self.model), torch.enable_grad():
            warnings.simplefilter("ignore")  # of parameters outside of known modules
            self.graph.build_dependency(
                self.model,
                example_inputs=self.inputs,
                forward_fn=call,
                output_transform=output_tensors,
                customized_pruners=transposed,
            )

    def dimension(self, writer: str) -> Dimension | None:
        """Return the dimension that a module writes; None if nothing reads it.

        Raises
        ------
        UnfollowedError
        """
        module = self.model.get_submodule(writer)
        if module not in self.graph.module2node:
            return None
        groups = self._groups(module)
        roles: dict[str, list[Slice]] = {"readers": [], "writers": [], "between": []}
        found: dict[tuple[str, str], list[list[int]]] = {}
        for number, group in enumerate(groups):
            for name, role, channel in sorted(group):
                if (name, role) not in found:
                    found[name, role] = [[] for _ in groups]
                found[name, role][number].append(channel)
        for (name, role), rows in found.items():
            if len({len(row) for row in rows}) != 1:
                raise UnfollowedError(f"{name} has other channels than {writer}")
            roles[role].append(Slice(name, torch.tensor(rows)))
        if not roles["readers"]:
            return None
        spatial = any(is_convolution(self.model.get_submodule(name)) for name, _ in found)
        kind = "channels" if spatial else "neurons"
        order = list(self.names.values())
        readers, writers, between = (
            tuple(sorted(roles[role], key=lambda part: order.index(part.module)))
            for role in ("readers", "writers", "between")
        )
        name = f"{writer} {kind}"
        return Dimension(name, kind, len(groups), readers, writers, between)

    def _groups(self, module: nn.Module) -> list[set[Entry]]:
        """Return the entries that belong to each channel of a writer, coupled ones joined."""
        count = outputs_of(module)
        if (regular := self._regular(module, count)) is not None:
            return regular
        # Channels may be tied among themselves, as in gated units after a split.
        owner: dict[Entry, int] = {}
        joined: dict[int, set[Entry]] = {}
        for number in range(count):
            own = self._entries(module, number)
            for other in {owner[entry] for entry in own if entry in owner}:
                own |= joined.pop(other)
            joined[number] = own
            owner.update(dict.fromkeys(own, number))
        return list(joined.values())

    def _regular(self, module: nn.Module, count: int) -> list[set[Entry]] | None:
        """Return the entries of all channels if they advance by equal steps, else None.

        The graph needs a time quadratic in the number of channels asked for, so that only the
        first two and the last are.
        """
        if count < 3:
            return None
        first, second, last = (sorted(self._entries(module, n)) for n in (0, 1, count - 1))
        if [entry[:2] for entry in first] != [entry[:2] for entry in second]:
            return None
        steps = [(one[2], other[2] - one[2]) for one, other in zip(first, second, strict=True)]
        if any(step == 0 for _, step in steps):
            return None
        groups = [
            {(*entry[:2], start + step * number)
             for entry, (start, step) in zip(first, steps, strict=True)}
            for number in range(count)
        ]  # fmt: skip
        return groups if groups[-1] == set(last) else None

    def _entries(self, module: nn.Module, channel: int) -> set[Entry]:
        """Return the entries that the graph ties to an output channel of a module."""
        try:
            pruner = self.graph.get_pruner_of_module(module)
            with self._bounded():
                group = self.graph.get_pruning_group(module, pruner.prune_out_channels, [channel])
        except Exception as error:  # of functions and modules that the package mishandles
            raise UnfollowedError(
                f"the dependency graph fails ({type(error).__name__}: {error!s:.200})"
            ) from error
        found: set[Entry] = set()
        for item in group:
            if (role := self._role(item.dep)) is not None:
                name = self.names[item.dep.target.module]
                found.update((name, role, int(index)) for index in item.idxs)
        return found

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Let the search for a group fail where its indices shift forever (rotary embeddings)."""
        kind = self.pruning.dependency.group.Group
        nodes = self.graph.module2node.values()
        most = 2 * sum(len(node.dependencies) for node in nodes) + 100
        plain = kind.add_dep

        def add_dep(group: Any, dep: Any, idxs: Any) -> None:
            if len(group) > most:
                raise RuntimeError("a channel is followed in circles")
            plain(group, dep, idxs)

        kind.add_dep = add_dep
        try:
            yield
        finally:
            kind.add_dep = plain

    def _role(self, dependency: Any) -> str | None:
        """Return the role of a module in a dimension; None for a function without weights."""
        target = dependency.target.module
        if isinstance(target, nn.Parameter):
            name = next(n for n, p in self.model.named_parameters() if p is target)
            raise NormalisedError(f"the parameter {name} has an entry per channel")
        if target not in self.names:
            return None
        if is_linear(target) or is_convolution(target):
            out = self.graph.is_out_channel_pruning_fn(dependency.handler)
            return "writers" if out else "readers"
        if is_batch_norm(target) or is_depthwise(target):
            return "between"
        if not any(True for _ in target.parameters()):
            return None
        kind = type(target).__name__
        raise NormalisedError(f"{self.names[target]} ({kind}) mixes or scales the channels")

    def _transposed(self) -> Any:
        """Return the description of Conv1D that the graph needs."""
        base = self.pruning.BasePruningFunc

        class Conv1D(base):  # type: ignore[misc,valid-type]
            def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
                raise NotImplementedError

            def prune_in_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
                raise NotImplementedError

            def get_out_channels(self, layer: nn.Module) -> int:
                return outputs_of(layer)

            def get_in_channels(self, layer: nn.Module) -> int:
                return inputs_of(layer)

        return Conv1D()


@contextmanager
def _requiring_gradients(model: nn.Module) -> Iterator[None]:
    """Let all parameters require gradients within the context: the graph follows them."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
