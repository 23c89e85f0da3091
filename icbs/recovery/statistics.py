"""Correction of the statistics of batch normalisation against the dense model.

Measuring the statistics again on few samples, or on samples of another kind than those of the
training, ruins a model. Both models are run on the same samples instead. With mean μ and variance
v of a normalisation's input in the pruned (s) and dense (d) model, and ``r = √(v_s / v_d)``,
the input ``(x_s - μ_s) / r + μ_d`` has the mean and variance of the dense model's, and

- ``running_mean ← μ_s - r (μ_d - running_mean)``
- ``running_var + ε ← (running_var + ε) r²``

apply the dense normalisation to it. Normalisations are corrected in the order of execution, in
one forward pass, so that each sees the inputs that the corrected ones before it compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call, first_argument
from icbs.errors import LayerError
from icbs.model.hooks import watch_calls
from icbs.recovery.method import Method, Step
from icbs.recovery.subject import Subject, normalisations

LIMITS = (0.2, 5.0)
"""Range of r."""


class Statistics:
    """The statistics of a model's batch normalisations, and of the dense model's inputs to them.

    Parameters
    ----------
    subject : Subject
        With a dense model.
    """

    def __init__(self, subject: Subject) -> None:
        assert subject.dense is not None
        self.model, self.dense = subject.model, subject.dense
        self.samples = subject.samples[: subject.plan.statistics_samples].to(subject.device)
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, subject: Subject) -> Statistics | None:
        """Return the statistics of a subject; None without a dense model or normalisations."""
        if subject.dense is None or not normalisations(subject.model):
            return None
        return cls(subject)

    @torch.no_grad()
    def correct(self) -> bool:
        """Correct all normalisations that run; return whether there are any."""
        if not self._moments:
            self._moments = input_moments(self.dense, self.samples.inputs)
        own, dense = normalisations(self.model), normalisations(self.dense)
        corrected: set[str] = set()

        def before(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            if name in corrected or name not in self._moments:  # shared: the first call counts
                return
            corrected.add(name)
            correct(
                own[name], dense[name], moments_of(first_argument(args, named)), self._moments[name]
            )

        with watch_calls(own, before=before):
            call(self.model, self.samples.inputs)
        return bool(corrected)


def moments_of(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel (second dimension) of a normalisation's input."""
    wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    axes = [axis for axis in range(wide.ndim) if axis != 1]
    variance, mean = torch.var_mean(wide, dim=axes, correction=0)
    return mean, variance


@torch.no_grad()
def input_moments(model: nn.Module, inputs: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the moments of the first input of each batch normalisation, by name."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def before(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if name not in found:
            found[name] = moments_of(first_argument(args, named))

    with watch_calls(normalisations(model), before=before):
        call(model, inputs)
    return found


def correct(
    module: Any,
    dense: Any,
    pruned_moments: tuple[Tensor, Tensor],
    dense_moments: tuple[Tensor, Tensor],
) -> None:
    """Correct the statistics of one normalisation, in place.

    Parameters
    ----------
    module, dense : batch normalisation
        Of the pruned and of the dense model; ``dense`` is not changed.
    pruned_moments, dense_moments : tuple of Tensor, each of shape (channels,)
        Mean and variance of their inputs on the same samples.
    """
    (mean_s, var_s), (mean_d, var_d) = pruned_moments, dense_moments
    # A channel without variance in the dense model has no scale to be compared with.
    ratio = torch.where(var_d > 0, var_s / var_d, torch.ones_like(var_d)).sqrt().clamp(*LIMITS)
    mean = mean_s - ratio * (mean_d - dense.running_mean)
    variance = (dense.running_var + module.eps) * ratio.square() - module.eps
    module.running_mean.copy_(mean)
    module.running_var.copy_(variance.clamp(min=0))


class StatisticsMethod(Method):
    """``statistics``: only the statistics of batch normalisation are corrected."""

    name = "statistics"
    starts_corrected = False

    def check(self, subject: Subject) -> None:
        """Refuse a model without batch normalisation."""
        if not normalisations(subject.model):
            raise LayerError(
                "statistics corrects batch normalisation, and the model has none with running "
                "statistics; choose another method"
            )

    def steps(self, subject: Subject) -> Iterator[Step]:
        """Correct the statistics in one step."""
        if self.done:
            return
        Statistics(subject).correct()
        yield Step("batch statistics", 1, 1)
