"""Magnitude, Wanda and SparseGPT on whole models, block after block."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from icbs import ConfigError, DataError, LayerError, Pruner
from icbs.config import PrunerConfig
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise, sparsegpt
from icbs.layerwise.execution_order import in_execution_order
from icbs.model.finding import find_layers

WIDTH = 16


class DecoderBlock(nn.Module):
    """Attention and a feed-forward part; may return a tuple, as in some libraries."""

    def __init__(self, *, tuples: bool) -> None:
        super().__init__()
        self.tuples = tuples
        self.query, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        self.calls = 0

    def forward(self, x: torch.Tensor, scale: float, *, mask: torch.Tensor) -> Any:
        self.calls += len(x)
        scores = self.query(x) @ x.mT * scale
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        allowed = causal & mask[:, None, :].bool()
        weights = scores.masked_fill(~allowed, -1e9).softmax(-1)
        x = x + weights @ self.value(x)
        x = x + self.down(self.up(x).relu())
        return (x, None) if self.tuples else x


class Decoder(nn.Module):
    def __init__(self, depth: int = 3, *, tuples: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, WIDTH)
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(DecoderBlock(tuples=tuples) for _ in range(depth))
        self.head = nn.Linear(WIDTH, 50, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.embed(input_ids))
        for layer in self.layers:
            out = layer(x, 0.25, mask=attention_mask)
            x = out[0] if isinstance(out, tuple) else out
        return self.head(x)


def decoder(**options: Any) -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Decoder(**options).double().eval()


def texts(count: int = 12, length: int = 9) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(50, (count, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[::3, 6:] = 0  # padded on the right
    labels = ids.masked_fill(mask == 0, -100)
    return [
        ({"input_ids": ids[i : i + 4], "attention_mask": mask[i : i + 4]}, labels[i : i + 4])
        for i in range(0, count, 4)
    ]


def inputs_of(model: nn.Module, name: str, batches: Any) -> torch.Tensor:
    """Return a layer's inputs at positions other than padding."""
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with torch.no_grad():
        for inputs, _ in batches:
            model(**inputs)
    handle.remove()
    counted = torch.cat([inputs["attention_mask"] for inputs, _ in batches]).bool()
    return torch.cat(seen)[counted]


ORDER = ["stem"] + [
    [f"layers.{i}.{part}" for part in ("query", "value", "up", "down")] for i in range(3)
]


def by_hand(method: str, model: Decoder, batches: Any, density: float) -> dict[str, torch.Tensor]:
    """Reference: forward passes of the whole pruned model before each block."""
    masks = {}
    groups = [[ORDER[0]], *ORDER[1:], ["head"]]
    for group in groups:
        received = {name: inputs_of(model, name, batches) for name in group}
        for name in group:
            linear, x = model.get_submodule(name), received[name]
            weight = linear.weight.detach()
            if method == "wanda":
                score = weight.abs() * x.norm(dim=0)
                keep = round(density * weight.shape[1])
                mask = torch.zeros_like(weight, dtype=torch.bool)
                for i, row in enumerate(score):
                    mask[i, row.topk(keep).indices] = True
                new = weight * mask
            else:
                keep = round(density * weight.numel())
                new, mask = sparsegpt(weight, x.T @ x / len(x), keep)
            masks[name] = mask
            linear.weight.data = new
    return masks


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_replayed_blocks_agree_with_whole_forward_passes(method, tuples):
    """Masks and weights equal the reference, with three passes over each block."""
    model, slow = decoder(tuples=tuples), decoder(tuples=tuples)
    expected = by_hand(method, slow, texts(), 0.5)
    found = prune_layerwise(model, texts(), method, density=0.5, batch_size=5)
    assert list(found.masks) == list(expected)
    assert found.density == 0.5
    for name, mask in expected.items():
        assert torch.equal(found.masks[name], mask), name
        torch.testing.assert_close(
            model.get_submodule(name).weight, slow.get_submodule(name).weight
        )
    # Seven samples to look (but the last block is not captured), one pass for the stem's inputs or
    # the head's, and two each. All arguments are captured without running the blocks.
    assert [block.calls for block in model.layers] == [7 + 12 * 3, 7 + 12 * 3, 5 + 12 * 3]


