"""``blocks``: reconstruction of each block's output."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import CausalLMLoss, DataError, LayerError, RecoveryResult, hold_masks, recover
from icbs.layerwise import prune_layerwise
from icbs.model.layer import Layer
from icbs.recovery.block_chain import HiddenStates, find_blocks
from icbs.recovery.masked_adam import MaskedAdam
from icbs.recovery.masked_layers import masked_layers
from tests.icbs.architectures import make
from tests.icbs.conftest import Toy, make_toy
from tests.icbs.test_layerwise import decoder, texts
from tests.icbs.test_recovery import toy_masks

OPTIONS: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 15, "batch": 32}


def recover_toy(toy: Toy, **options: Any) -> RecoveryResult:
    masks = toy_masks(toy, 0.3)
    return recover(toy.model, masks, toy.batches, toy.loss, method="blocks", **OPTIONS | options)


def test_blocks_of_a_sequential_start_at_masked_layers():
    toy = make_toy()
    layers = masked_layers(toy.model, toy_masks(toy, 0.5))
    from icbs.data.samples import Samples

    x, y = toy.samples
    names, blocks = find_blocks(toy.model, layers, Samples(x[:1], y[:1]))
    assert names == ["0", "1", "2", "3", "4"]
    assert [(b.name, b.first, b.last) for b in blocks] == [("0", 0, 1), ("2", 2, 3), ("4", 4, 4)]
    parts = [Samples(x[i : i + 200], y[i : i + 200]) for i in (0, 200, 400)]
    states = HiddenStates.of(toy.model, names, blocks, parts)
    states.advance(2)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(states.states), toy.model[:4](x))
        whole = torch.cat([states.run(i, 2, 2, s) for i, s in enumerate(states.states)])
        torch.testing.assert_close(whole, toy.model(x))


def test_errors_fall_and_are_relative_to_the_dense_output():
    toy, dense = make_toy(), make_toy()
    result = recover_toy(toy)
    assert result.loss < result.initial_loss
    assert [row.label for row in result.history] == ["0", "2", "4"]
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    x = toy.samples[0]
    with torch.no_grad():
        for part, name in (
            (x[order[120:]], "calibration_error"),
            (x[order[:120]], "heldout_error"),
        ):
            wanted, found = dense.model[:2](part), toy.model[:2](part)
            scale = wanted.square().mean(dim=1)
            median = dense.model[:2](x[order]).square().mean(dim=1).median()
            error = (found - wanted).square().mean(dim=1) / scale.clamp(min=0.1 * median)
            expected = getattr(result.history[0], name)
            assert float(error.mean()) == pytest.approx(expected, rel=1e-3)


def test_a_linear_block_approaches_its_least_squares_error():
    """A single linear layer: the optimum is known."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5)).double()
    x = torch.randn(400, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    masks = {"0": torch.rand(5, 6) < 0.6, "1": torch.ones(5, 5, dtype=torch.bool)}
    model = copy.deepcopy(dense)
    recover(
        model, masks, [(x, dense(x).detach())], nn.MSELoss(), method="blocks",
        learning_rate=0.02, epochs=200, patience=200, batch=64,
    )  # fmt: skip
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    part = x[order[80:]]
    with torch.no_grad():
        wanted = dense[0](part)
        scale = wanted.square().mean(dim=1)
        weight = scale.clamp(min=0.1 * scale.median()).rsqrt()
        best = 0.0
        for row, support in enumerate(masks["0"]):
            design = torch.cat([part[:, support], torch.ones(320, 1)], dim=1) * weight[:, None]
            side = (wanted[:, row] * weight)[:, None]
            rest = design @ torch.linalg.lstsq(design, side).solution - side
            best += float(rest.square().sum())
        found = float((((model[0](part) - wanted) * weight[:, None]) ** 2).sum())
    assert best * 0.99 < found < 1.1 * best


@pytest.mark.parametrize("dense_inputs", [True, False])
def test_windows_overlap_and_lower_the_loss(dense_inputs):
    single = recover_toy(make_toy(), dense_inputs=dense_inputs)
    double = recover_toy(make_toy(), dense_inputs=dense_inputs, window=2)
    assert [row.label for row in double.history] == ["0", "0 … 2", "2 … 4"]
    assert double.loss < double.initial_loss
    assert double.loss != single.loss


def test_the_dense_prefix_gives_other_targets():
    losses = {flag: recover_toy(make_toy(), dense_inputs=flag).loss for flag in (True, False)}
    assert losses[True] < losses[False]


def test_training_stops_before_it_overfits():
    """Few samples and many epochs: no window ends above its initial held-out error."""
    toy = make_toy()
    x, y = toy.samples
    masks = toy_masks(toy, 0.6)
    start = recover(
        copy.deepcopy(toy.model), masks, [(x[:12], y[:12])], toy.loss, method="blocks",
        heldout=[(x[100:], y[100:])], batch=4, learning_rate=1e-12, epochs=1,
    )  # fmt: skip
    result = recover(
        toy.model, masks, [(x[:12], y[:12])], toy.loss, method="blocks",
        heldout=[(x[100:], y[100:])], batch=4, learning_rate=0.05, epochs=200,
    )  # fmt: skip
    first, trained = start.history[0], result.history[0]
    assert trained.heldout_error <= first.heldout_error * (1 + 1e-6)
    assert result.loss <= result.initial_loss


def test_padding_is_ignored():
    """Other tokens at padded positions, which no other position sees, change nothing."""
    found = []
    for shift in (0, 7):
        batches = []
        for inputs, labels in texts(24):
            pad = inputs["attention_mask"] == 0
            ids = torch.where(pad, (inputs["input_ids"] + shift) % 50, inputs["input_ids"])
            batches.append((inputs | {"input_ids": ids}, labels))
        model, masks = decoder(), None
        masks = prune_layerwise(decoder(), texts(24), "wanda", density=0.6).masks
        result = recover(
            model, masks, batches, CausalLMLoss(), method="blocks", batch=4, learning_rate=1e-3,
            epochs=2,
        )  # fmt: skip
        found.append([row.calibration_error for row in result.history])
        for name, mask in masks.items():
            assert not model.get_submodule(name).weight[~mask].any()
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_fewer_samples_than_a_batch_and_models_without_blocks_are_refused(toy):
    masks = toy_masks(toy, 0.5)
    before = [p.clone() for p in toy.model.parameters()]
    with pytest.raises(DataError, match="480 calibration samples are fewer than the batch of 500"):
        recover(toy.model, masks, toy.batches, toy.loss, method="blocks", batch=500)
    x, y = toy.samples
    with pytest.raises(DataError, match="3 calibration samples are fewer than the batch of 4"):
        recover(toy.model, masks, [(x[:4], y[:4])], toy.loss, method="blocks")

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(12, 4), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)

    model = Apart()
    with pytest.raises(LayerError, match="run one after the other"):
        recover(model, {"a": torch.rand(4, 12) < 0.5}, toy.batches, toy.loss, method="blocks")
    assert all(
        torch.equal(one, other) for one, other in zip(before, toy.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_adam_under_masks_is_torchs_adam_with_held_masks(dtype):
    torch.manual_seed(0)
    one = nn.Linear(8, 5).to(dtype)
    other = copy.deepcopy(one).to(torch.promote_types(dtype, torch.float32))
    mask = torch.rand(5, 8) < 0.5
    layer = Layer.of("", one, 0.5)
    layer.pruned = ~mask.flatten()
    layer.set_mask(layer.pruned)
    tensors = {".weight": one.weight, ".bias": one.bias}
    adam = MaskedAdam(tensors, [layer], 0.05, 10)
    reference = torch.optim.Adam(other.parameters(), lr=0.05, betas=(0.9, 0.95))
    rates = torch.optim.lr_scheduler.LambdaLR(reference, lambda step: 1 - step / 10)
    x = torch.randn(30, 8).to(dtype)
    with hold_masks(nn.ModuleDict({"a": other}), {"a": mask}):
        for _ in range(10):
            adam.step(one(x).float().square().mean() + one(x).float().mean())
            reference.zero_grad()
            value = other(x.to(other.weight.dtype)).float()
            (value.square().mean() + value.mean()).backward()
            reference.step()
            rates.step()
    assert not one.weight[~mask].any()
    tolerance = 1e-6 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(
        one.weight.to(other.weight), other.weight, atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("method", ["least-squares", "blocks"])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_transformers_are_recovered(name, method):
    """Decoders, and encoders with a decoder."""
    ids = torch.randint(3, 60, (24, 10), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if name == "t5" else {})
    model = make(name)
    masks = prune_layerwise(copy.deepcopy(model), [(inputs, ids)], "wanda", density=0.5).masks
    options = {"batch": 4, "learning_rate": 1e-3, "epochs": 3} if method == "blocks" else {}
    result = recover(model, masks, [(inputs, ids)], method=method, **options)
    assert result.loss < result.initial_loss
    errors = [row.heldout_error for row in result.history]
    assert all(0 < error < 1 for error in errors)
    for layer, mask in masks.items():
        assert not model.get_submodule(layer).weight[~mask].any()
