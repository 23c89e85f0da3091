"""Every kind of layer against torch.func: per-sample gradients in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.func import functional_call, grad, vmap

from icbs import LayerError, Pruner, apply_masks
from icbs.config import PrunerConfig
from icbs.data.holdout import HoldOut
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from tests.icbs.passes import empirical, factor_of, look
from tests.icbs.test_holdout import flip


class PadsItself(nn.Conv2d):
    """A convolution that pads by itself to keep size / stride, as TensorFlow's do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides = []
        for axis in (-1, -2):
            size, stride, kernel = x.shape[axis], self.stride[axis], self.kernel_size[axis]
            short = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            sides += [short // 2, short - short // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride)


class Tail(nn.Module):
    """A layer over images or sequences, a nonlinearity, and sums as logits."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x).tanh()
        return (
            (y * torch.linspace(-1, 1, y[0].numel()).to(y).view(y.shape[1:]))
            .reshape(len(y), 3, -1)
            .sum(2)
        )


def conv1d(out: int, width: int) -> nn.Module:
    utils = pytest.importorskip("transformers.pytorch_utils")
    return utils.Conv1D(out, width)


IMAGE, SEQUENCE = (4, 7, 9), (5, 4)
KINDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 6), (4,)),
    "linear over positions": (lambda: nn.Linear(4, 6, bias=False), SEQUENCE),
    "Conv1D": (lambda: conv1d(6, 4), SEQUENCE),
    "conv": (lambda: nn.Conv2d(4, 6, 3), IMAGE),
    "padded, strided": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)), IMAGE),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=1), IMAGE),
    "same": (lambda: nn.Conv2d(4, 6, (2, 4), padding="same"), IMAGE),
    "valid": (lambda: nn.Conv2d(4, 6, 2, padding="valid"), IMAGE),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "circular": (lambda: nn.Conv2d(4, 6, 4, padding="same", padding_mode="circular"), IMAGE),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 12, 3, groups=4, stride=2), IMAGE),
    "pointwise": (lambda: nn.Conv2d(4, 3, 1), IMAGE),
    "pads itself": (lambda: PadsItself(4, 6, 3, stride=2), IMAGE),
    "channels last": (
        lambda: nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last),
        IMAGE,
    ),
}


def build(name: str, count: int = 11) -> tuple[nn.Module, Samples, Layer]:
    torch.manual_seed(0)
    make, shape = KINDS[name]
    model = Tail(make()).double().eval()
    samples = Samples(torch.randn(count, *shape).double(), torch.randint(3, (count,)))
    (layer,) = find_layers(model, PrunerConfig(density=0.5))
    return model, samples, layer


@pytest.mark.parametrize("name", KINDS)
def test_per_sample_gradients_are_those_of_torch_func(name, monkeypatch):
    model, samples, layer = build(name)
    weights = {"layer.weight": layer.module.weight.detach()}

    def loss(p: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(model, p, (x[None],)), y[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, samples.inputs, samples.targets)
    each = torch.stack([layer.kind.matrix(g) for g in each["layer.weight"]]).flatten(1)
    # Unfold a few samples at a time, and gather a few columns at a time.
    monkeypatch.setattr("icbs.curvature.layer_io.MOST", 3000)
    objective = Objective(nn.CrossEntropyLoss())
    pass_info = look(model, [layer], objective, samples, empirical(len(samples)), batch_size=7)
    mean = each.mean(dim=0).view(layer.shape)
    torch.testing.assert_close(pass_info.gradients["layer"], mean)
    index = torch.randperm(layer.size)[:20]
    found = factor_of(pass_info, layer, index)
    gates = each[:, index] * layer.dense.flatten()[index]
    torch.testing.assert_close(found, gates / len(samples) ** 0.5)


@pytest.mark.parametrize("name", KINDS)
def test_squares_are_those_of_the_inputs_of_each_weight(name):
    """A single unit weight outputs its input, whose square Wanda's score uses."""
    model, samples, layer = build(name)
    objective = Objective(nn.CrossEntropyLoss())
    pass_info = look(model, [layer], objective, samples, empirical(4), batch_size=5)
    squares = torch.as_tensor(pass_info.squares["layer"]).expand(layer.shape)
    with torch.no_grad():
        if layer.module.bias is not None:
            layer.module.bias.zero_()
        for index in torch.randperm(layer.size)[:6]:
            layer.module.weight.zero_()
            row, column = layer.unravel(index[None])
            layer.kind.weight[layer.kind.at(row, column)] = 1.0
            alone = layer.module(samples.inputs).square().sum()
            torch.testing.assert_close(squares[row, column][0], alone)


@pytest.mark.parametrize("name", KINDS)
def test_masks_and_blocks_are_written_at_the_matrix_entries(name):
    _, _, layer = build(name)
    pruned = torch.rand(layer.size) < 0.5
    layer.set_mask(pruned)
    expected = torch.where(pruned.view(layer.shape), 0.0, layer.dense)
    assert torch.equal(layer.weight, expected)
    assert torch.equal(layer.mask, layer.module.weight != 0)
    index = torch.randperm(layer.size)[:9]
    layer.set_block(index, ~pruned[index])
    pruned[index] = ~pruned[index]
    assert torch.equal(layer.weight, torch.where(pruned.view(layer.shape), 0.0, layer.dense))
    assert torch.equal(layer.mask, layer.module.weight != 0)


@pytest.mark.parametrize("name", ["Conv1D", "padded, strided", "grouped", "pads itself"])
def test_trials_agree_with_evaluation_from_scratch(name):
    model, samples, layer = build(name)
    objective = Objective(nn.CrossEntropyLoss())
    holdout = HoldOut(model, [layer], objective, samples, batch_size=4)
    holdout.measure()
    generator = torch.Generator().manual_seed(0)
    for turn in range(4):
        index, change = flip(layer, generator)
        found = holdout.trial([(layer, index, change)])
        with torch.no_grad():
            scratch = objective.mean(model(samples.inputs), samples.targets)
        assert found == pytest.approx(float(scratch), rel=1e-12)
        if turn % 2:
            holdout.commit()
        else:
            layer.set_block(index, ~layer.pruned[index])


def convolutional(inplace: bool) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ReLU(inplace=inplace),
        nn.Flatten(),
        nn.Linear(200, 16),
        nn.ReLU(inplace=inplace),
        nn.Linear(16, 4),
    ).eval()


