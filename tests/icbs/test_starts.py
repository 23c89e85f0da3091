"""Runs with given initial masks."""

from __future__ import annotations

import copy

import pytest
import torch

from icbs import LayerError, Pruner, layerwise
from icbs.config import PrunerConfig
from icbs.model.finding import find_layers
from icbs.pruner import RunFolder
from icbs.run.result import Progress
from tests.icbs.conftest import Toy, make_toy

SETTINGS = {
    "density": 0.3,
    "block_size": 32,
    "passes": 6,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
    "checkpoint_every": 2,
}


def random_masks(toy: Toy, density: float = 0.3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    masks = {}
    for layer in find_layers(toy.model, PrunerConfig(density=density)):
        mask = torch.zeros(layer.size, dtype=torch.bool)
        mask[torch.randperm(layer.size, generator=generator)[: layer.num_keep]] = True
        masks[layer.name] = mask.view(layer.shape)
    return masks


def test_a_run_starts_from_the_masks_given(toy):
    masks = random_masks(toy)
    given = {name: mask.clone() for name, mask in masks.items()}
    seen = {}

    def look(progress: Progress) -> bool:
        layers = dict(progress.model.named_modules())
        seen.update({name: layers[name].weight != 0 for name in masks})
        return True

    result = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, masks=masks, callback=look)
    for name, mask in masks.items():
        assert torch.equal(seen[name], given[name])
        assert torch.equal(result.masks[name], given[name])
        assert torch.equal(mask, given[name])


def test_it_improves_on_them(toy):
    result = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, masks=random_masks(toy))
    assert result.loss < result.initial_loss - 0.05


@pytest.mark.parametrize("constraint", ["output", "2:4"])
def test_initial_masks_by_exchange_are_those_of_prune_layerwise(toy64, constraint):
    """On the samples that are not held out."""
    x, y = toy64.samples
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))[200:]
    pattern = constraint if constraint != "output" else None
    expected = layerwise.prune_layerwise(
        copy.deepcopy(toy64.model), [(x[order], y[order])], "exchange", density=0.5, pattern=pattern
    )
    result = Pruner(
        density=0.5,
        initial="exchange",
        compare="output",
        constraint=constraint,
        passes=0,
        acceptance_samples=200,
    ).prune(toy64.model, toy64.batches, toy64.loss)
    for name, mask in expected.masks.items():
        assert torch.equal(result.masks[name], mask)


@pytest.mark.parametrize("after", [0, 3])
def test_resumes_from_given_masks_to_the_same_bits(tmp_path, after):
    """Also if it was interrupted before the first checkpoint."""
    toy = make_toy()
    whole = Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, masks=random_masks(toy))

    class InterruptionError(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.step == after:
            raise InterruptionError

    toy = make_toy()
    run = tmp_path / "run"
    with pytest.raises(InterruptionError):
        Pruner(**SETTINGS).prune(
            toy.model, toy.batches, toy.loss, masks=random_masks(toy), run=run, callback=interrupt
        )
    if not after:
        assert RunFolder(run).initial_masks() is not None
        assert not (run / "checkpoint.safetensors").exists()
    toy = make_toy()
    resumed = Pruner.resume(run, toy.model, toy.batches, toy.loss)
    assert resumed.loss == whole.loss
    for name, mask in whole.masks.items():
        assert torch.equal(resumed.masks[name], mask)


def without(masks, name):
    return {other: mask for other, mask in masks.items() if other != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: without(m, "2"), "none for '2'"),
        (lambda m: m | {"7": m["2"]}, "has '7'"),
        (lambda m: m | {"2": m["2"].T}, r"'2'.*shape \(20, 16\).*\(16, 20\)"),
        (lambda m: m | {"2": m["2"].float()}, r"'2'.*float32"),
        (lambda m: m | {"2": torch.ones_like(m["2"])}, r"'2' keeps 320 of 320.*densities"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(toy, tmp_path, change, message):
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    masks = change(random_masks(toy))
    run = tmp_path / "run"
    with pytest.raises(LayerError, match=message):
        Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, masks=masks, run=run)
    assert not run.exists()
    assert all(torch.equal(value, before[name]) for name, value in toy.model.state_dict().items())


def test_masks_that_break_the_pattern_are_refused(toy):
    with pytest.raises(LayerError, match="2:4"):
        Pruner(constraint="2:4").prune(
            toy.model, toy.batches, toy.loss, masks=random_masks(toy, 0.5)
        )
