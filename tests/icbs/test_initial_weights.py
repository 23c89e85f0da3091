"""Runs that start from the masks and weights of a layer-wise method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import ConfigError, Pruner
from icbs.config import PrunerConfig
from icbs.config.names import UPDATING
from icbs.layerwise import prune_layerwise, sweep
from icbs.run.context import RunContext
from tests.icbs.conftest import Toy, make_toy

SETTINGS: dict[str, Any] = {"density": 0.3, "block_size": 32, "seed": 0, "weights": "initial"}


def linear(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def run(toy: Toy, **settings: Any) -> Any:
    given = SETTINGS | settings
    return Pruner(**given).prune(toy.model, toy.batches, toy.loss, progress=False)


def test_the_names_are_those_of_the_sweep():
    assert set(UPDATING) == set(sweep._UPDATING)


@pytest.mark.parametrize("method", UPDATING)
def test_without_passes_the_result_is_that_of_the_method(method):
    toy, other = make_toy(), make_toy()
    result = run(toy, initial=method, passes=0)
    # The method gets all samples, in another order, also the held-out ones.
    found = prune_layerwise(other.model, other.batches, method, density=0.3)
    for name, module in linear(toy.model).items():
        expected = other.model.get_submodule(name).weight
        # Sums of another order: rare ties may be decided otherwise.
        assert (result.masks[name] == found.masks[name]).float().mean() > 0.98
        torch.testing.assert_close(module.weight, expected, rtol=1e-2, atol=1e-3)


def test_kept_weights_stay_at_the_start_values_and_others_return_at_dense_ones():
    toy, start = make_toy(), make_toy()
    dense = {name: m.weight.detach().clone() for name, m in linear(toy.model).items()}
    first = run(start, initial="sparsegpt", passes=0)
    last = run(toy, initial="sparsegpt", passes=20)
    assert last.loss < first.loss
    moved = 0
    for name, module in linear(toy.model).items():
        began, kept = first.masks[name], last.masks[name]
        weight, before = module.weight.detach(), start.model.get_submodule(name).weight.detach()
        assert torch.equal(weight[kept & began], before[kept & began])
        assert torch.equal(weight[kept & ~began], dense[name][kept & ~began])
        assert not weight[~kept].any()
        moved += int((kept & ~began).sum())
    assert moved


def test_an_interrupted_run_is_resumed_to_the_same_bits(tmp_path):
    whole, part = make_toy(), make_toy()
    dense = copy.deepcopy(part.model.state_dict())
    settings = SETTINGS | {"initial": "sparsegpt", "passes": 6, "checkpoint_every": 2}
    Pruner(**settings).prune(whole.model, whole.batches, whole.loss, progress=False)
    Pruner(**settings).prune(
        *(part.model, part.batches, part.loss),
        run=tmp_path / "run",
        callback=lambda now: now.step == 3,
        progress=False,
    )
    part.model.load_state_dict(dense)
    Pruner.resume(tmp_path / "run", part.model, part.batches, part.loss, progress=False)
    for one, other in zip(whole.model.parameters(), part.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_steps_of_all_weights_begin_at_them():
    toy = make_toy()
    result = run(toy, initial="sparsegpt", weights="global", passes=8)
    assert result.loss < result.initial_loss


def test_a_failure_restores_the_dense_weights(monkeypatch):
    toy = make_toy()
    dense = copy.deepcopy(toy.model.state_dict())

    def fail(*args: object) -> Tensor:
        raise RuntimeError("stopped")

    monkeypatch.setattr("icbs.run.start._check_block_size", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        run(toy, initial="sparsegpt")
    for name, tensor in toy.model.state_dict().items():
        assert torch.equal(tensor, dense[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": "sparsegpt", "weights": "fixed"}, "set weights='initial'"),
        ({"initial": "wanda", "weights": "initial"}, "set initial to sparsegpt"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Pruner(density=0.3, **settings)


def test_given_masks_are_refused():
    toy = make_toy()
    masks = {name: torch.ones_like(m.weight) > 0 for name, m in linear(toy.model).items()}
    with pytest.raises(ConfigError, match="masks are given"):
        Pruner(density=0.3, initial="alps", weights="initial").prune(
            toy.model, toy.batches, toy.loss, masks=masks
        )


def test_the_weights_before_the_start_count_as_memory():
    toy = make_toy()
    parts = []
    for settings in ({"initial": "wanda", "weights": "fixed"}, {"initial": "alps"}):
        config = PrunerConfig.of(**SETTINGS | settings)
        parts.append(RunContext.prepare(toy.model, toy.batches, toy.loss, config).plan.parts)
    dense = sum(module.weight.nbytes for module in linear(toy.model).values())
    assert parts[1] == parts[0] | {"weights before the start": dense}
