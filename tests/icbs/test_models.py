"""Unusual models and data: in-place changes, keywords, hooks and special states."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from icbs import (
    ConfigError,
    DataError,
    LayerError,
    Pruner,
    RunFolderError,
    apply_masks,
    check_pattern,
    make_blocks,
    save_masks,
)
from icbs.export.compressed import save_compressed
from icbs.export.pretrained import PLAIN, save_pruned
from icbs.layerwise import prune_layerwise

LOSS = nn.CrossEntropyLoss()


def data(count: int = 64, width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, width, generator=generator)
    return inputs, torch.randint(0, 5, (count,), generator=generator)


def mlp() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 5))


def settings(**more: Any) -> dict[str, Any]:
    return {"density": 0.3, "passes": 2, "block_size": 32} | more


# -- gradients ----------------------------------------------------------------------------


def test_inputs_that_require_gradients_change_nothing():
    inputs, targets = data()
    asking = inputs.clone().requires_grad_()
    plain, other = (
        make_blocks(mlp(), [(x, targets)], LOSS, **settings()) for x in (inputs, asking)
    )
    for one, two in zip(plain, other, strict=True):
        assert one.problem.A.any()
        assert (one.problem.A == two.problem.A).all()
        assert (one.problem.linear == two.problem.linear).all()


def test_a_hidden_state_that_requires_gradients_changes_nothing():
    """As with enable_input_require_grads of transformers."""
    inputs, targets = data()
    model = mlp()
    model[0].register_forward_hook(lambda module, args, output: output.requires_grad_())
    plain = make_blocks(mlp(), [(inputs, targets)], LOSS, **settings())
    other = make_blocks(model, [(inputs, targets)], LOSS, **settings())
    for one, two in zip(plain, other, strict=True):
        assert (one.problem.linear == two.problem.linear).all()


def test_a_loss_without_gradients_is_refused():
    model = mlp()
    before = model[0].weight.clone()
    with pytest.raises(DataError, match="does not depend on any layer"):
        Pruner(**settings(curvature="empirical")).prune(
            model, [data()], lambda outputs, targets: F.cross_entropy(outputs.detach(), targets)
        )
    assert torch.equal(model[0].weight, before)


class WithoutGradients(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_a_model_that_switches_gradients_off_is_refused_by_name():
    with pytest.raises(LayerError, match=r"net\.0.*no_grad"):
        Pruner(**settings()).prune(WithoutGradients(), [data()], LOSS)


class AddsInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        x += self.first(x)
        return self.second(x)


def test_inputs_changed_in_place_are_refused_and_the_model_is_restored():
    model = AddsInPlace()
    before = model.first.weight.clone()
    with pytest.raises(LayerError, match="'first' are changed in place"):
        Pruner(**settings()).prune(model, [data()], LOSS)
    assert torch.equal(model.first.weight, before)


# -- the held-out loss --------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(dim=1))


def test_torchs_own_transformer_layers_are_pruned():
    inputs = torch.randn(32, 6, 16, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(32) % 5
    fast = torch.backends.mha.get_fastpath_enabled()
    result = Pruner(**settings(exclude=["*out_proj"])).prune(Encoder(), [(inputs, targets)], LOSS)
    assert result.loss <= result.initial_loss
    assert "encoder.layers.1.linear2" in result.masks
    masks = prune_layerwise(
        Encoder(), [(inputs, targets)], "wanda", density=0.5, exclude=["*out_proj"]
    ).masks
    assert masks.keys() == result.masks.keys()
    assert torch.backends.mha.get_fastpath_enabled() == fast


class Shares(nn.Module):
    """NaN where all features are 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Linear(16, 32, bias=False), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.a(x))
        return self.b(hidden / hidden.sum(-1, keepdim=True))


def test_initial_masks_without_a_finite_loss_are_refused(tmp_path):
    model = Shares()
    before = model.a.weight.clone()
    with pytest.raises(DataError, match="initial masks on held-out samples is NaN"):
        Pruner(**settings(density=0.01, initial="random")).prune(
            model, [data()], LOSS, run=tmp_path / "run"
        )
    assert torch.equal(model.a.weight, before)
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_later_pass_leaves_the_best_masks():
    model, seen = mlp(), []

    def stop(progress: Any) -> None:
        seen.append(progress.loss)
        if progress.step == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        Pruner(**settings(passes=5, seed=0)).prune(model, [data()], LOSS, callback=stop)
    result = Pruner(**settings(passes=2, seed=0)).prune(again := mlp(), [data()], LOSS)
    assert result.loss == pytest.approx(min(seen))
    assert torch.equal(model[0].weight, again[0].weight)


