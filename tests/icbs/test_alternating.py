"""``Pruner(weights="global")``: masks and weights in turn."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import ConfigError, Pruner, PrunerConfig
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.recovery.alternating import GlobalUpdate, dense_twin, return_values
from icbs.recovery.global_step import GlobalSettings
from icbs.recovery.levenberg_marquardt import Problem
from icbs.run.context import RunContext
from icbs.run.start import start_run
from tests.icbs.conftest import Toy, make_toy

SETTINGS: dict[str, Any] = {
    "density": 0.3,
    "block_size": 32,
    "gradient_samples": 200,
    "curvature_samples": 60,
    "acceptance_samples": 200,
    "schedule": "uniform",
    "passes": 8,
    "seed": 1,
}


def run(toy: Toy, **settings: Any) -> Any:
    return Pruner(**SETTINGS | settings).prune(toy.model, toy.batches, toy.loss, progress=False)


def test_weights_that_move_lower_the_loss_further_than_masks_alone():
    toy, other = make_toy(), make_toy()
    assert run(toy, weights="global").loss < 0.9 * run(other).loss


@pytest.mark.parametrize("returns", ["dense", "gradient"])
def test_density_is_exact_and_pruned_weights_are_zero(returns):
    toy = make_toy()
    result = run(toy, weights="global", weights_every=1, weights_return=returns)
    assert result.loss < result.initial_loss
    for name, mask in result.masks.items():
        weight = toy.model.get_submodule(name).weight.detach()
        assert int(mask.sum()) == round(0.3 * mask.numel())
        assert not weight[~mask].any()


@pytest.mark.parametrize(("every", "returns"), [(1, "gradient"), (3, "dense")])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, every, returns):
    settings = {"weights": "global", "weights_every": every, "weights_return": returns}
    settings |= {"checkpoint_every": 2}
    toy = make_toy()
    dense = copy.deepcopy(toy.model.state_dict())
    whole = run(toy, **settings)
    final = copy.deepcopy(toy.model.state_dict())
    toy.model.load_state_dict(dense)

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pruner(**SETTINGS | settings).prune(
            *(toy.model, toy.batches, toy.loss),
            run=tmp_path / "run",
            callback=stop,
            progress=False,
        )
    toy.model.load_state_dict(dense)
    resumed = Pruner.resume(tmp_path / "run", toy.model, toy.batches, toy.loss, progress=False)
    assert resumed.loss == whole.loss
    for name, tensor in toy.model.state_dict().items():
        assert torch.equal(tensor, final[name])


def test_an_update_leaves_the_model_as_it_was_and_repeats_itself():
    toy = make_toy()
    context = RunContext.prepare(
        toy.model, toy.batches, toy.loss, PrunerConfig(**SETTINGS, weights="global")
    )
    state = start_run(context)
    state.step = 2
    before = [layer.weight.clone() for layer in context.layers]
    update = GlobalUpdate(2)
    first, second = update(context, state), GlobalUpdate(2)(context, state)
    assert first is not None
    assert second is not None
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(
        torch.equal(layer.weight, old) for layer, old in zip(context.layers, before, strict=True)
    )
    state.step = 3
    assert update(context, state) is None


def test_the_dense_twin_has_the_weights_from_before_pruning_and_moving():
    toy = make_toy()
    dense = copy.deepcopy(toy.model)
    layers = find_layers(toy.model, PrunerConfig(density=0.3))
    for layer in layers:
        layer.replace_weights(2 * layer.dense)
        layer.set_mask(torch.ones_like(layer.pruned))
    found = dense_twin(toy.model, layers)
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, dense.get_parameter(name))
    assert not toy.model[0].weight.any(), "the model itself is unchanged"


def test_return_values_minimise_the_model_of_a_single_weight():
    toy = make_toy(torch.float64)
    x, y = toy.samples
    layers = find_layers(toy.model, PrunerConfig(density=0.3))
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        layer.set_mask(torch.rand(layer.size, generator=generator) > 0.3)
    settings = GlobalSettings(curvature="empirical", target="data")
    problem = Problem(
        *(toy.model, layers, Objective(toy.loss), Samples(x, y), Samples(x, y), settings),
        batch_size=100,
        seed=0,
    )
    values = return_values(problem, generator)
    gradients: list[list[Tensor]] = []
    for i in range(len(x)):
        toy.model.zero_grad()
        toy.loss(toy.model(x[i : i + 1]), y[i : i + 1]).backward()
        gradients.append([layer.kind.module.weight.grad.clone() for layer in layers])
    for number, layer in enumerate(layers):
        rows = torch.stack([own[number] for own in gradients])
        kept = ~layer.pruned.view(layer.shape)
        h = rows.square().mean(dim=0)
        expected = -rows.mean(dim=0) / (h + 0.1 * h[kept].mean())
        most = 2 * layer.weight[kept].abs().median()
        torch.testing.assert_close(values[layer.name], expected.clamp(-most, most))
        assert (values[layer.name] != expected).any(), "some values are too large"


def test_losses_without_a_distribution_use_the_targets_of_the_data():
    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    toy = make_toy()
    toy.loss = own  # type: ignore[assignment]
    result = run(toy, weights="global", curvature="empirical")
    assert result.loss < result.initial_loss


def test_two_updates_are_refused():
    toy = make_toy()
    with pytest.raises(ConfigError, match="leave one of them out"):
        Pruner(**SETTINGS, weights="global").prune(
            toy.model, toy.batches, toy.loss, update=lambda context, state: None
        )
    with pytest.raises(ConfigError, match="weights"):
        Pruner(**SETTINGS, weights="moving")


def test_the_history_adds_up_to_the_loss_with_moves_of_the_weights():
    from icbs.report.decisions import decisions, held_out_loss

    result = run(make_toy(), weights="global")
    moves = {row.step: row.weights for row in result.history if row.weights is not None}
    assert sorted(moves) == [1, 3, 5, 7]
    assert all(change <= 0 for change in moves.values())
    assert min(moves.values()) < 0
    decided = decisions(result.history, by_pass=False)
    points = held_out_loss(result.initial_loss, decided, result.history)
    assert points[-1][1] == pytest.approx(result.loss)
