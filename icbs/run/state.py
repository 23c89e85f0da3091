"""State of a run, and its conversion to and from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from icbs.acceptance.rule import AcceptanceRule
from icbs.export.headers import CheckpointFacts
from icbs.export.masks import pack_bits, unpack_bits
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.run.costs import Costs
from icbs.run.history import BlockRecord
from icbs.run.snapshot import Snapshot
from icbs.selection.block_selection import Tabu


@dataclass
class RunState:
    """Mutable state of a run; a checkpoint contains all of it."""

    generator: torch.Generator
    tabus: dict[str, Tabu]
    acceptance: AcceptanceRule
    step: int = 0
    """Number of passes done."""
    attempt: int = 0
    """Number of the attempt at the current pass, from 0."""
    num_samples: int = 0
    """Number of samples in the current pass."""
    samples_seen: int = 0
    """Number of samples in all passes and in the start."""
    loss: float = float("nan")
    """Held-out loss of the current masks."""
    recorded_loss: float = float("nan")
    """The same when the checkpoint was written from which the run is resumed; otherwise NaN."""
    initial_loss: float = float("nan")
    """Held-out loss of the initial masks."""
    best_loss: float = float("inf")
    best: Snapshot = field(default_factory=Snapshot)
    """Masks, and replaced weights, with the lowest held-out loss so far."""
    history: list[BlockRecord] = field(default_factory=list)
    start_seconds: float = 0.0
    """Wall seconds of the start, before the first pass."""
    costs: Costs = field(default_factory=Costs)
    _began: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def seconds(self) -> float:
        """Wall seconds spent, over all resumptions."""
        return time.perf_counter() - self._began

    def set_clock(self, seconds: float) -> None:
        """Continue the clock from a time already spent."""
        self._began = time.perf_counter() - seconds

    def keep_best(self, layers: Sequence[Layer]) -> None:
        """Store the current masks and weights if their held-out loss is the lowest so far."""
        if self.loss <= self.best_loss:
            self.best_loss = self.loss
            self.best = Snapshot.take(layers)

    def finish_pass(self, blocks: Mapping[str, Gates]) -> None:
        """Add the weights of a pass's blocks to the tabu lists, and count the pass."""
        for gates in blocks.values():
            for part in gates.parts:
                self.tabus[part.layer.name].push(part.visited)
        self.step += 1

    def facts(self) -> dict[str, Any]:
        """Return the scalars of a checkpoint; see :class:`icbs.export.headers.CheckpointFacts`."""
        return {
            "step": self.step,
            "samples_seen": self.samples_seen,
            "seconds": self.seconds,
            "initial_loss": self.initial_loss,
            "loss": self.loss,
            "best_loss": self.best_loss,
            "acceptance": self.acceptance.facts(),
            "start_seconds": self.start_seconds,
            "costs": self.costs.seconds(),
            "visits": {name: tabu.visits for name, tabu in self.tabus.items()},
        }

    def tensors(self, layers: Sequence[Layer]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        found = {"generator": self.generator.get_state()}
        found |= Snapshot.take(layers).tensors("current") | self.best.tensors("best")
        for name, tabu in self.tabus.items():
            found |= {f"free/{name}": pack_bits(tabu.free), f"stamp/{name}": tabu.stamp.cpu()}
        return found

    @classmethod
    def restored(
        cls,
        layers: Sequence[Layer],
        acceptance: AcceptanceRule,
        tabu: float,
        facts: CheckpointFacts,
        tensors: Mapping[str, Tensor],
        history: Sequence[BlockRecord],
    ) -> RunState:
        """Build the state that :meth:`facts` and :meth:`tensors` describe; sets the layers.

        Parameters
        ----------
        layers : sequence of Layer
            The layers, dense as at the beginning of the run.
        acceptance : AcceptanceRule
            A new rule, whose state is restored.
        tabu : float
            Length of the tabu lists as a share of the weights that may move.
        facts, tensors, history
            Contents of the checkpoint.

        Raises
        ------
        ValueError, KeyError, RuntimeError
            If an entry is missing, or a mask does not keep the recorded number of weights; the
            layers are then unchanged.
        """
        current = Snapshot.read("current", layers, tensors, facts.kept)
        best = Snapshot.read("best", layers, tensors, facts.kept)
        tabus = {}
        for layer in layers:
            free = unpack_bits(tensors[f"free/{layer.name}"], (layer.size,)).to(layer.dense.device)
            tabus[layer.name] = Tabu(free, tabu)
            tabus[layer.name].restore(tensors[f"stamp/{layer.name}"], facts.visits[layer.name])
        generator = torch.Generator()
        generator.set_state(tensors["generator"])
        acceptance.restore(facts.acceptance.model_dump())
        state = cls(
            generator,
            tabus,
            acceptance,
            step=facts.step,
            samples_seen=facts.samples_seen,
            initial_loss=facts.initial_loss,
            recorded_loss=facts.loss,
            best_loss=facts.best_loss,
            best=best,
            start_seconds=facts.start_seconds,
            costs=Costs.of(facts.costs),
            history=list(history),
        )
        state.set_clock(facts.seconds)
        current.apply(layers)
        return state