# -- baselines ----------------------------------------------------------------------------


class Steps(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4))
        self.shifts = nn.Parameter(3 * torch.randn(4, 16))
        self.head, self.in_place = nn.Linear(16, 5), in_place

    def forward(self, x: Tensor) -> Tensor:
        for block, shift in zip(self.blocks, self.shifts, strict=True):
            x = block(x)
            if self.in_place:
                x += shift
            else:
                x = x + shift
        return self.head(x)


def test_layerwise_methods_notice_states_changed_in_place():
    masks = [
        prune_layerwise(Steps(in_place), [data()], "wanda", density=0.5).masks
        for in_place in (True, False)
    ]
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[1])


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(input=self.a(x))


@pytest.mark.parametrize("method", ["wanda", "exchange", "sparsegpt"])
def test_layers_called_by_keyword(method):
    assert prune_layerwise(ByKeyword(), [data()], method, density=0.5).density == 0.5


# -- what is refused by name --------------------------------------------------------------

Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize(
    "batches",
    [
        [((data()[0],), data()[1]), ((data()[0], data()[0]), data()[1])],
        [({"x": data()[0]}, data()[1]), ({"y": data()[0]}, data()[1])],
        [data(), ({"x": data()[0]}, data()[1])],
        [({"x": data()[0]}, data()[1]), data()],
        None,
    ],
)
def test_batches_of_different_structure(batches):
    with pytest.raises(DataError, match="batches"):
        Pruner(**settings()).prune(mlp(), batches, LOSS)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.net(left + right)


def test_named_tuples_are_inputs_too():
    inputs, targets = data()
    result = Pruner(**settings()).prune(Sum(), [(Pair(inputs, inputs), targets)], LOSS)
    assert result.density == pytest.approx(0.3, abs=0.01)


def test_inputs_of_the_wrong_type_are_refused():
    with pytest.raises(DataError, match="can't process the samples"):
        Pruner(**settings()).prune(mlp().bfloat16(), [data()], LOSS)


def test_layers_without_weights_yet_are_refused():
    model = nn.Sequential(nn.LazyLinear(24), nn.ReLU(), nn.Linear(24, 5))
    with pytest.raises(LayerError, match="no weights yet"):
        Pruner(**settings()).prune(model, [data()], LOSS)


# -- using the result ---------------------------------------------------------------------


def test_masks_on_computed_weights_or_of_another_type_are_refused():
    masks = {"0": torch.rand(24, 16) < 0.5}
    model = mlp()
    with pytest.raises(LayerError, match=r"torch\.bool"):
        apply_masks(model, {"0": masks["0"].to(torch.uint8)})
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(LayerError, match="computes its weight"):
        apply_masks(model, masks)


def test_patterns_of_convolutions_and_of_transposed_weights():
    conv = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    inputs = torch.randn(32, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = prune_layerwise(conv, [(inputs, torch.arange(32) % 5)], "wanda", pattern="2:4").masks
    check_pattern(found, model=conv)
    with pytest.raises(LayerError, match="pass model for"):
        check_pattern(found)
    with pytest.raises(ConfigError, match="not a pattern"):
        check_pattern(found, 2, 0)


def test_states_that_share_memory_by_parts_are_saved(tmp_path):
    model = mlp()
    vector_to_parameters(
        parameters_to_vector(model.parameters()).detach().clone(), model.parameters()
    )
    model.register_buffer("turned", model[0].weight.detach().T)
    save_pruned(model, tmp_path)
    other = mlp()
    other.register_buffer("turned", torch.zeros(16, 24))
    from safetensors.torch import load_model

    load_model(other, tmp_path / PLAIN)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def test_state_that_is_not_a_tensor_is_skipped_on_saving(tmp_path):
    model = nn.Sequential(Extra(16, 24), nn.ReLU(), nn.Linear(24, 5))
    with pytest.warns(UserWarning, match="_extra_state"):
        result = Pruner(**settings()).prune(model, [data()], LOSS, run=tmp_path / "run")
    assert (tmp_path / "run" / PLAIN).exists()
    with pytest.raises(LayerError, match="instead of a tensor"):
        save_compressed(model.state_dict(), result.masks, tmp_path / "small.safetensors")


def test_masks_need_an_existing_folder(tmp_path):
    with pytest.raises(RunFolderError, match="does not exist; create"):
        save_masks({"0": torch.ones(2, 2, dtype=torch.bool)}, tmp_path / "none" / "masks")
