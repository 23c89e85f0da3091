"""Held-out and calibration loss of a recovery, and the best state so far."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from icbs.data.holdout import HoldOut
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.model.layer import Layer
from icbs.recovery.subject import Subject


class Judge:
    """Measure the losses of the model, and keep the state of lowest held-out loss.

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
        self.initial_loss = self.initial_calibration = self.calibration = float("nan")
        self.best_loss = float("inf")
        self.best: dict[str, Tensor] = {}

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
        self.initial_calibration, self.initial_loss, _ = self.measure()
        if not math.isfinite(self.initial_loss):
            raise DataError(
                f"the loss of the pruned model on held-out samples is {self.initial_loss}; check "
                "the data, keep more weights, or use a wider floating-point type"
            )

    def measure(self) -> tuple[float, float, bool]:
        """Return calibration loss, held-out loss, and whether it is the lowest so far."""
        loss, calibration = self._heldout.measure(), self._calibration.measure()
        better = loss < self.best_loss
        if better:
            self.best_loss, self.calibration = loss, calibration
            self.keep()
        return calibration, loss, better

    def keep(self) -> None:
        """Copy the current state as the best."""
        for name, tensor in self.subject.tensors.items():
            if name in self.best:
                self.best[name].copy_(tensor)
            else:
                self.best[name] = tensor.clone()

    def apply_best(self) -> None:
        """Set the model to the best state."""
        if self.best:
            self.subject.load(self.best)

    def facts(self) -> dict[str, float]:
        """Return the figures for a checkpoint."""
        return {
            "initial_loss": self.initial_loss,
            "initial_calibration": self.initial_calibration,
            "best_loss": self.best_loss,
            "calibration": self.calibration,
        }

    @torch.no_grad()
    def restore(self, facts: Mapping[str, float], tensors: Mapping[str, Tensor]) -> None:
        """Restore figures and the best state from a checkpoint."""
        self.initial_loss, self.best_loss = facts["initial_loss"], facts["best_loss"]
        self.initial_calibration = facts["initial_calibration"]
        self.calibration = facts["calibration"]
        self.best = {name: tensors[name].to(t) for name, t in self.subject.tensors.items()}

    def dense_loss(self) -> float:
        """Return the held-out loss of the dense model; NaN without one."""
        subject = self.subject
        if subject.dense is None:
            return float("nan")
        return self._holdout(subject.dense, subject.dense_layers, subject.heldout).measure()
