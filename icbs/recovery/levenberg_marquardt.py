"""Steps of Levenberg and Marquardt on all kept weights, with λ chosen by held-out samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from icbs.config.constants import MOVING_CALLS
from icbs.data.objective import Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples, epoch_order
from icbs.model.layer import Layer
from icbs.recovery.closed_form import ClosedForm
from icbs.recovery.direction import Direction
from icbs.recovery.gradient_rows import GradientRows
from icbs.recovery.teacher import Teacher

if TYPE_CHECKING:
    from icbs.recovery.global_step import GlobalSettings

GRID = 10**0.5
"""Ratio of neighbouring values of λ."""
FIRST = GRID**-2
"""λ that is tried first, in units of the largest eigenvalue of the curvature."""
RANGE = (1e-7, 1e3)
"""Range of λ, in the same unit."""
MOST_TRIALS = 4096
"""Maximum number of held-out samples that choose λ."""
CACHE = 1 << 28
"""Bytes of cached outputs of the dense model."""


@dataclass
class Problem:
    """A model whose kept weights are to minimise a loss."""

    model: nn.Module
    """In evaluation mode."""
    layers: Sequence[Layer]
    """Layers whose kept weights move."""
    objective: Objective
    samples: Samples
    """Samples of gradients and curvature."""
    heldout: Samples
    """Samples that choose λ."""
    settings: GlobalSettings
    batch_size: int
    """Samples in one forward and backward pass."""
    seed: int
    """Seed of the order of the samples."""
    teacher: Teacher | None = None
    """Minimise the divergence from the dense model instead of the loss."""
    biases: bool = True
    """Whether biases of the layers move as well."""
    memory: int = MOVING_CALLS
    """Bytes for stored inputs and output gradients of layers."""
    _cache: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        """Device of the layers."""
        return self.layers[0].dense.device

    def linearise(self, number: int, generator: torch.Generator) -> tuple[ClosedForm, float]:
        """Compute gradient and curvature at the current weights, and the loss of their samples.

        Parameters
        ----------
        number : int
            Number of linearisations before; each uses the next samples of an epoch.
        generator : torch.Generator
            For targets drawn from the model.
        """
        settings, pool = self.settings, self.samples
        count = min(len(pool), settings.gradient_samples)
        data = pool[epoch_order(len(pool), number * count, count, self.seed)]
        whole = self._rows(data, self.teacher, None)
        gradient = whole.mean()
        few, teacher = data[: samples_of_rows(data, settings)[0]], self.teacher
        if settings.curvature == "monte-carlo":
            few, teacher = self.drawn(few, generator), None
        rows = self._rows(few, teacher, settings.positions)
        rows.hold()
        form = ClosedForm.of(
            rows,
            gradient=gradient,
            factors=self._factors(few, whole.loss).repeat_interleave(rows.runs),
            columns=settings.columns,
            generator=generator,
        )
        return form, whole.loss

    def diagonal(self, generator: torch.Generator) -> tuple[Direction, dict[str, Tensor]]:
        """Compute the mean gradient, also of pruned weights, and the curvature's diagonal.

        Parameters
        ----------
        generator : torch.Generator
            For targets drawn from the model.

        Returns
        -------
        gradient : Direction
        diagonal : dict of str to Tensor, shape (out, in)
            By layer name, with each position of a sequence as a row.
        """
        settings = self.settings
        data = self.samples[: settings.gradient_samples]
        rows = self._rows(data, self.teacher, None)
        gradient = rows.mean(masked=False)
        loss = rows.loss
        few, teacher = data[: settings.rows], self.teacher
        if settings.curvature == "monte-carlo":
            few, teacher = self.drawn(few, generator), None
        curvature = self._rows(few, teacher, None).squares(self._factors(few, loss))
        return gradient, curvature

    def _factors(self, samples: Samples, loss: float) -> Tensor:
        """Return the factors that make products of gradients those of the Hessian, shape (N,).

        Products of gradients are in expectation the Hessian, up to the number of targets that a
        sample's loss is averaged over, and the loss's dispersion. Without them the step would be
        too long by a factor of hundreds for sequences, and λ so large that no curvature is left.

        Parameters
        ----------
        samples : Samples
            Of the curvature, with the targets of its gradients.
        loss : float
            Mean loss of the data.
        """
        drawn = self.settings.curvature == "monte-carlo"
        counts = self.objective.averaged(samples.targets)
        return counts / self.objective.dispersion(loss, samples.targets, drawn=drawn)

    def _rows(self, samples: Samples, teacher: Teacher | None, run: int | None) -> GradientRows:
        return GradientRows(
            self.model,
            self.layers,
            self.objective,
            samples.to(self.device),
            batch_size=self.batch_size,
            run=run,
            biases=self.biases,
            memory=self.memory,
            teacher=teacher,
        )

    @torch.no_grad()
    def drawn(self, samples: Samples, generator: torch.Generator) -> Samples:
        """Replace targets by targets drawn from the model.

        Raises
        ------
        DataError
            If the loss has no known distribution.
        """
        found = []
        for piece in self._pieces(samples):
            outputs = self.objective.run(self.model, piece.inputs)
            found.append(self.objective.sample_targets(outputs, piece.targets, generator).cpu())
        return Samples(samples.inputs, torch.cat(found))

    @torch.no_grad()
    def measure(self) -> float:
        """Return the mean loss that is minimised, on held-out samples."""
        total, few = 0.0, self.heldout[:MOST_TRIALS]
        for number, piece in enumerate(self._pieces(few)):
            outputs = self.objective.run(self.model, piece.inputs)
            if self.teacher is None:
                total += float(self.objective.total(outputs, piece.targets))
            else:
                taught = self._taught(number, piece)
                total += float(self.teacher.total(outputs, taught, piece.targets))
        return total / len(few)

    def _taught(self, number: int, piece: Samples) -> Tensor:
        """Return the dense model's outputs for a part of the held-out samples, cached if small."""
        assert self.teacher is not None
        if number in self._cache:
            return self._cache[number]
        taught = self.teacher.outputs(piece)
        if sum(tensor.nbytes for tensor in self._cache.values()) + taught.nbytes <= CACHE:
            self._cache[number] = taught
        return taught

    def _pieces(self, samples: Samples) -> Iterator[Samples]:
        for start in range(0, len(samples), self.batch_size):
            yield samples[start : start + self.batch_size].to(self.device)


