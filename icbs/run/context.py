"""Fixed context of a run: model, layers, samples, and the objects that settings name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from icbs import streams
from icbs.acceptance.rule import AcceptanceRule
from icbs.config import PrunerConfig
from icbs.config.constants import MAX_SAMPLES, MIN_SHARE, SELECTION_SHARE
from icbs.curvature.gradient_check import check_gradients, count_samples
from icbs.curvature.named import make_source
from icbs.curvature.passes import Pass, Select, take_pass
from icbs.curvature.source import Batch, CurvatureSource
from icbs.data.holdout import HoldOut
from icbs.data.objective import Loss, Objective
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples, diverse_samples, epoch_order, read_samples
from icbs.errors import DataError, LayerError
from icbs.groups.finding import prepare_groups
from icbs.groups.grouping import Grouping
from icbs.groups.selection import GroupSelector
from icbs.model.calls import reach, slices
from icbs.model.coverage import Coverage
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from icbs.plugins import ACCEPTANCES
from icbs.run.memory import Plan, make_plan, survey
from icbs.selection.schedule import selection_point, shares
from icbs.selection.selector import Selector
from icbs.structure.dimension import Dimension
from solvers import Solver

if TYPE_CHECKING:
    from icbs.run.saved_blocks import BlockSaver

log = logging.getLogger("icbs")


@dataclass
class RunContext:
    """Inputs of a run; only the model's weights change."""

    model: nn.Module
    layers: list[Layer]
    objective: Objective
    pool: Samples
    """Samples for gradients and curvature."""
    holdout: HoldOut
    """Held-out samples, for acceptance."""
    heldout: Samples
    """The same samples, not divided among processes."""
    config: PrunerConfig
    source: CurvatureSource
    """Source of the curvature of blocks."""
    visits: list[float]
    """Share of the passes in which each layer is visited."""
    plan: Plan
    """Batch sizes that keep the run within its memory limit."""
    coverage: Coverage
    """Weights that are pruned, and those that are left dense."""
    grouping: Grouping | None = None
    """Groups of weights that are pruned as a whole; None for single weights."""
    selector: Selector | None = None
    """Selects the groups in the block of a pass; None for single weights."""
    solver: Solver | None = None
    """Solver of the blocks, for initial masks by a problem of all groups."""
    executor: Executor | None = None
    """Executor that solves the blocks of a pass; None for threads of this process."""
    block_saver: BlockSaver | None = None
    """Saves block problems; None without ``save_blocks``."""

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        config: PrunerConfig,
        plan: Plan | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> RunContext:
        """Check the inputs, measure memory, and split the samples, before a run starts.

        At most half of the samples are held out, regardless of ``acceptance_samples``. A resumed
        run passes its recorded ``plan``. Groups of weights are of ``dimensions`` if given, and
        otherwise found.

        Raises
        ------
        LayerError, DataError, MemoryLimitError
            See :func:`icbs.model.finding.find_layers`, :func:`icbs.data.samples.read_samples`,
            :meth:`icbs.data.objective.Objective.check`, :func:`icbs.run.memory.make_plan`
            and :func:`icbs.curvature.gradient_check.check_gradients`.
        """
        source = make_source(config)
        grouping = None
        if config.groups is None:
            layers = find_layers(model, config)
            coverage = Coverage.of(model, layers)
            coverage.report(layers, config)
            samples = read_samples(batches, MAX_SAMPLES)
        else:
            samples = read_samples(batches, MAX_SAMPLES)
            grouping = prepare_groups(model, samples, config, dimensions)
            layers = grouping.layers
            coverage = Coverage.of(model, layers)
        if len(samples) < 2:
            raise DataError(
                "batches holds one sample; gradients and the acceptance test need one each"
            )
        device = layers[0].dense.device

        def pick(count: int) -> Samples:
            ignored = Objective(loss).ignored
            return samples[diverse_samples(samples, count, config.seed, ignored)].to(device)

        few = pick(2 if samples.targets.ndim > 1 else 4)
        objective = Objective.check(loss, model, few, samples.targets, draws=source.draws_targets)
        objective.compute_in(config.precision, device)
        apart = _check_reach(model, layers, objective, samples, len(few), config)
        order = torch.randperm(len(samples), generator=streams.samples(config.seed))
        held = min(config.acceptance_samples, len(samples) // 2)
        found = survey(model, layers, objective, samples[:1].to(device))
        found = replace(found, apart=apart)
        source.check(Batch(model, layers, objective, few[:1], streams.samples(config.seed)))
        if plan is None:
            groups = None if grouping is None else grouping.count
            pool = len(samples) - held
            plan = make_plan(model, layers, found, config, source, pool, held, groups)
        count = count_samples(found.activations, plan.samples, len(samples))
        # Sums over samples need no assignment of rows to samples, but padding does.
        rows = source.uses_rows or counted_positions(few) is not None
        check_gradients(model, layers, objective, pick(count), plan.together, rows=rows)
        heldout = samples[order[:held]]
        holdout = HoldOut(
            model,
            layers,
            objective,
            heldout.to(device),
            plan.batch_size,
            remember=plan.remember,
        )
        whole = config.block_size == "all" or grouping is not None
        schedule = "uniform" if whole else config.schedule
        visits = shares(layers, schedule, MIN_SHARE)
        selector = None if grouping is None else GroupSelector(grouping, config)
        return cls(
            model,
            layers,
            objective,
            samples[order[held:]],
            holdout,
            heldout,
            config,
            source,
            visits,
            plan,
            coverage,
            grouping,
            selector,
        )

    def acceptance_rule(self) -> AcceptanceRule:
        """Create the acceptance rule of a run, in its initial state."""
        kind = ACCEPTANCES.get(self.config.acceptance)
        rule: AcceptanceRule = kind(self.config, models_loss=self.source.models_loss)
        return rule

    @property
    def density(self) -> float:
        """Share of the prunable weights, or of the groups, that the current masks keep."""
        if self.grouping is not None:
            return 1 - float(self.grouping.closed().mean())
        kept = sum(layer.num_kept for layer in self.layers)
        return kept / sum(layer.size for layer in self.layers)

    @property
    def num_samples(self) -> int:
        """Number of samples of a pass."""
        return min(self.config.samples_of(len(self.pool)), self.plan.samples)

    def take_pass(
        self, generator: torch.Generator, samples_seen: int = 0, select: Select | None = None
    ) -> Pass:
        """Run one forward and backward pass over the next samples, for all layers.

        Parameters
        ----------
        generator : torch.Generator
        samples_seen : int, default 0
            Number of samples of all earlier passes; see :func:`icbs.data.samples.epoch_order`.
        select : callable, optional
            Selects the blocks; see :func:`icbs.curvature.passes.take_pass`. Without it, a
            source that selects midway gives no curvature.
        """
        count = self.num_samples
        order = epoch_order(len(self.pool), samples_seen, count, self.config.seed)
        # Shuffled, so that different samples select the blocks in each epoch.
        order = order[torch.randperm(count, generator=generator)]
        after = selection_point(SELECTION_SHARE, count)
        blind = select is None and self.source.selects_midway and after is not None
        return take_pass(
            self.model,
            self.layers,
            self.objective,
            self.pool[order].to(self.layers[0].dense.device),
            None if blind else self.source,
            batch_size=self.plan.together,
            generator=generator,
            select=select,
            select_after=after,
        )


def _check_reach(
    model: nn.Module,
    layers: list[Layer],
    objective: Objective,
    samples: Samples,
    few: int,
    config: PrunerConfig,
) -> bool:
    """Check that every layer is called; return whether gradients need one sample at a time.

    If a layer gets only some of the samples (experts behind a router), the inputs of a call don't
    identify the sample of each row.

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
