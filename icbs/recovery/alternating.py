"""Weights that move between the passes of the pruner, so that mask and weights suit each other."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from icbs import parallel, streams
from icbs.config import WeightSettings
from icbs.data.pytree import concatenate
from icbs.data.samples import Samples
from icbs.errors import ConfigError, DataError
from icbs.model.layer import Layer
from icbs.model.wrappers import modules_of
from icbs.recovery.global_step import GlobalSettings, calls_within
from icbs.recovery.levenberg_marquardt import FIRST, Problem, Search
from icbs.recovery.subject import twin
from icbs.recovery.teacher import Teacher
from icbs.run.context import RunContext
from icbs.run.state import RunState
from icbs.run.weight_update import WeightUpdate

log = logging.getLogger("icbs")
FLOOR = 0.1
"""Least curvature of a pruned weight, as a share of the mean curvature of the kept ones."""
MOST = 2.0
"""Largest value at which a pruned weight returns, in medians of the kept weights' magnitudes."""


def weight_update(settings: WeightSettings) -> WeightUpdate | None:
    """Return the update of the weights between passes that the settings ask for.

    Raises
    ------
    ConfigError
        If there are several processes.
    """
    if settings.weights != "global":
        return None
    if parallel.active():
        raise ConfigError(
            f"weights={settings.weights!r} runs in a single process; set weights='fixed', and "
            "recover the model afterwards (icbs.recover)"
        )
    return GlobalUpdate(settings.weights_every, settings.weights_return)


class GlobalUpdate:
    """A step of ``global`` on the kept weights, and values at which the pruned ones return.

    The step minimises the divergence from the dense model if the loss has a known distribution,
    else the loss itself; see :mod:`icbs.recovery.levenberg_marquardt`. λ is chosen by the held-out
    samples of the acceptance test.

    Parameters
    ----------
    every : int
        Number of passes between two updates.
    returns : {"dense", "gradient"}
        See :attr:`icbs.config.WeightSettings.weights_return`.
    """

    def __init__(self, every: int, returns: str = "dense") -> None:
        self.every, self.returns = every, returns
        self._dense: nn.Module | None = None

    def __call__(self, context: RunContext, state: RunState) -> dict[str, Tensor] | None:
        """Return new weights by layer name; see :data:`icbs.run.weight_update.WeightUpdate`."""
        if state.step % self.every:
            return None
        problem = self._problem(context)
        generator = streams.recovery(context.config.seed, state.step)
        form, _ = problem.linearise(state.step // self.every, generator)
        before = [layer.weight.clone() for layer in context.layers]
        try:
            found = Search(problem, form).run(FIRST)
            values = {layer.name: layer.original for layer in context.layers}
            if self.returns == "gradient":
                values = return_values(problem, generator)
            new = {
                layer.name: torch.where(
                    layer.pruned.view(layer.shape), values[layer.name], layer.weight
                )
                for layer in context.layers
            }
        finally:
            for layer, weight in zip(context.layers, before, strict=True):
                layer.kind.weight.copy_(layer.kind.shaped(weight))
        if found is None:
            log.info("pass %d: no step of the weights lowers the held-out loss", state.step)
        else:
            log.info("pass %d: the weights move, λ = %.1e", state.step, found)
        return new

    def _problem(self, context: RunContext) -> Problem:
        config, source = context.config, context.source
        held = [piece.samples for piece in context.holdout.pieces]
        return Problem(
            context.model,
            context.layers,
            context.objective,
            context.pool,
            Samples(concatenate([s.inputs for s in held]), torch.cat([s.targets for s in held])),
            GlobalSettings(
                rows=config.curvature_samples,
                gradient_samples=config.gradient_samples,
                curvature="monte-carlo" if source.draws_targets else "empirical",
            ),
            batch_size=context.plan.together,
            seed=config.seed,
            teacher=self._teacher(context),
            biases=False,
            memory=calls_within(context.plan.limit),
        )

    def _teacher(self, context: RunContext) -> Teacher | None:
        """Return the dense model as a teacher; None if the loss has no known distribution."""
        if self._dense is None:
            self._dense = dense_twin(context.model, context.layers)
        try:
            return Teacher(self._dense, context.objective)
        except DataError:
            return None


@torch.no_grad()
def dense_twin(model: nn.Module, layers: list[Layer]) -> nn.Module:
    """Copy a model with the weights that it had before pruning; other tensors are shared."""
    found = twin(model, layers)
    modules = modules_of(found)
    for layer in layers:
        weight = modules[layer.name].weight
        assert isinstance(weight, Tensor)
        weight.copy_(layer.kind.shaped(layer.original))
    return found


def return_values(problem: Problem, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the best value of each pruned weight by itself, given all others.

    For a weight of gradient g and curvature h (the Fisher information's diagonal) the quadratic
    model is lowest at ``-g / h``. Dense values suit the dense model, from which the kept weights
    have moved.

    Returns
    -------
    dict of str to Tensor, shape (out, in)
        By layer name; the entries of kept weights are meaningless.
    """
    gradient, curvature = problem.diagonal(generator)
    found = {}
    for layer in problem.layers:
        g, h = gradient.weights[layer.name], curvature[layer.name]
        kept = ~layer.pruned.view(layer.shape)
        least = torch.clamp(FLOOR * h[kept].mean(), min=torch.finfo(h.dtype).tiny)
        most = MOST * layer.weight[kept].abs().median()
        found[layer.name] = (-g / (h + least)).clamp(-most, most).to(layer.dense)
    return found
