"""What a run works on, and how it draws its passes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from icbs.config import DRAWN, PrunerConfig
from icbs.curvature.gradient_check import check_gradients, count_samples
from icbs.curvature.passes import Choose, Pass, selection_point, take_pass
from icbs.curvature.sources import check_twice_differentiable
from icbs.data.holdout import HoldOut
from icbs.data.objective import Loss, Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples, epoch_order, read_samples, unlike
from icbs.errors import DataError, LayerError
from icbs.model.calls import reach, slices
from icbs.model.coverage import Coverage
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from icbs.run.memory import Plan, make_plan, survey
from icbs.selection.schedule import shares

log = logging.getLogger("icbs")


@dataclass
class RunContext:
    """What a run works on; nothing in it changes but the model's weights."""

    model: nn.Module
    layers: list[Layer]
    objective: Objective
    pool: Samples
    """Samples for gradients and curvature."""
    holdout: HoldOut
    """Other samples, for acceptance."""
    config: PrunerConfig
    visits: list[float]
    """Share of the passes in which each layer is visited."""
    plan: Plan
    """How memory is kept within its limit."""
    coverage: Coverage
    """What is pruned, and what is left dense."""
    executor: Executor | None = None
    """Where the blocks of a pass are solved; None for threads of this process."""

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        config: PrunerConfig,
        plan: Plan | None = None,
    ) -> RunContext:
        """Check everything that can be checked before work starts.

        At most half of the samples read are held out, whatever ``acceptance_samples`` says.
        A run that is resumed brings its ``plan``.

        Raises
        ------
        LayerError, DataError, MemoryLimitError
            See :func:`icbs.model.finding.find_layers`, :func:`icbs.data.samples.read_samples`,
            :meth:`icbs.data.objective.Objective.check`, :func:`icbs.run.memory.make_plan`
            and :func:`icbs.curvature.gradient_check.check_gradients`.
        """
        layers = find_layers(model, config)
        coverage = Coverage.of(model, layers)
        coverage.tell(layers, config)
        samples = read_samples(batches, config.max_samples)
        if len(samples) < 2:
            raise DataError(
                "batches holds one sample; gradients and the acceptance test need one each"
            )
        device = layers[0].dense.device

        def some(count: int) -> Samples:
            ignored = Objective(loss).ignored
            return samples[unlike(samples, count, config.seed, ignored)].to(device)

        few = some(2 if samples.targets.ndim > 1 else 4)
        objective = Objective.check(
            loss, model, few, samples.targets, draws=config.curvature in DRAWN
        )
        objective.precision = config.precision
        apart = _check_reach(model, layers, objective, samples, len(few), config)
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(config.seed))
        held = min(config.acceptance_samples, len(samples) // 2)
        found = survey(model, layers, objective, samples[:1].to(device))
        found = replace(found, apart=apart)
        if config.curvature == "exact":
            check_twice_differentiable(model, layers[0], objective, few[:1])
        if plan is None:
            plan = make_plan(model, layers, found, config, len(samples) - held, held)
        count = count_samples(found.activations, plan.samples, len(samples))
        # Sums over samples don't care which sample is which, but padding does.
        rows = config.curvature not in ("exact", "gram") or counted_positions(few) is not None
        check_gradients(model, layers, objective, some(count), plan.together, rows=rows)
        holdout = HoldOut(
            model,
            layers,
            objective,
            samples[order[:held]].to(device),
            plan.batch_size,
            remember=plan.remember,
        )
        visits = shares(layers, config.schedule, config.min_share)
        pool = samples[order[held:]]
        return cls(model, layers, objective, pool, holdout, config, visits, plan, coverage)

    @property
    def density(self) -> float:
        """Share of the prunable weights that the masks keep as they stand."""
        kept = sum(layer.num_kept for layer in self.layers)
        return kept / sum(layer.size for layer in self.layers)

    @property
    def samples(self) -> int:
        """Samples of a first pass."""
        return self.config.samples_of(len(self.pool))

    @property
    def most_effort(self) -> float:
        """Largest factor on the samples of a pass that the plan allows for."""
        return self.plan.samples / self.samples

    def grown(self, effort: float) -> float:
        """Return the next larger factor on the samples of a pass, where there is one."""
        return min(effort * self.config.sample_growth, self.most_effort)

    def next_samples(self, effort: float) -> int:
        """Count the samples of a pass with a factor on them."""
        return round(min(effort, self.most_effort) * self.samples)

    def look(
        self,
        generator: torch.Generator,
        choose: Choose | None = None,
        effort: float = 1.0,
        seen: int = 0,
    ) -> Pass:
        """Run one forward and backward pass, over the next samples, that serves all layers.

        Parameters
        ----------
        generator : torch.Generator
        choose : callable, optional
            Chooses the blocks; see :func:`icbs.curvature.passes.take_pass`. Without it, a pass
            that would choose on its way gives no curvature.
        effort : float, default 1
            Factor on the samples.
        seen : int, default 0
            Samples of the passes before; see :func:`icbs.data.samples.epoch_order`.
        """
        config, plan = self.config, self.plan
        effort = min(effort, self.most_effort)
        wanted = self.next_samples(effort)
        turn = epoch_order(len(self.pool), seen, wanted, config.seed)
        # Which of them choose the blocks should not be the same in every round.
        turn = turn[torch.randperm(wanted, generator=generator)]
        after = selection_point(config, wanted)
        blind = choose is None and after is not None
        return take_pass(
            self.model,
            self.layers,
            self.objective,
            self.pool[turn].to(self.layers[0].dense.device),
            curvature=None if blind else config.curvature,
            curvature_samples=math.ceil(effort * config.curvature_samples),
            batch_size=plan.together,
            generator=generator,
            sample=config.sample,
            choose=choose,
            choose_after=after,
        )


def _check_reach(
    model: nn.Module,
    layers: list[Layer],
    objective: Objective,
    samples: Samples,
    few: int,
    config: PrunerConfig,
) -> bool:
    """Check that samples reach every layer; whether their gradients must be taken one by one.

    Where layers see some samples only (experts behind a router), what a layer was called with
    does not say which sample each row is of.

    Raises
    ------
    DataError, LayerError
        See :func:`icbs.model.calls.reach`.
    """
    device = layers[0].dense.device
    singles = [samples[i : i + 1].to(device) for i in range(few)]
    more = (piece.to(device) for piece in slices(samples, few))
    found = reach(model, layers, singles, more, run=objective.run, verify=True)
    if not found.uneven:
        return False
    some = ", ".join(map(repr, found.uneven[:3])) + (", …" if len(found.uneven) > 3 else "")
    if config.sample == "token":
        raise LayerError(
            f"layers {some} see some samples or positions only, so that sample='token' can't "
            "weigh them; use sample='sequence', or exclude them"
        )
    log.info("%s see some samples only: gradients are taken one sample at a time", some)
    return True
