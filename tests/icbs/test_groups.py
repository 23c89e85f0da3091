"""Groups of weights: gates against gates on activations, densities, budgets, floors, refusals."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import jacrev

from icbs import ConfigError, Pruner
from icbs.blocks.block import build_block
from icbs.curvature.hessian import Hessian
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.errors import LayerError
from icbs.groups.budget import Budget
from icbs.groups.costs import TableCosts, count_costs
from icbs.groups.scores import gate_gradient
from icbs.model.limits import Limits
from icbs.structure.counts import count
from icbs.structure.cutting import cut
from icbs.structure.kept import load_kept
from problems import BudgetQUBO
from solvers import UnsupportedError
from tests.icbs.group_models import LOSS, convolutions, grouping_of, perceptron
from tests.icbs.passes import empirical, look, model_of

MODELS = {"neurons": perceptron, "channels": convolutions}


def gated_losses(model: nn.Module, grouping, x, y):
    """Loss of each sample as a function of gates on the activations that readers receive."""

    def losses(gates):
        handles = []
        for own, span in zip(grouping.sets, grouping.spans, strict=True):
            for reader in own.dimension.readers:
                module = model.get_submodule(reader.module)

                def multiply(module, args, own_gates=gates[span], index=reader.index):
                    given = args[0]
                    factor = torch.ones(given.shape[1], dtype=given.dtype)
                    factor = factor.index_put(
                        (index.flatten(),), own_gates.repeat_interleave(index.shape[1])
                    )
                    return (given * factor.view(-1, *[1] * (given.ndim - 2)),)

                handles.append(module.register_forward_pre_hook(multiply))
        try:
            return F.cross_entropy(model(x), y, reduction="none")
        finally:
            for handle in handles:
                handle.remove()

    return losses


@pytest.mark.parametrize("kind", MODELS)
def test_gate_gradients_are_those_of_gates_on_the_activations(kind):
    model, batches = MODELS[kind]()
    grouping = grouping_of(model, batches, kind)
    x, y = (t[:20] for t in batches[0])
    rows = jacrev(gated_losses(model, grouping, x, y))(
        torch.ones(grouping.count, dtype=torch.float64)
    )
    found = look(
        model, grouping.layers, Objective(LOSS), Samples(x, y), empirical(20),
        select=lambda _: {"all": grouping.gates},
    )  # fmt: skip
    factor = model_of(found, grouping.gates).factor
    assert factor is not None
    assert torch.allclose(factor * 20**0.5, rows, atol=1e-12)
    mean = gate_gradient(found, grouping.gates)
    assert mean == pytest.approx(rows.detach().mean(dim=0).numpy(), abs=1e-12)


def test_gate_gradients_of_finite_differences():
    model, batches = perceptron()
    grouping = grouping_of(model, batches, "neurons")
    x, y = (t[:9] for t in batches[0])
    losses = gated_losses(model, grouping, x, y)
    found = look(
        model, grouping.layers, Objective(LOSS), Samples(x, y), empirical(9),
        select=lambda _: {"all": grouping.gates},
    )  # fmt: skip
    factor = model_of(found, grouping.gates).factor
    step = 1e-6
    for gate in range(grouping.count):
        away = torch.zeros(grouping.count, dtype=torch.float64)
        away[gate] = step
        with torch.no_grad():
            slope = (losses(1 + away) - losses(1 - away)) / (2 * step)
        assert torch.allclose(factor[:, gate] * 3, slope, atol=1e-7)


@pytest.mark.parametrize("kind", ["kernels", "strided", "strided:2", "4x1", "2x3"])
def test_gates_within_a_layer_sum_gradients_of_their_weights(kind):
    model, batches = convolutions()
    grouping = grouping_of(model, batches, kind)
    x, y = (t[:6] for t in batches[0])
    found = look(
        model, grouping.layers, Objective(LOSS), Samples(x, y), empirical(6),
        select=lambda _: {"all": grouping.gates},
    )  # fmt: skip
    factor = model_of(found, grouping.gates).factor
    for sample in range(6):
        model.zero_grad()
        LOSS(model(x[sample : sample + 1]), y[sample : sample + 1]).backward()
        for own, span in zip(grouping.sets, grouping.spans, strict=True):
            (part,) = own.parts
            weight = part.layer.module.weight
            scaled = (weight.grad * weight).detach().flatten()[part.index].numpy()
            sums = np.bincount(part.gate.numpy(), scaled, own.count)
            assert factor[sample, span].numpy() * 6**0.5 == pytest.approx(sums, abs=1e-12)
    model.zero_grad()


def test_groups_within_a_layer_partition_its_weights():
    model, batches = convolutions()
    first = model[0].weight
    for kind, groups in [
        ("kernels", 12),
        ("strided", 6),
        ("strided:2", 4),
        ("4x1", 36),
        ("6x18", 1),
    ]:
        own = grouping_of(model, batches, kind).sets[0]
        assert own.count == groups
        (part,) = own.parts
        assert sorted(part.index.tolist()) == list(range(first.numel()))
    strided = grouping_of(model, batches, "strided").sets[0].parts[0]
    positions = strided.index[strided.gate == 1] % 9  # of input map 0, offset 1
    assert sorted(set(positions.tolist())) == [1, 4, 7]


def test_the_energy_is_the_change_of_a_quadratic_loss():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).double().eval()
    x, y = torch.randn(24, 4).double(), torch.randn(24, 2).double()
    grouping = grouping_of(model, [(x, y)], "neurons")
    grouping.close(np.array([1, 0, 0, 1, 0], dtype=np.uint8))
    loss = nn.MSELoss()
    found = look(
        model, grouping.layers, Objective(loss), Samples(x, y), Hessian(24),
        select=lambda _: {"all": grouping.gates},
    )  # fmt: skip
    block = build_block(grouping.gates, found.models(grouping.gates))
    before = float(loss(model(x), y))
    for bits in product((0, 1), repeat=5):
        state = np.array(bits, dtype=np.uint8)
        grouping.close(state)
        change = float(loss(model(x), y)) - before
        assert block.problem.energy(state) == pytest.approx(change, abs=1e-10)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("kind", MODELS)
def test_densities_are_exact_and_masks_prune_whole_groups(kind, allocation):
    model, batches = MODELS[kind]()
    dense = copy.deepcopy(model)
    pruner = Pruner(groups=kind, density=0.5, allocation=allocation, passes=4, seed=1)
    result = pruner.prune(model, batches, LOSS, progress=False)
    kept = {name: int(flags.sum()) for name, flags in result.groups.items()}
    sizes = {name: len(flags) for name, flags in result.groups.items()}
    if allocation == "uniform":
        assert all(kept[name] == round(0.5 * sizes[name]) for name in kept)
    else:
        assert sum(kept.values()) == round(0.5 * sum(sizes.values()))
    assert min(kept.values()) >= 1
    assert result.density == pytest.approx(sum(kept.values()) / sum(sizes.values()))
    assert result.loss <= result.initial_loss
    grouping = grouping_of(dense, batches, kind)
    for own in grouping.sets:
        for reader in own.dimension.readers:
            weight = model.get_submodule(reader.module).weight
            for group, channels in enumerate(reader.index):
                columns = weight[:, channels]
                original = dense.get_submodule(reader.module).weight[:, channels]
                if result.groups[own.name][group]:
                    assert torch.equal(columns, original)
                else:
                    assert not columns.any()


@pytest.mark.parametrize("quantity", ["macs", "parameters"])
def test_a_budget_is_kept_by_count_of_the_smaller_model(quantity):
    model, batches = convolutions()
    pruner = Pruner(groups="channels", budget={quantity: 0.5}, passes=4, seed=0)
    result = pruner.prune(model, batches, LOSS, progress=False)
    first, second = (int(flags.sum()) for flags in result.groups.values())

    def macs(a: int, b: int) -> int:
        return 36 * 9 * 2 * a + 9 * 9 * a * b + 9 * b * 3

    def parameters(a: int, b: int) -> int:
        return 9 * 2 * a + 2 * a + 9 * a * b + 2 * b + 9 * b * 3 + 3

    cost = macs if quantity == "macs" else parameters
    share = cost(first, second) / cost(6, 5)
    assert share <= 0.5
    assert result.summary()["shares"][quantity] == pytest.approx(share)
    assert result.loss <= result.initial_loss


def test_costs_are_those_of_a_smaller_model_and_slopes_their_differences():
    model, batches = convolutions()
    grouping = grouping_of(model, batches, "channels")
    costs = count_costs(grouping, model, batches[0][0][:1], "parameters")
    state = np.zeros(grouping.count, dtype=np.uint8)
    assert costs.total(state) == sum(p.numel() for p in model.parameters())
    state[[0, 2, 7]] = 1
    slopes = costs.slopes(state)
    for group in range(grouping.count):
        other = state.copy()
        other[group] ^= 1
        sign = 1 if state[group] else -1
        assert costs.total(other) - costs.total(state) == pytest.approx(sign * slopes[group])


@pytest.mark.parametrize("kind", MODELS)
def test_costs_are_those_of_the_model_that_is_cut(kind):
    model, batches = MODELS[kind]()
    example = batches[0][0][:1]
    grouping = grouping_of(model, batches, kind)
    dimensions = [own.dimension for own in grouping.sets]
    rng = np.random.default_rng(0)
    for _ in range(3):
        state = (rng.random(grouping.count) < 0.5).astype(np.uint8)
        state[[span.start for span in grouping.spans]] = 0
        smaller = count(cut(model, dimensions, grouping.kept(state)), example)
        for quantity in ("parameters", "macs"):
            costs = count_costs(grouping, model, example, quantity)
            assert costs.total(state) == pytest.approx(getattr(smaller, quantity))


def test_a_latency_budget_holds_by_the_table_of_measurements():
    grouping = grouping_of(*perceptron(), "neurons")
    widths = {own.name: np.array([0.0, own.count / 2, own.count]) for own in grouping.sets}
    tables = {name: (numbers, np.array([0.0, 2.0, 3.0])) for name, numbers in widths.items()}
    grouping.budget = Budget(grouping, TableCosts(grouping, 1.0, tables), "latency", 0.75)
    assert grouping.budget.dense == 7.0
    state = grouping.budget.best_state(np.arange(18.0))
    assert grouping.budget.share_of(state) <= 0.75
    fewer = state.copy()
    fewer[np.flatnonzero(state)[-1]] = 0
    assert grouping.budget.share_of(fewer) > 0.75


def test_the_best_states_within_a_budget_are_found_by_enumeration():
    model, batches = perceptron()
    settings: dict[str, Any] = {"groups": "neurons", "budget": {"macs": 0.6}, "passes": 0}
    results = [
        Pruner(solver=solver, **settings).prune(copy.deepcopy(model), batches, LOSS, progress=False)
        for solver in ("anneal", "exhaustive")
    ]
    assert all(
        torch.equal(results[0].groups[name], results[1].groups[name]) for name in results[0].groups
    )


def test_the_limits_of_a_dense_state_ask_for_all_of_the_saving():
    model, batches = perceptron()
    grouping = grouping_of(model, batches, "neurons")
    costs = count_costs(grouping, model, batches[0][0][:1], "macs")
    budget = Budget(grouping, costs, "macs", 0.6)
    nothing = np.zeros(grouping.count, dtype=np.uint8)
    numbers = np.arange(grouping.count)
    assert budget.limits(nothing, numbers).budget == pytest.approx(0.4 * budget.dense)
    state = budget.best_state(np.arange(18.0))
    saved = budget.costs.slopes(state) @ state
    slack = budget.target - costs.total(state)
    assert slack >= 0
    assert budget.limits(state, numbers).budget == pytest.approx(saved - slack)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_no_group_that_a_filled_state_leaves_pruned_fits_into_the_budget(seed, share):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    sets, costs = rng.integers(0, 2, n), rng.integers(0, 4, n).astype(float)
    factor = rng.standard_normal((2, n))
    saving = float(np.floor(share * costs.sum()))
    limits = Limits(costs, saving, sets, np.bincount(sets), lambda x: costs @ x >= saving)
    problem = BudgetQUBO.from_factors(factor, rng.standard_normal(n), costs, saving)
    everything = np.ones(n, dtype=np.uint8)
    filled = limits.filled(everything, problem)
    assert everything.all()  # the state given is unchanged
    assert limits.allows(filled)
    assert filled[costs == 0].all()
    for group in np.flatnonzero((filled == 1) & (costs > 0)):
        assert costs @ filled - costs[group] < saving
    # The group whose return raises the energy least for its cost is the first that is tried.
    ratio = np.where(costs > 0, -problem.fields(everything) / np.maximum(costs, 1), np.inf)
    if costs.sum() - costs[ratio.argmin()] >= saving and costs.any():
        assert filled[ratio.argmin()] == 0


def test_groups_return_whose_pruning_beyond_the_budget_does_not_lower_the_held_out_loss():
    model, batches = perceptron()
    costs = []

    def note(progress):
        first, second = (int((model[i].weight != 0).any(dim=0).sum()) for i in (2, 4))
        costs.append((6 * first + first * second + 3 * second, first, second))

    pruner = Pruner(
        groups="neurons",
        budget={"macs": 0.8},
        passes=1,
        acceptance="off",
        paper={"gradient_weight": 50.0},  # the model predicts far too much from pruning
    )
    pruner.prune(model, batches, LOSS, callback=note, progress=False)
    target = 0.8 * (6 * 10 + 10 * 8 + 3 * 8)
    for cost, first, second in costs:
        assert cost <= target
        assert cost + min(6 + second, 3 + first) > target


@pytest.mark.parametrize("kind", MODELS)
def test_the_pruned_model_computes_what_its_cut_computes(kind):
    model, batches = MODELS[kind]()
    result = Pruner(groups=kind, density=0.5, passes=1).prune(model, batches, LOSS, progress=False)
    x = batches[0][0]
    dimensions = [own.dimension for own in grouping_of(model, batches, kind).sets]
    smaller = cut(model, dimensions, result.groups)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        assert torch.allclose(smaller(x), model(x), atol=1e-10, rtol=0)


def test_a_resumed_run_is_identical(tmp_path):
    model, batches = perceptron()
    settings: dict[str, Any] = {"groups": "neurons", "budget": {"macs": 0.5}, "checkpoint_every": 1}
    whole = Pruner(passes=5, **settings).prune(copy.deepcopy(model), batches, LOSS, progress=False)
    run = tmp_path / "run"
    Pruner(passes=2, **settings).prune(copy.deepcopy(model), batches, LOSS, run=run, progress=False)
    resumed = Pruner.resume(run, copy.deepcopy(model), batches, LOSS, passes=5, progress=False)
    assert resumed.loss == whole.loss
    for name, mask in whole.masks.items():
        assert torch.equal(mask, resumed.masks[name])
    dimensions, kept = load_kept(run)
    assert [one.name for one in dimensions] == list(whole.groups)
    for name, flags in whole.groups.items():
        assert torch.equal(kept[name], flags)
    assert "groups" in resumed.summary()
    assert "neurons kept" in str(resumed)


def test_blocks_of_some_groups_have_at_most_the_size_asked_for():
    model, batches = perceptron()
    pruner = Pruner(groups="neurons", density=0.5, block_size=8, passes=4)
    result = pruner.prune(model, batches, LOSS, progress=False)
    assert {row.n for row in result.history} == {6}  # two sides of 2 of 10 and 1 of 8
    assert {row.k for row in result.history} == {3}


def test_given_masks_are_kept_and_partial_ones_refused():
    model, batches = perceptron()
    start = Pruner(groups="neurons", density=0.5, initial="magnitude", passes=0)
    first = start.prune(copy.deepcopy(model), batches, LOSS, progress=False)
    again = Pruner(groups="neurons", density=0.5, passes=0)
    second = again.prune(copy.deepcopy(model), batches, LOSS, masks=first.masks, progress=False)
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)
    partial = {name: mask.clone() for name, mask in first.masks.items()}
    partial["4"][0, 0] ^= True
    with pytest.raises(LayerError, match="parts of groups"):
        again.prune(copy.deepcopy(model), batches, LOSS, masks=partial, progress=False)
    other = Pruner(groups="neurons", density=0.7, passes=0)
    with pytest.raises(LayerError, match="set density=0.5"):
        other.prune(copy.deepcopy(model), batches, LOSS, masks=first.masks, progress=False)


def test_more_candidates_are_judged_on_held_out_samples():
    model, batches = perceptron()
    losses = [
        Pruner(groups="neurons", density=0.5, passes=1, candidates=number, acceptance="off")
        .prune(copy.deepcopy(model), batches, LOSS, progress=False)
        .history[0]
        .actual
        for number in (1, 8)
    ]
    assert losses[1] <= losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": "neuron", "density": 0.5}, "did you mean 'neurons'"),
        ({"groups": "heads,4x1", "density": 0.5}, "can't be combined"),
        ({"groups": "blocks,heads", "density": 0.5}, "name blocks alone"),
        ({"groups": "1x1", "density": 0.5}, "is not a group"),
        ({"groups": "neurons"}, "need density"),
        ({"groups": "neurons", "budget": {"macs": 1.5}}, "below 1"),
        ({"groups": "neurons", "budget": {"mac": 0.5}}, "did you mean 'macs'"),
        ({"groups": "neurons", "budget": {"macs": 0.5}, "density": 0.4}, "leave one of them out"),
        ({"budget": {"macs": 0.5}}, "needs groups"),
        ({"groups": "neurons", "density": 0.5, "constraint": "2:4"}, "constraint='2:4'"),
        ({"groups": "neurons", "density": 0.5, "initial": "wanda"}, "doesn't score groups"),
        ({"initial": "apoz"}, "scores groups"),
        ({"groups": "neurons", "density": 0.5, "blocks_per_layer": 2}, "blocks_per_layer"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Pruner(**settings)


def test_what_the_model_does_not_allow_is_refused_before_work():
    model, batches = perceptron()
    with pytest.raises(LayerError, match="can't be reached"):
        Pruner(groups="neurons", budget={"macs": 0.01}).prune(model, batches, LOSS)
    with pytest.raises(LayerError, match=r"choose 0\.111"):
        Pruner(groups="neurons", density=0.01).prune(model, batches, LOSS)
    with pytest.raises(LayerError, match="prunes none"):
        Pruner(groups="neurons", density=0.99).prune(model, batches, LOSS)
    with pytest.raises(LayerError, match="kernels larger"):
        Pruner(groups="kernels", density=0.5).prune(model, batches, LOSS)
    with pytest.raises(UnsupportedError, match="can't hold a budget"):
        Pruner(groups="neurons", budget={"macs": 0.5}, solver="qaoa").prune(model, batches, LOSS)
    with pytest.raises(LayerError, match="heads"):
        Pruner(groups="heads", density=0.5).prune(model, batches, LOSS)


def test_a_model_in_training_mode_is_evaluated_and_set_back():
    model, batches = convolutions()
    twin = copy.deepcopy(model).train()
    results = [
        Pruner(groups="channels", density=0.5, passes=1).prune(one, batches, LOSS, progress=False)
        for one in (model, twin)
    ]
    assert results[0].loss == results[1].loss
    assert twin.training
    assert not model.training
