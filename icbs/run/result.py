"""The result of a run, and its progress for callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from icbs.formatting import counted, duration, significant
from icbs.groups.summary import summarise
from icbs.model.coverage import kept_zeros
from icbs.run.context import RunContext
from icbs.run.history import BlockRecord
from icbs.run.proof import Proof
from icbs.run.state import RunState


@dataclass(frozen=True)
class Progress:
    """Progress of a run after a pass, for callbacks."""

    step: int
    """Number of passes done."""
    passes: int
    """Number of passes of the whole run."""
    seconds: float
    """Wall seconds spent on pruning."""
    remaining: float
    """Estimated seconds left, from the speed of the last passes and the time limit; NaN before
    the first pass."""
    loss: float
    """Held-out loss of the current mask."""
    density: float
    """Share of the prunable weights that is kept."""
    blocks: int
    accepted: int
    model: nn.Module
    """The model with the current masks."""

    @classmethod
    def of(cls, context: RunContext, state: RunState) -> Progress:
        """Return the progress of a state."""
        seconds, step, passes = state.seconds, state.step, context.config.passes
        pace = seconds_a_sample(state.history, step, seconds, state.start_seconds)
        pace *= context.num_samples * (passes - step)
        limit = context.config.time_limit
        return cls(
            step=step,
            passes=passes,
            seconds=seconds,
            remaining=pace if limit is None else min(pace, max(0.0, limit - seconds)),
            loss=state.loss,
            density=context.density,
            blocks=len(state.history),
            accepted=sum(row.accepted for row in state.history),
            model=context.model,
        )


def seconds_a_sample(
    history: Sequence[BlockRecord], step: int, seconds: float, started: float = 0.0, last: int = 10
) -> float:
    """Return the mean wall seconds per sample of the last passes.

    Parameters
    ----------
    history : sequence of BlockRecord
    step : int
        Number of passes done.
    seconds : float
        Wall seconds since the start of the run.
    started : float
        Wall seconds before the first pass.
    last : int
        Number of passes to average over.
    """
    ends: dict[int, BlockRecord] = {}
    for row in reversed(history):
        ends.setdefault(row.step, row)
        if row.step < step - last:
            break
    if not ends:
        return float("nan")
    first, latest = ends[min(ends)], ends[max(ends)]
    if first is latest:
        return (seconds - started) / (step * latest.samples)
    samples = sum(row.samples for row in ends.values()) - first.samples
    passes = (latest.step - first.step) / (len(ends) - 1)  # passes without blocks have no rows
    return (latest.seconds - first.seconds) / (samples * passes)


@dataclass(frozen=True, repr=False)
class Result:
    """The masks of a pruned model, with the history of the run."""

    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, in the shape of the weight."""
    history: list[BlockRecord]
    """One row per block."""
    density: float
    """Share of the prunable weights, or of the groups, that is kept."""
    loss: float
    """Held-out loss of these masks."""
    initial_loss: float
    """Held-out loss of the initial masks."""
    passes: int
    seconds: float
    model_density: float = 1.0
    """Share of all matrix weights that is kept, including those left dense."""
    left_dense: dict[str, int] = field(default_factory=dict)
    """Parameter → number of weights, for all matrices that are left dense: embeddings, output
    layers, excluded layers, and layers of unsupported types."""
    kept_zeros: int = 0
    """Number of weights that the masks keep although they were 0 before pruning."""
    start_seconds: float = 0.0
    """Wall seconds of the start, before the first pass."""
    costs: dict[str, float] = field(default_factory=dict)
    """Wall seconds by part of the passes; see :class:`icbs.run.costs.Costs`."""
    groups: dict[str, Tensor] = field(default_factory=dict)
    """Dimension, or layer, → kept groups, bool, shape (groups,), if groups were pruned."""
    group_figures: dict[str, Any] = field(default_factory=dict)
    """Numbers of groups and costs; see :func:`icbs.groups.summary.summarise`."""

    @classmethod
    def of(cls, context: RunContext, state: RunState) -> Result:
        """Return the result of a finished run, whose best masks are set."""
        kept = sum(layer.num_kept for layer in context.layers)
        grouping = context.grouping
        return cls(
            masks={layer.name: layer.mask for layer in context.layers},
            history=state.history,
            density=context.density,
            loss=state.best_loss,
            initial_loss=state.initial_loss,
            passes=state.step,
            seconds=state.seconds,
            model_density=context.coverage.density(kept),
            left_dense=context.coverage.left_dense,
            kept_zeros=sum(map(kept_zeros, context.layers)),
            start_seconds=state.start_seconds,
            costs=state.costs.seconds(),
            groups={} if grouping is None else grouping.kept(),
            group_figures={} if grouping is None else summarise(grouping),
        )

    def __repr__(self) -> str:
        return (
            f"Result(density={self.density:.4g}, loss={significant(self.loss)}, "
            f"initial_loss={significant(self.initial_loss)}, "
            f"{counted(len(self.masks), 'layer')}, {counted(self.passes, 'pass')}, "
            f"{counted(len(self.history), 'block')}, {duration(self.seconds)})"
        )

    def __str__(self) -> str:
        from icbs.report.text import describe

        return describe(self.summary(), self.masks, self.history)

    @property
    def accepted(self) -> float:
        """Share of the blocks whose change was accepted."""
        return sum(row.accepted for row in self.history) / max(1, len(self.history))

    @property
    def proof(self) -> Proof:
        """Blocks solved to proven optimality, and the gap of the last one."""
        return Proof.of(self.history)

    @property
    def first_failure(self) -> BlockRecord | None:
        """The first block on which the solver failed; None if there is none."""
        return next((row for row in self.history if row.failure), None)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run as a dict of JSON types."""
        proof = self.proof
        return {
            "density": self.density,
            "layers": len(self.masks),
            "weights": sum(mask.numel() for mask in self.masks.values()),
            "model_density": self.model_density,
            "left_dense": self.left_dense,
            "kept_zeros": self.kept_zeros,
            "initial_loss": self.initial_loss,
            "loss": self.loss,
            "passes": self.passes,
            "blocks": len(self.history),
            "accepted": self.accepted,
            "failures": sum(bool(row.failure) for row in self.history),
            "proved": proof.proved,
            "optimal": proof.optimal,
            "gap": proof.gap,
            "seconds": self.seconds,
            "start_seconds": self.start_seconds,
            "costs": self.costs,
            "solver_seconds": sum(row.solver_seconds for row in self.history),
            **self.group_figures,
        }
