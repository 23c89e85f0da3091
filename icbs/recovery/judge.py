"""Losses and divergence of a recovery on held-out samples, and the best state so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from icbs.data.holdout import HoldOut
from icbs.data.samples import Samples
from icbs.errors import ConfigError, DataError
from icbs.model.layer import Layer
from icbs.recovery.subject import Subject
from icbs.recovery.teacher import Teacher
from icbs.run.same_loss import check_same_loss

NAN = float("nan")


@dataclass(frozen=True)
class Losses:
    """Losses of a state."""

    calibration: float = NAN
    heldout: float = NAN
    divergence: float = NAN
    """Divergence from the dense model on held-out samples; NaN unless it decides."""

    @property
    def finite(self) -> bool:
        """Whether the losses on held-out samples are."""
        return math.isfinite(self.heldout) and not math.isinf(self.divergence)


class Judge:
    """Measure the losses of the model, and keep the best state; see ``RecoveryConfig.judge``.

    Parameters
    ----------
    subject : Subject
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        # As many calibration samples as are held out, so that both losses are equally exact.
        few = subject.samples[: len(subject.heldout)]
        self._calibration, self._heldout = (
            self._holdout(subject.model, subject.layers, samples)
            for samples in (few, subject.heldout)
        )
        self._teacher = judging_teacher(subject)
        self.initial, self.best = Losses(), Losses()
        self.state: dict[str, Tensor] = {}
        """Tensors of the best state."""

    def _holdout(self, model: nn.Module, layers: list[Layer], samples: Samples) -> HoldOut:
        objective, size = self.subject.objective, self.subject.plan.batch_size
        samples = samples.to(self.subject.device)
        return HoldOut(model, layers, objective, samples, size, remember=False)

    def begin(self) -> None:
        """Measure the initial losses.

        Raises
        ------
        DataError
            If the held-out loss is not finite.
        """
        self.initial, _ = self.measure()
        if not self.initial.finite:
            raise DataError(
                f"the loss of the pruned model on held-out samples is {self.initial.heldout}; "
                "check the data, keep more weights, or use a wider floating-point type"
            )

    def measure(self) -> tuple[Losses, bool]:
        """Return the losses of the current state, and whether it is the best so far."""
        found = Losses(self._calibration.measure(), self._heldout.measure(), self._divergence())
        better = not self.state or self._is_better(found)
        if better:
            self.best = found
            self.keep()
        return found, better

    def _is_better(self, found: Losses) -> bool:
        """Whether a state is better than the best so far."""
        if self._teacher is None:
            return found.heldout < self.best.heldout
        return found.divergence < self.best.divergence and found.heldout <= self.initial.heldout

    @torch.no_grad()
    def _divergence(self) -> float:
        """Return the mean divergence from the dense model on held-out samples."""
        if self._teacher is None:
            return NAN
        subject, total = self.subject, 0.0
        for piece in subject.pieces(subject.heldout):
            outputs = subject.objective.run(subject.model, piece.inputs)
            total += float(
                self._teacher.total(outputs, self._teacher.outputs(piece), piece.targets)
            )
        return total / len(subject.heldout)

    def keep(self) -> None:
        """Copy the current state as the best."""
        for name, tensor in self.subject.tensors.items():
            if name in self.state:
                self.state[name].copy_(tensor)
            else:
                self.state[name] = tensor.clone()

    def apply_best(self) -> None:
        """Set the model to the best state."""
        if self.state:
            self.subject.load(self.state)

    def facts(self) -> dict[str, float]:
        """Return the figures for a checkpoint."""
        facts = {
            "initial_loss": self.initial.heldout,
            "initial_calibration": self.initial.calibration,
            "best_loss": self.best.heldout,
            "calibration": self.best.calibration,
        }
        if self.subject.dense is not None:
            facts["dense_loss"] = self.dense_loss
        if self._teacher is not None:
            facts |= {
                "initial_divergence": self.initial.divergence,
                "best_divergence": self.best.divergence,
            }
        return facts

    @torch.no_grad()
    def restore(self, facts: Mapping[str, float], tensors: Mapping[str, Tensor]) -> None:
        """Restore figures and the best state from a checkpoint."""
        self.initial = Losses(
            facts["initial_calibration"],
            facts["initial_loss"],
            facts.get("initial_divergence", NAN),
        )
        self.best = Losses(
            facts["calibration"], facts["best_loss"], facts.get("best_divergence", NAN)
        )
        self.state = {name: tensors[name].to(t) for name, t in self.subject.tensors.items()}

    def check_same(self, facts: Mapping[str, float], folder: Path) -> None:
        """Refuse to continue a recovery with another loss or dense model; sets the best state.

        Parameters
        ----------
        facts : mapping
            Figures of the checkpoint that was restored.
        folder : Path
            That of the recovery, for the message.

        Raises
        ------
        RunFolderError
        """
        self.apply_best()
        recorded = facts.get("dense_loss", NAN)  # earlier releases did not write it
        check_same_loss(self._heldout.measure(), self.best.heldout, folder, "best state")
        check_same_loss(self.dense_loss, recorded, folder, "dense model of the recovery")

    @cached_property
    def dense_loss(self) -> float:
        """Held-out loss of the dense model; NaN without one."""
        subject = self.subject
        if subject.dense is None:
            return NAN
        return self._holdout(subject.dense, subject.dense_layers, subject.heldout).measure()


def judging_teacher(subject: Subject) -> Teacher | None:
    """Return the teacher whose divergence decides; None if the loss does.

    Raises
    ------
    ConfigError
        If the divergence is to decide, and there is no dense model.
    DataError
        If the loss has no known distribution.
    """
    if subject.config.judge == "loss":
        return None
    if subject.dense is None:
        raise ConfigError(
            "judge='divergence' needs the dense model, and this one is pruned already; pass the "
            "dense model (dense), or set judge='loss'"
        )
    try:
        return Teacher(subject.dense, subject.objective)
    except DataError as error:
        raise DataError(
            f"judge='divergence' is not possible: {str(error).split(':')[0]}; set judge='loss'"
        ) from error
