"""Everything that changes during a run, and the fixed things that it works on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icbs.baselines.sweep import pieces_of, sweep
from icbs.choice.schedule import shares
from icbs.choice.scores import SCORES, initial_mask, movable
from icbs.choice.selection import Tabu
from icbs.config import DRAWN, PrunerConfig
from icbs.curvature.memory import Plan, make_plan, survey
from icbs.curvature.passes import Choose, Pass, selection_point, take_pass
from icbs.data.holdout import HoldOut
from icbs.data.objective import Loss, Objective
from icbs.data.samples import Samples, read_samples
from icbs.data.turns import in_turn
from icbs.errors import BlockSizeWarning, DataError
from icbs.history import Row
from icbs.layers.allocation import share_out
from icbs.layers.finding import find_layers
from icbs.layers.layer import Layer

TRUSTED = 0.25
"""What a model must be worth, measured over predicted change, for its samples to do."""


@dataclass
class Workspace:
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
    ) -> Workspace:
        """Check everything that can be checked before work starts.

        At most half of the samples read are held out, whatever ``acceptance_samples`` says.
        A run that is resumed brings its ``plan``.

        Raises
        ------
        LayerError, DataError, MemoryLimitError
            See :func:`icbs.layers.finding.find_layers`, :func:`icbs.data.samples.read_samples`,
            :meth:`icbs.data.objective.Objective.check` and :func:`icbs.curvature.memory.make_plan`.
        """
        layers = find_layers(model, config)
        if config.pattern is not None:
            config.pattern.check({layer.name: layer.shape[1] for layer in layers})
        samples = read_samples(batches, config.max_samples)
        if len(samples) < 2:
            raise DataError(
                "batches holds one sample; gradients and the acceptance test need one each"
            )
        device = layers[0].dense.device
        few = samples[: 2 if samples.targets.ndim > 1 else 4].to(device)
        objective = Objective.check(
            loss, model, few, samples.targets, draws=config.curvature in DRAWN
        )
        objective.precision = config.precision
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(config.seed))
        held = min(config.acceptance_samples, len(samples) // 2)
        found = survey(model, layers, objective, few[:1])
        if plan is None:
            plan = make_plan(model, layers, found, config, len(samples) - held, held)
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
        return cls(model, layers, objective, pool, holdout, config, visits, plan)

    @property
    def density(self) -> float:
        """Share of the prunable weights that the masks keep as they stand."""
        kept = sum(layer.num_kept for layer in self.layers)
        return kept / sum(layer.size for layer in self.layers)

    @property
    def samples(self) -> int:
        """Samples of a first pass."""
        config = self.config
        return min(max(config.gradient_samples, config.curvature_samples), len(self.pool))

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
            Samples of the passes before; see :func:`icbs.data.turns.in_turn`.
        """
        config, plan = self.config, self.plan
        effort = min(effort, self.most_effort)
        wanted = self.next_samples(effort)
        turn = in_turn(len(self.pool), seen, wanted, config.seed)
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
            batch_size=plan.batch_size,
            generator=generator,
            sample=config.sample,
            choose=choose,
            choose_after=after,
        )


