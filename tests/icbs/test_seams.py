"""Gates of several weights, and weights that move, all the way through a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from icbs import LayerError, Pruner, PrunerConfig
from icbs.curvature.passes import Pass
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.run.context import RunContext
from icbs.run.start import start_run
from icbs.run.state import RunState
from icbs.selection.block_selection import Tabu
from icbs.selection.selector import Selector

SETTINGS = {
    "density": 0.4,
    "block_size": 16,
    "gradient_samples": 200,
    "curvature_samples": 60,
    "acceptance_samples": 200,
    "schedule": "uniform",
    "passes": 8,
    "seed": 1,
}


class Inputs(Selector):
    """One gate for each input of a layer: the weights of a column come and go together."""

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        blocks = {}
        for layer in layers:
            rows, columns = layer.shape
            numbers = torch.arange(rows * columns).view(rows, columns)
            blocks[layer.name] = Gates.of_sets(layer, list(numbers.T))
        return blocks


class Everything(Selector):
    """One block of all columns of all layers, with one cardinality."""

    def select(
        self,
        layers: Sequence[Layer],
        pass_info: Pass,
        tabus: Mapping[str, Tabu],
        generator: torch.Generator,
    ) -> dict[str, Gates]:
        own = Inputs().select(layers, pass_info, tabus, generator)
        return {"model": Gates.joined(list(own.values()))}


def column_masks(model: torch.nn.Module, share: float) -> dict[str, Tensor]:
    """Masks that keep the first columns of each layer."""
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kept = round(share * module.in_features)
            mask = torch.zeros(module.weight.shape, dtype=torch.bool)
            mask[:, :kept] = True
            masks[name] = mask
    return masks


@pytest.mark.parametrize("selector", [Inputs, Everything])
@pytest.mark.parametrize("acceptance", ["block", "pass"])
def test_gates_of_whole_columns_are_pruned_by_the_same_machinery(toy64, selector, acceptance):
    masks = column_masks(toy64.model, 0.5)
    settings = {k: v for k, v in SETTINGS.items() if k != "density"}
    pruner = Pruner(density=0.5, **settings, acceptance=acceptance)
    pruner.selector = selector()
    result = pruner.prune(toy64.model, toy64.batches, toy64.loss, masks=masks, progress=False)
    assert any(row.accepted for row in result.history)
    assert result.loss < result.initial_loss
    kept = 0
    for mask in result.masks.values():
        columns = mask.any(dim=0)
        assert torch.equal(mask, columns.expand_as(mask)), "a column is pruned in part"
        kept += int(columns.sum())
    assert kept == sum(int(mask[0].sum()) for mask in masks.values())
    if selector is Everything:
        assert all(sorted(row.layer.split(" + ")) == ["0", "2", "4"] for row in result.history)


def rescaled(context: RunContext, state: RunState) -> dict[str, Tensor]:
    """Make the weights of one layer larger, as if they stood in for those that are gone."""
    layer = context.layers[state.step % len(context.layers)]
    return {layer.name: layer.dense * 1.05}


def harmful(context: RunContext, state: RunState) -> dict[str, Tensor]:
    return {layer.name: -10 * layer.dense for layer in context.layers}


def test_weights_that_help_stay_and_masks_still_hold(toy64):
    dense = {n: p.detach().clone() for n, p in toy64.model.named_parameters()}
    plain = Pruner(**SETTINGS | {"passes": 0})
    before = plain.prune(toy64.model, toy64.batches, toy64.loss, progress=False).loss
    toy64.model.load_state_dict(dense)
    result = Pruner(**SETTINGS).prune(
        toy64.model, toy64.batches, toy64.loss, update=rescaled, progress=False
    )
    assert result.loss < before
    moved = 0
    for name, mask in result.masks.items():
        weight = toy64.model.get_submodule(name).weight.detach()
        assert not weight[~mask].any()
        assert weight[mask].all()
        moved += int((weight[mask] != dense[f"{name}.weight"][mask]).sum())
    assert moved


def test_weights_that_hurt_are_taken_back(toy64):
    dense = {n: p.detach().clone() for n, p in toy64.model.named_parameters()}
    with_update = Pruner(**SETTINGS).prune(
        toy64.model, toy64.batches, toy64.loss, update=harmful, progress=False
    )
    for name, mask in with_update.masks.items():
        weight = toy64.model.get_submodule(name).weight.detach()
        assert torch.equal(weight, torch.where(mask, dense[f"{name}.weight"], 0))
    toy64.model.load_state_dict(dense)
    plain = Pruner(**SETTINGS).prune(toy64.model, toy64.batches, toy64.loss, progress=False)
    assert all(torch.equal(plain.masks[n], with_update.masks[n]) for n in plain.masks)


def test_a_run_with_moving_weights_resumes_to_the_same_bits(toy64, tmp_path: Path):
    dense = {n: p.detach().clone() for n, p in toy64.model.named_parameters()}
    settings = SETTINGS | {"checkpoint_every": 2}
    whole = Pruner(**settings).prune(
        toy64.model, toy64.batches, toy64.loss, update=rescaled, progress=False
    )
    final = {n: p.detach().clone() for n, p in toy64.model.named_parameters()}
    toy64.model.load_state_dict(dense)

    def stop(progress):  # type: ignore[no-untyped-def]
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pruner(**settings).prune(
            *(toy64.model, toy64.batches, toy64.loss),
            run=tmp_path / "run",
            update=rescaled,
            callback=stop,
            progress=False,
        )
    toy64.model.load_state_dict(dense)
    resumed = Pruner.resume(
        *(tmp_path / "run", toy64.model, toy64.batches, toy64.loss),
        update=rescaled,
        progress=False,
    )
    assert resumed.loss == whole.loss
    for name, parameter in toy64.model.named_parameters():
        assert torch.equal(parameter, final[name])


def test_new_weights_of_another_shape_or_not_finite_are_refused(toy64):
    context = RunContext.prepare(toy64.model, toy64.batches, toy64.loss, PrunerConfig(density=0.4))
    start_run(context)
    layer = context.layers[0]
    before = layer.weight.clone()
    with pytest.raises(LayerError, match="have shape"):
        layer.replace_weights(torch.zeros(2, 2))
    with pytest.raises(LayerError, match="NaN or infinite"):
        layer.replace_weights(torch.full(layer.shape, float("nan")))
    assert torch.equal(layer.weight, before)
    assert not layer.replaced
    layer.replace_weights(2 * layer.dense)
    assert torch.equal(layer.weight, 2 * before)
    layer.restore_weights()
    assert torch.equal(layer.weight, before)
