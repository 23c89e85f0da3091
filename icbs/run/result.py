"""What a run hands back, and what it says while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from icbs.model.coverage import kept_zeros
from icbs.run.context import RunContext
from icbs.run.history import Row
from icbs.run.state import RunState


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a pass, as handed to a callback."""

    step: int
    """Passes done."""
    passes: int
    """Passes wanted."""
    seconds: float
    """Wall seconds spent on pruning."""
    remaining: float
    """Seconds left, at the pace of the last passes and within the time limit; NaN before the
    first pass."""
    loss: float
    """Held-out loss of the current mask."""
    density: float
    """Share of the prunable weights that is kept."""
    blocks: int
    accepted: int
    model: nn.Module
    """The model as pruned so far, for a callback that evaluates it."""

    @classmethod
    def of(cls, context: RunContext, state: RunState) -> Progress:
        """Describe a state."""
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
    history: Sequence[Row], step: int, seconds: float, started: float = 0.0, last: int = 10
) -> float:
    """Mean wall seconds of the last passes for each of their samples.

    Parameters
    ----------
    history : sequence of Row
    step : int
        Passes done.
    seconds : float
        Wall seconds spent since the run began.
    started : float
        Those of the start, before the first pass.
    last : int
        Passes looked at, at most.
    """
    ends: dict[int, Row] = {}
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
    passes = (latest.step - first.step) / (len(ends) - 1)  # those without a block left no row
    return (latest.seconds - first.seconds) / (samples * passes)


@dataclass(frozen=True)
class Result:
    """A pruned model's masks, and how they came about."""

    masks: dict[str, Tensor]
    """Layer name → mask, True where the weight is kept, in its own shape."""
    history: list[Row]
    """One row for each block."""
    density: float
    """Share of the prunable weights that is kept."""
    loss: float
    """Held-out loss of these masks."""
    initial_loss: float
    """Held-out loss of the initial masks."""
    passes: int
    seconds: float
    model_density: float = 1.0
    """Share of all matrix weights that is kept, those left dense among them."""
    left_dense: dict[str, int] = field(default_factory=dict)
    """Parameter → number of weights, of all matrix weights that are left dense: embeddings,
    output layers, excluded layers, and those of no kind that can be pruned."""
    kept_zeros: int = 0
    """Weights that the masks keep though they were 0 before pruning."""

    @classmethod
    def of(cls, context: RunContext, state: RunState) -> Result:
        """Describe a finished run, whose best masks are set."""
        kept = sum(layer.num_kept for layer in context.layers)
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
        )

    def __str__(self) -> str:
        from icbs.report.text import describe

        return describe(self.summary(), self.masks, self.history)

    @property
    def accepted(self) -> float:
        """Share of the blocks whose move was kept."""
        return sum(row.accepted for row in self.history) / max(1, len(self.history))

    @property
    def first_failure(self) -> Row | None:
        """The first block that the solver failed on, if there is one."""
        return next((row for row in self.history if row.failure), None)

    def summary(self) -> dict[str, Any]:
        """Figures of the run, as a plain dict."""
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
            "seconds": self.seconds,
            "solver_seconds": sum(row.solver_seconds for row in self.history),
        }