class Counted(Decoder):
    """Arguments of a block depend on the number of those that have run."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x, before = self.stem(self.embed(input_ids)), self.layers[0].calls
        for layer in self.layers:
            x = layer(x, torch.tensor(0.25 + (self.layers[0].calls > before)), mask=attention_mask)
        return self.head(x)


def test_blocks_whose_arguments_depend_on_them_are_run_to_capture_these():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Counted().double().eval()
    slow = copy.deepcopy(model)
    expected = by_hand("wanda", slow, texts(), 0.5)
    found = prune_layerwise(model, texts(), "wanda", density=0.5, batch_size=5)
    for name, mask in expected.items():
        assert torch.equal(found.masks[name], mask), name
    assert model.layers[0].calls == 7 + 12 * 4


def test_padding_is_ignored():
    results = []
    for noise in (0, 7):
        batches = texts()
        for inputs, _ in batches:
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            inputs["input_ids"] = torch.where(mask == 0, (ids + noise) % 50, ids)
        results.append(prune_layerwise(decoder(), batches, "wanda", density=0.4).masks)
    for name, mask in results[0].items():
        assert torch.equal(mask, results[1][name])


def test_labels_mark_padding_where_there_is_no_attention_mask():
    plain = nn.Sequential(nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 8)).double()
    ids = torch.arange(12).view(2, 6)
    labels = torch.zeros(2, 6, dtype=torch.long)
    labels[1, 3:] = -100
    model = copy.deepcopy(plain)
    masks = prune_layerwise(model, [(ids, labels)], "wanda", density=0.5).masks
    x = plain[0](ids)[labels != -100]
    score = (plain[1].weight.abs() * x.norm(dim=0)).detach()
    for row, mask in zip(score, masks["1"], strict=True):
        assert set(mask.nonzero()[:, 0].tolist()) == set(row.topk(8).indices.tolist())


def test_magnitude_keeps_the_largest_of_each_layer(toy):
    weights = {name: p.detach().clone().abs() for name, p in toy.model.named_parameters()}
    found = prune_layerwise(toy.model, None, "magnitude", density=0.3)
    for name, mask in found.masks.items():
        size = weights[f"{name}.weight"]
        assert mask.sum() == round(0.3 * size.numel())
        assert size[mask].min() >= size[~mask].max()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "exchange", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_patterns_hold_exactly(method, pattern):
    model = decoder()
    found = prune_layerwise(model, texts(), method, pattern=pattern)
    keep, run = map(int, pattern.split(":"))
    for name, mask in found.masks.items():
        assert set(mask.view(-1, run).sum(dim=1).tolist()) == {keep}
        assert (model.get_submodule(name).weight[~mask] == 0).all()


def test_density_is_exact_in_every_output_for_wanda():
    found = prune_layerwise(
        decoder(), texts(), "wanda", density=0.3, densities={"*.down": 0.6}, exclude=["head"]
    )
    assert "head" not in found.masks
    for name, mask in found.masks.items():
        density, (rows, columns) = (0.6 if name.endswith("down") else 0.3), mask.shape
        counts = mask.sum(dim=1)
        assert counts.sum() == round(density * rows * columns)
        assert counts.max() - counts.min() <= 1


def test_mask_alone_leaves_dense_weights():
    dense, model, updated = decoder(), decoder(), decoder()
    found = prune_layerwise(model, texts(), "sparsegpt", density=0.5, update=False)
    other = prune_layerwise(updated, texts(), "sparsegpt", density=0.5)
    first = "layers.0.query"
    # The same mask where the inputs are the same, and other weights.
    assert torch.equal(found.masks["stem"], other.masks["stem"])
    for name, mask in found.masks.items():
        weight = dense.get_submodule(name).weight
        torch.testing.assert_close(model.get_submodule(name).weight, weight * mask)
    assert not torch.equal(updated.get_submodule(first).weight, model.get_submodule(first).weight)


def test_a_model_without_blocks_needs_a_pass_per_layer(toy):
    """Later layers get inputs from the pruned layers before them."""
    dense = copy.deepcopy(toy.model)
    found = prune_layerwise(toy.model, toy.batches, "wanda", density=0.5)
    x, _ = toy.samples
    dense[0].weight.data *= found.masks["0"]
    score = dense[2].weight.abs() * dense[:2](x).norm(dim=0)
    kept = score[found.masks["2"]].view(16, -1).min(dim=1).values
    lost = score.masked_fill(found.masks["2"], -1).max(dim=1).values
    assert (kept >= lost).all()


def test_its_masks_can_be_initial_masks(toy):
    start = copy.deepcopy(toy.model)
    masks = prune_layerwise(start, toy.batches, "wanda", density=0.5).masks
    result = Pruner(density=0.5, constraint="output", passes=3, gradient_samples=200).prune(
        toy.model, toy.batches, toy.loss, masks=masks
    )
    assert result.loss < result.initial_loss
    for name, mask in result.masks.items():
        assert torch.equal(mask.sum(dim=1), masks[name].sum(dim=1))


def test_each_layer_is_visited_once_in_order():
    model = decoder()
    layers = find_layers(model, PrunerConfig())
    inputs, labels = texts()[0]
    with torch.no_grad():
        groups = [
            [x.name for x in group]
            for group, _ in in_execution_order(model, layers, [Samples(inputs, labels)])
        ]
    assert groups == [["stem"], *ORDER[1:], ["head"]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"method": "wander", "density": 0.5},
            ConfigError,
            "magnitude, wanda, exchange, sparsegpt",
        ),
        ({"method": "wanda"}, ConfigError, "set density=0.5 or pattern"),
        ({"method": "wanda", "pattern": "2:4", "density": 0.3}, ConfigError, "leave density"),
        ({"method": "wanda", "density": 0.5, "passes": 3}, ConfigError, "'passes'"),
        ({"method": "wanda", "pattern": "3:5"}, LayerError, "stem"),
        ({"method": "wanda", "density": 0.5, "include": ["nothing"]}, LayerError, "nothing"),
    ],
)
def test_bad_requests_are_refused_with_a_remedy(arguments, error, message):
    model = decoder()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        prune_layerwise(model, texts(), **arguments)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failure_restores_the_dense_model():
    model = decoder()
    before = copy.deepcopy(model.state_dict())

    def interrupt(done: int, layers: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_layerwise(model, texts(), "sparsegpt", density=0.5, callback=interrupt)
    model.layers[1].up.weight.data[0, 0] = torch.inf
    with pytest.raises(LayerError, match=r"layers\.1\.up"):
        prune_layerwise(model, texts(), "wanda", density=0.5)
    model.layers[1].up.weight.data = before["layers.1.up.weight"].clone()
    model.embed.weight.data[:] = torch.nan
    with pytest.raises(DataError, match="'stem'.*NaN"):
        prune_layerwise(model, texts(), "wanda", density=0.5)
    model.embed.weight.data = before["embed.weight"].clone()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["magnitude", "wanda", "exchange", "sparsegpt"])
def test_convolutions_of_every_kind_are_pruned_to_their_density(method):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, groups=8),
        nn.ReLU(),
        nn.Conv2d(16, 4, 1),
        nn.Flatten(),
        nn.Linear(64, 3),
    ).double()
    x = torch.randn(60, 2, 10, 10, dtype=torch.float64)
    dense = copy.deepcopy(model)
    result = prune_layerwise(model, [(x, torch.zeros(60).long())], method, density=0.5)
    for name, mask in result.masks.items():
        weight = model.get_submodule(name).weight
        assert int(mask.sum()) == round(0.5 * mask.numel())
        assert not weight[~mask].any()
    if method == "sparsegpt":
        # With the update the layer answers more alike than with the mask alone.
        masked = copy.deepcopy(dense)
        for name, mask in result.masks.items():
            masked.get_submodule(name).weight.data *= mask
        with torch.no_grad():
            errors = [(m[:3](x) - dense[:3](x)).square().sum() for m in (model, masked)]
        assert errors[0] < errors[1]