class Search:
    """Search for the λ with the lowest held-out loss, on a logarithmic grid.

    Parameters
    ----------
    problem : Problem
    form : ClosedForm
        Of the model's current weights.
    """

    def __init__(self, problem: Problem, form: ClosedForm) -> None:
        self.problem, self.form = problem, form
        self.before = self._copy()
        self.loss = problem.measure()
        """Lowest held-out loss so far."""
        self.best: list[tuple[Tensor, Tensor | None]] | None = None
        self._ready: dict[float, Direction] = {}

    def run(self, start: float) -> float | None:
        """Set the best weights found.

        Parameters
        ----------
        start : float
            λ that is tried first, in units of the largest eigenvalue of the curvature.

        Returns
        -------
        float or None
            The best λ in that unit; None if none lowers the loss, and the weights are as before.
        """
        if not self.form.scale > 0:
            return None
        try:
            return self._descend(start)
        finally:
            self._set(self.before if self.best is None else self.best)

    def _descend(self, start: float) -> float | None:
        found = start if self._improves(start) else None
        trial = start / GRID
        while found is not None and trial >= RANGE[0] and self._improves(trial):
            found, trial = trial, trial / GRID
        if found not in (None, start):
            return found
        trial = start * GRID
        while trial <= RANGE[1]:
            if self._improves(trial):
                found = trial
            elif found is not None:
                break
            trial *= GRID
        return found

    def _improves(self, damping: float) -> bool:
        """Try a λ; keep its weights if their loss is the lowest so far."""
        self._set(self.before, self._change(damping))
        loss = self.problem.measure()
        if not loss < self.loss:
            return False
        self.loss, self.best = loss, self._copy()
        return True

    def _change(self, damping: float) -> Direction:
        """Return the step for a λ."""
        self._set(self.before)  # where the gradients are taken
        if self.form.rows.held:
            return self.form.solve(damping * self.form.scale)
        if damping not in self._ready:  # one pass over the samples for λ and its neighbours
            tried = [damping, damping / GRID, damping * GRID]
            found = self.form.solve_all([each * self.form.scale for each in tried])
            self._ready = dict(zip(tried, found, strict=True))
        return self._ready.pop(damping)

    def _copy(self) -> list[tuple[Tensor, Tensor | None]]:
        return [
            (
                layer.weight.clone(),
                layer.kind.module.bias.detach().clone() if self._moves(layer) else None,
            )
            for layer in self.problem.layers
        ]

    def _moves(self, layer: Layer) -> bool:
        return layer.name in self.form.rows.with_bias

    @torch.no_grad()
    def _set(
        self, values: Sequence[tuple[Tensor, Tensor | None]], change: Direction | None = None
    ) -> None:
        """Set weights and biases, plus a change."""
        for layer, (weight, bias) in zip(self.problem.layers, values, strict=True):
            if change is not None:
                weight = weight + change.weights[layer.name]
                bias = None if bias is None else bias + change.biases[layer.name]
            layer.kind.weight.copy_(layer.kind.shaped(weight))
            if bias is not None:
                layer.kind.module.bias.copy_(bias)


def samples_of_rows(samples: Samples, settings: GlobalSettings) -> tuple[int, int]:
    """Return the number of samples that the rows of the curvature are from, and of these rows."""
    counted = counted_positions(samples)
    each = 1 if counted is None else math.ceil(counted.shape[1] / settings.positions)
    count = min(len(samples), max(1, settings.rows // each))
    return count, count * each
