"""Use of masks after pruning: fine-tuning, torch's pruning, compressed files."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from icbs import (
    LayerError,
    Pruner,
    RunFolderError,
    apply_masks,
    check_pattern,
    hold_masks,
    load_compressed,
    load_masks,
    save_compressed,
    save_masks,
    to_torch_pruning,
)
from icbs.layerwise import prune_layerwise
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.language import make_language_model

OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.001),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}


def masked(toy: Toy) -> dict[str, torch.Tensor]:
    """Magnitude masks at density 0.4, applied."""
    return prune_layerwise(toy.model, None, "magnitude", density=0.4).masks


def train(toy: Toy, optimiser: torch.optim.Optimizer, steps: int = 10) -> None:
    x, y = toy.samples
    for _ in range(steps):
        optimiser.zero_grad()
        toy.loss(toy.model(x), y).backward()
        optimiser.step()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_pruned_weights_stay_exactly_zero_under_an_ordinary_optimiser(toy, name):
    optimiser = OPTIMISERS[name](toy.model.parameters())
    # Momentum from before, which would carry pruned weights away from zero.
    train(toy, optimiser, 5)
    masks = masked(toy)
    before = {name: m.weight.clone() for name, m in toy.model.named_modules() if name in masks}
    x, y = toy.samples
    start = toy.loss(toy.model(x), y).item()
    with hold_masks(toy.model, masks):
        train(toy, optimiser, 30)
        for layer, mask in masks.items():
            weight = toy.model.get_submodule(layer).weight
            assert not weight[~mask].any()
            assert not weight.grad[~mask].any()
            assert not torch.equal(weight, before[layer])
    assert toy.loss(toy.model(x), y).item() < start
    train(toy, optimiser, 5)
    assert any(toy.model.get_submodule(n).weight[~m].any() for n, m in masks.items())


def test_noise_of_an_optimiser_is_undone(toy):
    class Noisy(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(torch.randn_like(parameter))

    masks = masked(toy)
    hold = hold_masks(toy.model, masks)
    train(toy, Noisy(toy.model.parameters(), lr=0.1), 3)
    hold.release()
    for layer, mask in masks.items():
        assert not toy.model.get_submodule(layer).weight[~mask].any()


def replaced(toy: Toy) -> dict[str, Callable[[], nn.Module]]:
    """Replace held parameters; returns the model to use."""
    fresh = make_toy(seed=1).model

    def layer() -> nn.Module:
        toy.model[2] = copy.deepcopy(fresh[2])
        return toy.model

    def parameter() -> nn.Module:
        toy.model[2].weight = nn.Parameter(fresh[2].weight.detach().clone())
        return toy.model

    def loaded(assign: bool) -> Callable[[], nn.Module]:
        def load() -> nn.Module:
            toy.model.load_state_dict(fresh.state_dict(), assign=assign)
            return toy.model

        return load

    return {
        "loaded": loaded(False),
        "assigned": loaded(True),
        "copied": lambda: copy.deepcopy(toy.model),
        "copied within": lambda: copy.deepcopy(nn.ModuleList([toy.model]))[0],
        "copied twice": lambda: copy.deepcopy(copy.deepcopy(toy.model)),
        "another layer": layer,
        "another parameter": parameter,
    }


@pytest.mark.parametrize("name", replaced(make_toy()))
def test_a_replaced_weight_is_held_too(toy, name):
    masks, (x, y) = masked(toy), toy.samples
    with hold_masks(toy.model, masks):
        model = replaced(toy)[name]()
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
        for step in range(4):
            optimiser.zero_grad()
            toy.loss(model(x), y).backward()
            if step:
                for layer, mask in masks.items():
                    assert not model.get_submodule(layer).weight.grad[~mask].any()
            before = {layer: model.get_submodule(layer).weight.clone() for layer in masks}
            optimiser.step()
            for layer, mask in masks.items():
                weight = model.get_submodule(layer).weight
                assert not weight[~mask].any()
                assert not torch.equal(weight, before[layer])
    optimiser.zero_grad()
    toy.loss(model(x), y).backward()
    optimiser.step()
    assert any(model.get_submodule(n).weight[~m].any() for n, m in masks.items())
    assert not any("icbs" in key for m in model.modules() for key in vars(m))


def test_a_held_model_can_be_pickled(toy):
    masks = masked(toy)
    with hold_masks(toy.model, masks):
        again = pickle.loads(pickle.dumps(toy.model))
        train(Toy(again, toy.batches, toy.loss), torch.optim.SGD(again.parameters(), lr=0.1))
    assert any(again.get_submodule(n).weight[~m].any() for n, m in masks.items())


def test_a_layer_of_another_shape_raises_an_error(toy):
    masks = masked(toy)
    optimiser = torch.optim.SGD(toy.model.parameters(), lr=0.1)
    hold = hold_masks(toy.model, masks)
    toy.model[4] = nn.Linear(16, 5)
    with pytest.raises(
        LayerError, match=r"layer '4', which has a weight of \(5, 16\) now; call release"
    ):
        train(toy, optimiser, 1)
    del toy.model[4]
    with pytest.raises(LayerError, match="layer '4'.* no weight now"):
        optimiser.step()
    hold.release()
    optimiser.step()


def test_a_hold_does_not_keep_a_copy_alive(toy):
    with hold_masks(toy.model, masked(toy)) as hold:
        copies = weakref.ref(copy.deepcopy(toy.model))
        gc.collect()
        assert copies() is None
        assert len(hold._holds) == 1


def test_a_model_with_torch_pruning_can_be_copied(toy):
    masks = masked(toy)
    to_torch_pruning(toy.model, masks)
    x, y = toy.samples
    other = copy.deepcopy(toy.model)
    assert torch.equal(other(x), toy.model(x))
    toy.loss(other(x), y).backward()
    for layer, mask in masks.items():
        gradient = other.get_submodule(layer).weight_orig.grad
        assert gradient[mask].any()
        assert not gradient[~mask].any()


def test_conversion_to_torch_pruning_changes_no_output(toy):
    masks = masked(toy)
    x, _ = toy.samples
    before = toy.model(x)
    to_torch_pruning(toy.model, masks)
    assert torch_prune.is_pruned(toy.model)
    assert torch.equal(toy.model(x), before)
    for layer, mask in masks.items():
        module = toy.model.get_submodule(layer)
        assert torch.equal(module.weight_mask.bool(), mask)
        torch_prune.remove(module, "weight")
        assert not module.weight[~mask].any()
    assert torch.equal(toy.model(x), before)


@pytest.mark.parametrize("use", [apply_masks, hold_masks, to_torch_pruning])
def test_masks_of_another_model_are_refused_before_anything_changes(toy, use):
    masks = masked(toy)
    before = copy.deepcopy(toy.model.state_dict())
    for wrong in (masks | {"9": masks["0"]}, masks | {"0": masks["2"]}):
        with pytest.raises(LayerError, match="use the model that the masks belong to"):
            use(toy.model, wrong)
    assert toy.model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in toy.model.state_dict().items())


def test_two_of_four_passes_the_conversion_that_torch_does():
    model = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 32)).to(torch.bfloat16)
    masks = prune_layerwise(model, None, "magnitude", pattern="2:4").masks
    check_pattern(masks)
    for layer in masks:
        dense = model.get_submodule(layer).weight.detach()
        packed, meta = sparse_semi_structured_from_dense_cutlass(dense)
        assert packed.shape == (len(dense), dense.shape[1] // 2)
        assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, meta), dense)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 8), st.data())
def test_patterns_agree_with_counts_of_each_group(rows, runs, of, data):
    bits = data.draw(st.lists(st.booleans(), min_size=rows * runs * of, max_size=rows * runs * of))
    keep = data.draw(st.integers(0, of))
    mask = torch.tensor(bits).view(rows, runs * of)
    worst = max(sum(bits[i : i + of]) for i in range(0, len(bits), of))
    if worst <= keep:
        check_pattern({"layer": mask}, keep, of)
    else:
        with pytest.raises(LayerError, match=f"in 'layer' keep more than {keep}"):
            check_pattern({"layer": mask}, keep, of)


def test_widths_that_are_not_a_multiple_are_refused():
    with pytest.raises(LayerError, match=r"shape \(3, 6\); N:M needs"):
        check_pattern({"layer": torch.ones(3, 6, dtype=torch.bool)})


def test_files_of_masks_are_checked(toy, tmp_path):
    masks = masked(toy)
    save_masks(masks, tmp_path / "masks.safetensors")
    again = load_masks(tmp_path / "masks.safetensors")
    assert again.keys() == masks.keys()
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())
    content = bytearray((tmp_path / "masks.safetensors").read_bytes())
    content[-1] ^= 0x10
    (tmp_path / "masks.safetensors").write_bytes(content)
    with pytest.raises(RunFolderError, match="is not a readable mask file"):
        load_masks(tmp_path / "masks.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_compressed_models_are_restored_bit_for_bit(tmp_path, dtype):
    model = make_language_model().to(dtype)
    result = prune_layerwise(model, None, "magnitude", density=0.3, exclude=["lm_head"])
    path = tmp_path / "small.safetensors"
    size = save_compressed(model.state_dict(), result.masks, path)
    state, masks = load_compressed(path)
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert state[name].dtype == dtype
        assert torch.equal(state[name].view(torch.uint8), value.view(torch.uint8))
    assert all(torch.equal(masks[name], mask) for name, mask in result.masks.items())
    # Tied embeddings are written once.
    assert state["lm_head.weight"] is state["model.embed_tokens.weight"]
    width = torch.finfo(dtype).bits / 8
    whole = sum(p.numel() for p in model.parameters())
    pruned = sum(mask.numel() for mask in masks.values())
    wanted = width * (whole - pruned) + pruned * (1 / 8 + 0.3 * width)
    assert wanted < size < wanted + 6000  # names and shapes
    fresh = make_language_model().to(dtype)
    fresh.load_state_dict(state)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(fresh(tokens).logits, model(tokens).logits)


def test_bad_compressed_files_and_states(toy, tmp_path):
    path = tmp_path / "small.safetensors"
    masks = masked(toy)
    dense = {key: value + 1 for key, value in toy.model.state_dict().items()}
    with pytest.raises(LayerError, match="'0' is not zero where it is pruned"):
        save_compressed(dense, masks, path)
    with pytest.raises(LayerError, match="the state has no weight there"):
        save_compressed({}, masks, path)
    assert not path.exists()
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(RunFolderError, match="is not a compressed model"):
        load_compressed(path)
    path.write_bytes(b"no")
    with pytest.raises(RunFolderError, match="is not a readable compressed model"):
        load_compressed(path)


def test_masks_of_a_pruner_can_be_used_for_all_of_this(toy, tmp_path):
    result = Pruner(density=0.4, block_size=32, passes=2, gradient_samples=200).prune(
        toy.model, toy.batches, toy.loss
    )
    save_compressed(toy.model.state_dict(), result.masks, tmp_path / "small.safetensors")
    state, _ = load_compressed(tmp_path / "small.safetensors")
    assert all(torch.equal(state[key], value) for key, value in toy.model.state_dict().items())
    to_torch_pruning(toy.model, result.masks)