@dataclass
class State:
    """What changes from pass to pass; a checkpoint holds all of it."""

    generator: torch.Generator
    tabus: dict[str, Tabu]
    step: int = 0
    """Passes done."""
    looked: int = 0
    """Samples of the present pass."""
    seen: int = 0
    """Samples of all passes, and of the start."""
    loss: float = float("nan")
    """Held-out loss of the current mask."""
    initial_loss: float = float("nan")
    """Held-out loss of the initial mask."""
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    """Masks (True = pruned, flat) with the lowest held-out loss so far."""
    caution: dict[str, float] = field(default_factory=dict)
    """Factor on κ by layer, 1 where absent; see ``PrunerConfig.caution``."""
    effort: float = 1.0
    """Factor on the samples of a pass; see ``PrunerConfig.sample_growth``."""
    worth: float = math.inf
    """Measured over predicted change of the loss, of the present pass judged as a whole."""
    history: list[Row] = field(default_factory=list)
    _began: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def seconds(self) -> float:
        """Wall seconds spent, over all resumptions."""
        return time.perf_counter() - self._began

    def set_clock(self, seconds: float) -> None:
        """Let the clock go on from a time already spent."""
        self._began = time.perf_counter() - seconds

    def learn(self, layer: Layer, *, accepted: bool, factor: float) -> None:
        """Grow more cautious about a layer whose move was undone, bolder where it was kept."""
        caution = self.caution.get(layer.name, 1.0)
        caution = max(1.0, caution / factor**0.25) if accepted else caution * factor
        self.caution[layer.name] = min(caution, 1e6)

    def trust(self, layers: Sequence[Layer], worth: float, *, cautious: bool = True) -> None:
        """Learn from a pass judged as a whole what its model was worth.

        A parabola with the model's slope and the change that was measured has its minimum at
        ``1 / (2 - worth)`` of the move, which is where a κ larger by ``2 - worth`` ends.
        Without ``cautious`` κ stays.
        """
        # A loss that is no number is as bad as any.
        self.worth = worth if worth > -math.inf else -math.inf
        factor = min(max(2.0 - self.worth, 0.5), 4.0)
        for layer in layers if cautious else ():
            caution = self.caution.get(layer.name, 1.0) * factor
            self.caution[layer.name] = min(max(caution, 1e-6), 1e6)

    def remember(self, layers: list[Layer]) -> None:
        """Keep the current masks if their held-out loss is the lowest so far."""
        if self.loss <= self.best_loss:
            self.best_loss = self.loss
            self.best = {layer.name: layer.pruned.clone() for layer in layers}


def begin(work: Workspace, masks: Mapping[str, Tensor] | None = None) -> State:
    """Set the initial masks, given or by score, and measure where the run starts.

    All layers are scored, dense, before the first of them is pruned.

    Parameters
    ----------
    work : Workspace
    masks : mapping of str to Tensor of bool, optional
        As for :meth:`icbs.Pruner.prune`, checked already.
    """
    config, began = work.config, time.perf_counter()
    generator = torch.Generator().manual_seed(config.seed + 1)
    scores, seen = None, 0
    exchanges = masks is None and config.initial == "exchange"
    scored = masks is None and not (exchanges and config.allocation != "global")
    if scored or config.fix_prune or config.fix_keep:
        information = work.look(generator)
        seen = information.count
        score = SCORES["wanda" if config.initial == "exchange" else config.initial]
        scores = {layer.name: score(layer, information, generator) for layer in work.layers}
        if masks is None and config.allocation == "global":
            share_out(work.layers, scores, config)
    if exchanges:
        masks = _exchanged(work, seen)
        seen += work.samples
    tabus = {}
    for layer in work.layers:
        free = torch.ones_like(layer.pruned)
        if masks is not None:
            layer.set_mask(~layer.kind.matrix(masks[layer.name]).flatten().to(layer.pruned.device))
        if scores is not None:
            worth = scores[layer.name]
            if masks is None:
                keep = layer.num_keep
                layer.set_mask(initial_mask(worth, keep, config.compare, config.pattern))
            free = movable(worth, layer.pruned, config.fix_prune, config.fix_keep)
        tabus[layer.name] = Tabu(free, config.tabu)
        _check_block_size(layer, free, config)
    state = State(generator, tabus, seen=seen, _began=began)
    state.loss = state.initial_loss = work.holdout.measure()
    state.remember(work.layers)
    return state


def _exchanged(work: Workspace, seen: int) -> dict[str, Tensor]:
    """Masks by exchanges from Wanda's, on as many samples as a pass has."""
    config = work.config
    turn = in_turn(len(work.pool), seen, work.samples, config.seed)
    pieces = pieces_of(work.pool[turn], work.plan.batch_size, work.layers[0].dense.device)
    sweep(work.model, work.layers, pieces, "exchange", config)
    return {layer.name: layer.mask for layer in work.layers}


def _check_block_size(layer: Layer, free: Tensor, config: PrunerConfig) -> None:
    half = min(int((free & layer.pruned).sum()), int((free & ~layer.pruned).sum()))
    # The default asks for as many as there are; only a size that was asked for is missed.
    if "block_size" in config.model_fields_set and config.block_size > 2 * half:
        warnings.warn(
            f"block_size {config.block_size} is more than layer {layer.name!r} can fill "
            f"({half} of its movable weights are on the smaller side): its blocks are smaller",
            BlockSizeWarning,
            stacklevel=4,
        )
