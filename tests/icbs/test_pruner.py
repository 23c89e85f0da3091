"""The pruner keeps its promises at every step: density, weights, best state, determinism."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import nn

from icbs import BlockSizeWarning, Progress, Pruner, PrunerConfig, TrainingModeWarning
from icbs.acceptance.damping import Damping
from icbs.model.layer import Layer
from icbs.selection.schedule import due, shares
from solvers import Outcome, Request, SolverError, Stop
from solvers.base import Capabilities, Solver

QUICK = {
    "density": 0.3,
    "block_size": 32,
    "passes": 12,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
    "batch_size": 128,
    "checkpoint_every": 4,
}


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def test_improves_on_its_start_on_samples_it_never_saw(toy):
    dense = copy.deepcopy(toy.model.state_dict())
    start = Pruner(**QUICK | {"passes": 0}).prune(toy.model, toy.batches, toy.loss)
    toy.model.load_state_dict(dense)
    result = Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss)
    assert result.initial_loss == pytest.approx(start.loss)
    assert result.loss < 0.8 * start.loss
    assert 0 < result.accepted < 1


def test_density_is_exact_and_survivors_keep_their_values_after_every_pass(toy):
    dense = {name: m.weight.detach().clone() for name, m in linears(toy.model).items()}
    wanted = {name: round(0.3 * w.numel()) for name, w in dense.items()}

    def check(progress: Progress) -> None:
        for name, module in linears(progress.model).items():
            kept = module.weight != 0
            assert int(kept.sum()) == wanted[name]
            assert torch.equal(module.weight[kept], dense[name][kept])
        assert progress.density == sum(wanted.values()) / sum(w.numel() for w in dense.values())

    result = Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss, callback=check)
    for name, module in linears(toy.model).items():
        assert torch.equal(module.weight, dense[name] * result.masks[name])


@pytest.mark.parametrize("scope", ["output", "input"])
def test_lines_keep_their_counts(toy, scope):
    settings = QUICK | {"constraint": scope, "compare": scope, "density": 0.25}
    dense = copy.deepcopy(toy.model.state_dict())
    start = Pruner(**settings | {"passes": 0}).prune(toy.model, toy.batches, toy.loss)
    toy.model.load_state_dict(dense)
    result = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    dimension = 1 if scope == "output" else 0
    moved = False
    for name, mask in result.masks.items():
        assert torch.equal(mask.sum(dimension), start.masks[name].sum(dimension))
        moved |= not torch.equal(mask, start.masks[name])
    assert moved
    assert result.loss < start.loss


@pytest.mark.parametrize("acceptance", ["block", "pass"])
def test_many_small_blocks_in_a_pass(toy, acceptance):
    settings = {"density": 0.3, "passes": 5, "block_size": 12, "acceptance": acceptance, "seed": 0}
    one = Pruner(**settings).prune(copy.deepcopy(toy.model), toy.batches, toy.loss)
    few = Pruner(**settings, blocks_per_layer=4, curvature_weight=1.0)
    several = few.prune(toy.model, toy.batches, toy.loss)
    visits = {(row.step, row.layer) for row in one.history}
    rows = [row for row in several.history if row.attempt == 0]
    for visit in visits:
        assert sum((row.step, row.layer) == visit for row in rows) == 4
    assert several.loss < one.loss < one.initial_loss
    assert several.density == one.density


def test_held_out_loss_never_rises_under_acceptance(toy):
    losses: list[float] = []
    result = Pruner(**QUICK).prune(
        toy.model, toy.batches, toy.loss, callback=lambda p: losses.append(p.loss)
    )
    # Measured afresh at checkpoints, the loss may differ in its last digits.
    assert all(b <= a + 1e-6 for a, b in pairwise(losses))
    assert result.loss == pytest.approx(losses[-1], rel=1e-5)
    for row in result.history:
        assert row.accepted == (row.moved > 0 and row.actual <= 0)


def test_best_masks_are_never_lost_without_acceptance(toy):
    losses: list[float] = []
    settings = QUICK | {"acceptance": "off", "passes": 25, "selection": "random"}
    result = Pruner(**settings).prune(
        toy.model, toy.batches, toy.loss, callback=lambda p: losses.append(p.loss)
    )
    assert all(row.accepted for row in result.history if row.moved)
    assert any(b > a for a, b in pairwise(losses))
    assert result.loss <= min([*losses, result.initial_loss]) + 1e-9


def test_rejected_moves_restore_the_exact_weights(toy, monkeypatch):
    from icbs.data.holdout import HoldOut

    monkeypatch.setattr(HoldOut, "trial", lambda *_: float("inf"))
    result = Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss)
    assert not any(row.accepted for row in result.history)
    weights = {name: m.weight.detach().clone() for name, m in linears(toy.model).items()}
    from tests.icbs.conftest import make_toy

    fresh = make_toy()
    Pruner(**QUICK | {"passes": 0}).prune(fresh.model, fresh.batches, fresh.loss)
    for name, module in linears(fresh.model).items():
        assert torch.equal(module.weight, weights[name])


def test_same_seed_same_run_and_another_seed_another(toy):
    def run(seed: int) -> tuple[dict[str, torch.Tensor], list]:
        model = copy.deepcopy(toy.model)
        result = Pruner(**QUICK, seed=seed).prune(model, toy.batches, toy.loss)
        rows = [(r.step, r.layer, r.moved, r.predicted, r.actual, r.energy) for r in result.history]
        return result.masks, rows

    masks, rows = run(1)
    again, rows_again = run(1)
    assert rows == rows_again
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert run(2)[1] != rows


def test_layers_by_pattern_and_their_densities(toy):
    config = PrunerConfig.of(**QUICK, include=["re:[02]"], densities={"2": 0.5})
    dense = toy.model[4].weight.detach().clone()
    result = Pruner(config).prune(toy.model, toy.batches, toy.loss)
    assert set(result.masks) == {"0", "2"}
    assert int(result.masks["0"].sum()) == round(0.3 * 240)
    assert int(result.masks["2"].sum()) == round(0.5 * 320)
    assert torch.equal(toy.model[4].weight, dense)


def test_training_mode_is_handled_said_and_restored(toy):
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 4))
    model.train()
    model[1].eval()
    running = model[1].running_mean.clone()
    with pytest.warns(TrainingModeWarning, match="Dropout"):
        Pruner(**QUICK).prune(model, toy.batches, toy.loss)
    assert model.training
    assert model[2].training
    assert not model[1].training
    assert torch.equal(model[1].running_mean, running)


def test_small_layers_get_smaller_blocks_with_a_warning(toy):
    with pytest.warns(BlockSizeWarning, match="'4'"):
        result = Pruner(**QUICK | {"block_size": 64, "passes": 2}).prune(
            toy.model, toy.batches, toy.loss
        )
    assert {row.n for row in result.history if row.layer == "4"} <= set(range(1, 64))


def test_callback_ends_the_run(toy):
    result = Pruner(**QUICK).prune(toy.model, toy.batches, toy.loss, callback=lambda p: p.step == 3)
    assert result.passes == 3


def test_time_limit_ends_the_run(toy):
    result = Pruner(**QUICK | {"passes": 10**6}, time_limit=0.5).prune(
        toy.model, toy.batches, toy.loss
    )
    assert 0 < result.passes < 10**6


@pytest.mark.parametrize("curvature", ["empirical", "monte-carlo", "exact"])
@pytest.mark.parametrize("solver", ["anneal", "diagonal"])
def test_every_curvature_with_more_than_one_solver(toy, curvature, solver):
    settings = QUICK | {"curvature": curvature, "solver": solver, "block_size": 12, "passes": 6}
    result = Pruner(**settings).prune(toy.model, toy.batches, toy.loss)
    assert result.loss < result.initial_loss


@dataclass(frozen=True)
class Failing(Solver):
    """A backend that fails on every other block."""

    name: ClassVar[str] = "failing"
    summary: ClassVar[str] = "fails"
    capabilities: ClassVar[Capabilities] = Capabilities()
    calls: ClassVar[list[int]] = []

    def run(self, problem, request: Request) -> Outcome:  # type: ignore[no-untyped-def]
        self.calls.append(problem.n)
        if len(self.calls) % 2:
            raise RuntimeError("the backend is on fire")
        return Outcome(request.initial_state[None], Stop.CONVERGED)


def test_a_failing_solver_keeps_the_status_quo_and_is_counted(toy):
    pruner = Pruner(**QUICK)
    pruner.solver = Failing()
    result = pruner.prune(toy.model, toy.batches, toy.loss)
    failed = [row for row in result.history if row.failure]
    assert failed
    reason = "BackendError: solver 'failing' failed: RuntimeError: the backend is on fire"
    assert {row.failure for row in failed} == {reason}
    assert result.first_failure is failed[0]
    assert all(row.moved == 0 and not row.accepted for row in result.history)
    assert result.summary()["failures"] == len(failed)
    assert result.loss == pytest.approx(result.initial_loss)


def test_inputs_may_be_mappings(toy):
    class Named(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.inner(features)

    plain = Pruner(**QUICK).prune(copy.deepcopy(toy.model), toy.batches, toy.loss)
    batches = [({"features": x}, y) for x, y in toy.batches]
    named = Pruner(**QUICK).prune(Named(copy.deepcopy(toy.model)), batches, toy.loss)
    for name, mask in plain.masks.items():
        assert torch.equal(mask, named.masks[f"inner.{name}"])


def test_summed_losses_mean_the_same(toy):
    mean = Pruner(**QUICK).prune(copy.deepcopy(toy.model), toy.batches, toy.loss)
    summed = Pruner(**QUICK).prune(
        copy.deepcopy(toy.model), toy.batches, nn.CrossEntropyLoss(reduction="sum")
    )
    assert summed.loss == pytest.approx(mean.loss, rel=0.2)


def test_schedule_visits_in_proportion_to_the_log_of_the_size():
    layers = [Layer.of(str(n), nn.Linear(n, n), 0.5) for n in (100, 10, 2)]
    visits = shares(layers, "log", 0.2)
    assert visits == pytest.approx([1.0, 0.5, 0.2])
    counts = [sum(due(step, share) for step in range(200)) for share in visits]
    assert counts == [200, 100, 40]
    assert shares(layers, "uniform", 0.2) == [1.0, 1.0, 1.0]


def test_solver_error_tree_reaches_the_user():
    with pytest.raises(SolverError, match="unknown solver 'nope'; known solvers: .*anneal"):
        Pruner(solver="nope")


def test_damping_grows_on_rejection_and_four_moves_kept_take_it_back():
    damping = Damping(1.2)
    assert damping.of(["layer"]) == 1.0
    damping.update(["layer"], accepted=True)
    assert damping.of(["layer"]) == 1.0
    damping.update(["layer"], accepted=False)
    assert damping.of(["layer"]) == pytest.approx(1.2)
    for _ in range(4):
        damping.update(["layer"], accepted=True)
    assert damping.of(["layer"]) == pytest.approx(1.0)


def test_a_block_of_several_layers_is_damped_as_the_worst_of_them():
    damping = Damping(1.2)
    damping.update(["a", "b"], accepted=False)
    damping.update(["b"], accepted=False)
    assert damping.of(["a", "b", "c"]) == damping.by_layer["b"] == pytest.approx(1.44)
    assert damping.of(["a", "c"]) == pytest.approx(1.2)


def test_more_caution_moves_less(toy):
    def moved(weight: float) -> float:
        model = copy.deepcopy(toy.model)
        settings = QUICK | {"passes": 3, "curvature_weight": weight}
        history = Pruner(**settings).prune(model, toy.batches, toy.loss).history
        return sum(row.moved for row in history)

    assert moved(1000.0) < moved(10.0) < moved(1.0)
