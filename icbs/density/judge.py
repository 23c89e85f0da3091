"""Figures of a model on samples that pruning never sees: held-out ones, or a task's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from icbs.data.losses import CausalLMLoss, logits_of
from icbs.data.objective import Loss, Objective
from icbs.data.pytree import tensors, tree_map
from icbs.data.samples import IGNORED, Samples
from icbs.errors import DataError
from icbs.formatting import STANDARD_ERROR, counted

if TYPE_CHECKING:
    from icbs.zoo.task import Task

Evaluate = Callable[[nn.Module], Mapping[str, "float | Tensor"]]
"""``evaluate(model)``: figures by name, ``loss`` and ``accuracy`` among them: numbers, with their
standard errors under ``NAME_standard_error``, or one value per sample, shape (samples,), from
which paired intervals are computed."""


@dataclass(frozen=True)
class Measurement:
    """Figures of a model."""

    figures: dict[str, float]
    """Means by name, with standard errors under ``NAME_standard_error`` where they are known."""
    each: dict[str, Tensor]
    """One value per sample, float64, for the figures for which they are known."""

    @classmethod
    def of(cls, found: Mapping[str, float | Tensor]) -> Measurement:
        """Compute means and standard errors of values per sample.

        Raises
        ------
        DataError
            If a value is neither a number nor one per sample. A pruned model may have figures that
            are not finite, such as the loss of one that overflows: it misses the target.
        """
        figures: dict[str, float] = {}
        each: dict[str, Tensor] = {}
        for name, value in found.items():
            if isinstance(value, Tensor) and value.ndim == 1 and len(value):
                values = value.detach().double().cpu()
                each[name] = values
                figures[name] = float(values.mean())
                error = float(values.std(correction=0)) / len(values) ** 0.5
                figures[name + STANDARD_ERROR] = error
            elif isinstance(value, int | float) or (isinstance(value, Tensor) and not value.ndim):
                figures[name] = float(value)
            else:
                raise DataError(
                    f"evaluate returned {type(value).__name__} for {name!r}; return a number, or a "
                    "tensor with one value per sample"
                )
        return cls(figures, each)


@dataclass(frozen=True)
class Judge:
    """A way to measure a model on samples that pruning does not see."""

    measure: Callable[[nn.Module], Measurement]
    about: str
    """Description of the samples."""
    dense: Measurement | None = None
    """Of the dense model, if it was measured before."""


def by_function(evaluate: Evaluate, about: str = "the given function") -> Judge:
    """Return a judge that calls a function; see :data:`Evaluate`."""

    def measure(model: nn.Module) -> Measurement:
        with torch.no_grad():
            return Measurement.of(evaluate(model))

    return Judge(measure, about)


def by_task(task: Task) -> Judge:
    """Return a judge on a task's test samples, by sample where the task has the values."""

    def evaluate(model: nn.Module) -> dict[str, float | Tensor]:
        each = {"loss": task.losses, "accuracy": task.correct}
        found = {name: function(model) for name, function in each.items() if function is not None}
        return {**({} if len(found) == len(each) else task.evaluate(model)), **found}

    return by_function(evaluate, f"the test samples of the task {task.name}")


def by_samples(
    samples: Samples, loss: Loss, model: nn.Module, *, batch_size: int, about: str
) -> Judge:
    """Return a judge on held-out samples: loss, and accuracy of a classifier.

    Parameters
    ----------
    samples : Samples
    loss : callable
        ``loss(outputs, targets)``, averaging over samples.
    model : nn.Module
        The dense model, for a check of the loss.
    batch_size : int
        Samples in a forward pass.
    about : str
        Description of the samples.

    Raises
    ------
    DataError
        See :meth:`icbs.data.objective.Objective.check`.
    """
    device = next(model.parameters()).device
    objective = Objective.check(loss, model, samples[:4].to(device), samples.targets)

    @torch.no_grad()
    def measure(candidate: nn.Module) -> Measurement:
        found: dict[str, list[Tensor]] = {}
        for start in range(0, len(samples), batch_size):
            piece = samples[start : start + batch_size].to(device)
            outputs = objective.run(candidate, piece.inputs)
            found.setdefault("loss", []).append(_losses(objective, outputs, piece.targets))
            if (right := _correct(outputs, piece.targets)) is not None:
                found.setdefault("accuracy", []).append(right)
        joined: dict[str, float | Tensor] = {k: torch.cat(parts) for k, parts in found.items()}
        if isinstance(loss, CausalLMLoss):
            joined["perplexity"] = float(torch.cat(found["loss"]).mean().exp())
        return Measurement.of(joined)

    return Judge(measure, f"{counted(len(samples), 'sample')} {about}")


def _losses(objective: Objective, outputs: Any, targets: Tensor) -> Tensor:
    """Loss of each sample, shape (N,)."""
    if isinstance(objective.loss, CausalLMLoss):
        return objective.loss.each(outputs, targets).double().cpu()
    count = len(targets)
    if any(tensor.ndim == 0 or len(tensor) != count for tensor in tensors(outputs)):
        outputs = logits_of(outputs)  # parts that don't belong to samples can't be divided
    each = [
        objective.total(tree_map(itemgetter(part), outputs), targets[part])
        for part in (slice(i, i + 1) for i in range(count))
    ]
    return torch.stack(each).double().cpu()


def _correct(outputs: Any, targets: Tensor) -> Tensor | None:
    """Whether each sample is classified correctly, shape (N,); None if these are not classes."""
    try:
        logits = logits_of(outputs)
    except DataError:
        return None
    classes = targets
    if targets.is_floating_point() and targets.ndim == 2 and targets.shape == logits.shape:
        if not torch.allclose(targets.sum(dim=1), targets.new_ones(len(targets)), atol=1e-3):
            return None
        classes = targets.argmax(dim=1)
    if logits.ndim != 2 or classes.ndim != 1 or classes.is_floating_point():
        return None
    if logits.shape[1] < 2 or bool((classes == IGNORED).any()):
        return None
    return (logits.argmax(dim=1) == classes).double().cpu()


def held_out_split(samples: Samples, share: float, generator: torch.Generator) -> tuple[Any, Any]:
    """Split samples at random into those for pruning and those of the judge.

    Raises
    ------
    DataError
        If there are too few.
    """
    count = round(share * len(samples))
    if not 2 <= count <= len(samples) - 2:
        raise DataError(
            f"{counted(len(samples), 'sample')} can't be divided into some for pruning and "
            f"{share:.0%} held out; give more, or held-out samples (heldout)"
        )
    order = torch.randperm(len(samples), generator=generator)
    return samples[order[count:]], samples[order[:count]]


def as_batches(samples: Samples) -> Iterable[tuple[Any, Tensor]]:
    """Return samples as a list of one batch, which can be read again."""
    return [(samples.inputs, samples.targets)]
