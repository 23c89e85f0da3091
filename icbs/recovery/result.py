"""The result of a recovery, its history, and its progress for callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from icbs.export.headers import Count, Header, Seconds
from icbs.formatting import duration, significant


@dataclass(frozen=True)
class StepRecord:
    """One row of the history: a step of a method.

    Losses are measured after the step; those on calibration samples on as many as are held out.
    """

    method: str
    step: int
    """Number of steps of the method done, from 1; 0 for its initial state."""
    label: str
    """Layer, block, epoch or iteration."""
    calibration_error: float
    """Error that the method minimises, on the calibration samples; NaN if it has none."""
    heldout_error: float
    """The same on held-out samples."""
    calibration_loss: float
    """NaN if the loss was not measured."""
    heldout_loss: float
    best: bool
    """Whether the state is the best so far; see :attr:`RecoveryConfig.judge`."""
    seconds: float
    """Wall seconds since the start. Only these differ between repetitions."""
    heldout_divergence: float = float("nan")
    """Divergence from the dense model on held-out samples, if it decides; otherwise NaN."""


@dataclass(frozen=True)
class RecoveryProgress:
    """Progress of a recovery after a step, for callbacks."""

    method: str
    label: str
    done: int
    """Number of steps of the method done."""
    total: int
    """Number of steps of the method, if it does not stop early."""
    seconds: float
    """Wall seconds since the start."""
    remaining: float
    """Estimated seconds left for this method; NaN before its first step."""
    row: StepRecord
    initial_loss: float
    """Held-out loss of the pruned model before the recovery."""
    best_loss: float
    """Held-out loss of the best state so far."""
    model: nn.Module
    """The model in its current state."""


@dataclass(frozen=True, repr=False)
class RecoveryResult:
    """Figures of a recovery; the model has its best state, as :attr:`RecoveryConfig.judge` says."""

    method: str
    """The method whose state is best; ``none`` if that is the initial state."""
    initial_loss: float
    """Held-out loss of the pruned model before the recovery."""
    loss: float
    """Held-out loss of the recovered model; at most :attr:`initial_loss`."""
    dense_loss: float
    """Held-out loss of the dense model; NaN without one."""
    initial_calibration_loss: float
    calibration_loss: float
    """Loss on calibration samples, before and after. If it falls much more than the held-out loss,
    the recovery overfits."""
    density: float
    """Share of the masked layers' weights that is kept."""
    seconds: float
    history: list[StepRecord] = field(default_factory=list)
    masks: dict[str, Tensor] = field(default_factory=dict)
    """The masks, which hold exactly."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Methods that ``auto`` could not try, with the reason."""
    initial_divergence: float = float("nan")
    divergence: float = float("nan")
    """Divergence from the dense model on held-out samples, before and after, if it decides;
    otherwise NaN."""

    def __repr__(self) -> str:
        return (
            f"RecoveryResult(method={self.method!r}, loss={significant(self.loss)}, "
            f"initial_loss={significant(self.initial_loss)}, density={self.density:.4g}, "
            f"{duration(self.seconds)})"
        )

    def __str__(self) -> str:
        return "\n".join(describe(self.summary()))

    def summary(self) -> dict[str, Any]:
        """Return the figures as a dict of JSON types."""
        return {
            "method": self.method,
            "initial_loss": self.initial_loss,
            "loss": self.loss,
            "dense_loss": self.dense_loss,
            "initial_calibration_loss": self.initial_calibration_loss,
            "calibration_loss": self.calibration_loss,
            "initial_divergence": self.initial_divergence,
            "divergence": self.divergence,
            "density": self.density,
            "weights": sum(mask.numel() for mask in self.masks.values()),
            "layers": len(self.masks),
            "steps": len(self.history),
            "overfits": overfits(self.history),
            "skipped": self.skipped,
            "seconds": self.seconds,
        }


class RecoverySummary(Header):
    """``summary.json`` of a finished recovery; see :meth:`RecoveryResult.summary`."""

    method: str
    initial_loss: float
    loss: float
    dense_loss: float
    initial_calibration_loss: float
    calibration_loss: float
    initial_divergence: float = float("nan")
    divergence: float = float("nan")
    density: float
    weights: Count
    layers: Count
    steps: Count
    overfits: bool = False
    skipped: dict[str, str]
    seconds: Seconds
    files: dict[str, str]
    """Digests of the model's files, by path within the folder."""


OTHER_SAMPLES = (
    "the losses of a recovery are of other held-out samples than those of its run, so the same "
    "weights have two"
)
"""Sentence where the losses of a run and of its recovery are shown."""


def describe(summary: dict[str, Any]) -> list[str]:
    """Return lines on the losses and the method of a recovery."""
    lines = []
    for name, key in (("held-out", "loss"), ("calibration", "calibration_loss")):
        before, after = summary[f"initial_{key}"], summary[key]
        line = f"{name} loss {significant(before)} before the recovery, {significant(after)} after"
        if key == "loss" and summary["dense_loss"] == summary["dense_loss"]:
            line += f" (dense {significant(summary['dense_loss'])})"
        lines.append(line)
    divergence = summary.get("divergence", float("nan"))
    judged = "loss"
    if divergence == divergence:
        judged = "divergence without a higher loss"
        lines.append(
            f"held-out divergence from the dense model "
            f"{significant(summary['initial_divergence'])} before, {significant(divergence)} after"
        )
    if summary["method"] == "none":
        lines.append(f"no step lowered the held-out {judged}; the model is as before the recovery")
    else:
        lines.append(f"best state by {summary['method']}")
    if summary["overfits"]:
        lines.append(
            "after its best state the calibration loss fell and the held-out loss rose: it "
            "overfits; give it more samples, or self-generated ones (generate)"
        )
    lines += [f"{name} was not tried: {why}" for name, why in summary["skipped"].items()]
    return lines


NOISE = 0.1


def overfits(history: Sequence[StepRecord]) -> bool:
    """Whether a method lowered the calibration loss and raised the held-out loss.

    Its last step is compared with that of its lowest held-out loss. A rise that is small relative
    to the fall of the calibration loss is noise.
    """
    methods: dict[str, list[StepRecord]] = {}
    for row in history:
        if row.heldout_loss == row.heldout_loss:
            methods.setdefault(row.method, []).append(row)
    return any(
        rows[-1].calibration_loss < low.calibration_loss
        and rows[-1].heldout_loss - low.heldout_loss
        > NOISE * (low.calibration_loss - rows[-1].calibration_loss)
        for rows in methods.values()
        for low in [min(rows, key=lambda row: row.heldout_loss)]
    )


def best_method(history: Sequence[StepRecord]) -> str:
    """Return the method of the best state; ``none`` if that is the initial one."""
    return next((row.method for row in reversed(history) if row.best), "none")