def test_activations_in_place_change_nothing():
    """They overwrite the layers' outputs, which must not affect gradients and trials."""
    x, y = torch.randn(300, 1, 12, 12), torch.randint(4, (300,))
    settings = {"density": 0.4, "passes": 4, "block_size": 32, "batch_size": 64}
    results = [
        Pruner(**settings).prune(convolutional(inplace), [(x, y)], nn.CrossEntropyLoss())
        for inplace in (False, True)
    ]
    assert results[0].accepted > 0
    assert results[1].loss == pytest.approx(results[0].loss, rel=1e-4)
    assert results[0].loss < results[0].initial_loss


def test_convolutions_are_pruned_to_their_density_and_masks_fit_the_weights():
    x, y = torch.randn(200, 1, 12, 12), torch.randint(4, (200,))
    model = convolutional(False)
    dense = copy.deepcopy(model)
    result = Pruner(density=0.3, passes=2, block_size=32).prune(
        model, [(x, y)], nn.CrossEntropyLoss()
    )
    for name, mask in result.masks.items():
        weight = model.get_submodule(name).weight
        assert mask.shape == weight.shape
        assert int(mask.sum()) == round(0.3 * weight.numel())
    apply_masks(dense, result.masks)
    for mine, theirs in zip(model.parameters(), dense.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Adapted(nn.Linear):
    """A linear layer with an additional term."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.5 * x.sum(-1, keepdim=True)


def test_a_subclass_with_an_additional_term_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), Adapted(8, 3))
    batches = [(torch.randn(20, 4), torch.randint(3, (20,)))]
    with pytest.raises(LayerError, match=r"layer '2' \(Adapted\) does not return its weight times"):
        Pruner(density=0.5).prune(model, batches, nn.CrossEntropyLoss())
    Pruner(density=0.5, passes=1, exclude=["2"]).prune(model, batches, nn.CrossEntropyLoss())


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_explains_its_output(name):
    model, samples, layer = build(name)
    with torch.no_grad():
        outputs = model.layer(samples.inputs)
    assert layer.kind.explains(samples.inputs, outputs, len(samples))
    assert not layer.kind.explains(samples.inputs, outputs + 1, len(samples))
