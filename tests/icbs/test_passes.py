"""Passes that choose blocks on their way, tokens as samples, and padding that never counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from icbs.config import PrunerConfig
from icbs.curvature.passes import Pass, selection_point, take_pass
from icbs.data.objective import Objective
from icbs.data.positions import Drawn
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.model.finding import find_layers
from icbs.model.layer import Layer


class Mixer(nn.Module):
    """Causal: position t sees the mean of what counts up to t; logits for every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.up, self.out = nn.Linear(6, 8), nn.Linear(8, 11)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        weight = attention_mask.to(self.up.weight.dtype)[..., None]
        h = self.embed(input_ids)
        h = (h * weight).cumsum(1) / weight.cumsum(1).clamp(min=1)
        return self.out(self.up(h).tanh())


def sequence_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over a sample's own counted tokens, then over samples."""
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    counted = labels != -100
    return (each.sum(1) / counted.sum(1)).mean()


def sequences(count: int = 9, length: int = 7, *, pad: int = 0) -> Samples:
    """Random tokens; sample s has ``pad + s % 3`` positions of padding where pad > 0."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(11, (count, length), generator=generator)
    labels = torch.randint(11, (count, length), generator=generator)
    mask = torch.ones_like(ids)
    if pad:
        for s in range(count):
            mask[s, length - pad - s % 3 :] = 0
        labels[mask == 0] = -100
    return Samples({"input_ids": ids, "attention_mask": mask}, labels)


def model_and_layers() -> tuple[nn.Module, list[Layer]]:
    torch.manual_seed(1)
    model = Mixer().double().eval()
    return model, find_layers(model, PrunerConfig(density=0.5))


def look(model: nn.Module, layers: list[Layer], samples: Samples, **changes: object) -> Pass:
    settings = {
        "curvature": "empirical",
        "curvature_samples": len(samples),
        "batch_size": 4,
        "generator": torch.Generator().manual_seed(0),
    }
    return take_pass(model, layers, Objective(sequence_loss), samples, **(settings | changes))  # type: ignore[arg-type]


def picks(layers: list[Layer]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {x.name: torch.randperm(x.size, generator=generator)[:13] for x in layers}


@pytest.mark.parametrize("after", [1, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 20])
def test_columns_gathered_on_the_way_are_those_of_a_pass_that_holds_everything(after, batch_size):
    model, layers = model_and_layers()
    samples, index = sequences(), picks(layers)
    seen: list[Pass] = []

    def choose(information: Pass) -> dict[str, torch.Tensor]:
        seen.append(information)
        return index

    found = look(
        model,
        layers,
        samples,
        batch_size=batch_size,
        choose=choose,
        choose_after=after,
        curvature_samples=4,
    )
    whole = look(model, layers, samples)
    first = look(model, layers, samples[:after])
    others = look(model, layers, samples[after:])
    rest = look(model, layers, samples[after : after + 4])
    assert len(seen) == 1
    assert found.count == len(samples)
    assert found.loss == pytest.approx(whole.loss)
    for layer in layers:
        block = index[layer.name]
        # What blocks are chosen by is what came before the selection point, …
        torch.testing.assert_close(found.gradients[layer.name], first.gradients[layer.name])
        torch.testing.assert_close(found.squares[layer.name], first.squares[layer.name])
        # … the linear term is of all that followed, the curvature of the first of it.
        torch.testing.assert_close(found.gradient(layer, block), others.gradient(layer, block))
        a, b = (p.curvature(layer, block).factor for p in (found, rest))
        torch.testing.assert_close(a, b)


def test_a_layer_whose_turn_it_is_not_costs_nothing_and_has_no_curvature():
    model, layers = model_and_layers()
    index = {"up": torch.arange(5)}
    found = look(model, layers, sequences(), choose=lambda _: index, choose_after=2)
    assert set(found.means) == {"up"}
    with pytest.raises(ValueError, match="other weights of 'out'"):
        found.curvature(layers[1], torch.arange(5))
    with pytest.raises(ValueError, match="other weights of 'up'"):
        found.curvature(layers[0], torch.arange(4))


def test_gathered_monte_carlo_columns_have_mean_gradients_of_the_data():
    model, layers = model_and_layers()
    samples, index = sequences(), picks(layers)
    objective = Objective(sequence_loss)

    def draw(outputs: torch.Tensor, targets: object, generator: object) -> torch.Tensor:
        return outputs.argmin(dim=2)

    objective.sample_targets = draw  # type: ignore[method-assign, assignment]
    settings = {
        "curvature": "monte-carlo",
        "curvature_samples": 6,
        "batch_size": 2,
        "generator": torch.Generator(),
        "choose": lambda _: index,
    }
    found = take_pass(model, layers, objective, samples, choose_after=3, **settings)
    held = take_pass(model, layers, objective, samples[3:], **settings)
    others = look(model, layers, samples[3:])
    for layer in layers:
        block = index[layer.name]
        torch.testing.assert_close(found.gradient(layer, block), others.gradient(layer, block))
        a, b = (p.curvature(layer, block).factor for p in (found, held))
        torch.testing.assert_close(a, b)


def test_a_quarter_of_the_samples_of_a_pass_chooses_its_blocks():
    def point(samples: int, **settings: object) -> int | None:
        return selection_point(PrunerConfig.of(**settings), samples)

    assert [point(n) for n in (1, 2, 16, 17)] == [None, 1, 4, 5]
    # The exact Hessian, the layer's own error and tokens choose at the end.
    assert point(16, curvature="exact") is point(16, curvature="gram") is None
    assert point(16, sample="token") is None
    assert point(16, curvature="fisher+gram") == 4


def test_no_sample_that_chose_a_block_says_what_moving_it_is_worth():
    """Of samples that are noise, the gradient of the most promising weights is noise too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 1, bias=False)).double()
    layers = find_layers(model, PrunerConfig(density=0.5))
    samples = Samples(torch.randn(64, 400).double(), torch.randn(64, 1).double())
    chosen = []

    def choose(information: Pass) -> dict[str, torch.Tensor]:
        index = information.gradients["0"].abs().flatten().topk(20).indices
        chosen.append(information.gradients["0"].flatten()[index])
        return {"0": index}

    found = take_pass(
        model,
        layers,
        Objective(nn.MSELoss()),
        samples,
        curvature="empirical",
        curvature_samples=64,
        batch_size=64,
        generator=torch.Generator(),
        choose=choose,
        choose_after=32,
    )
    promised, index = chosen[0], found.chosen["0"]
    # Signs of the promises hold for all of them by construction; for others by chance.
    agreement = (found.gradient(layers[0], index) * promised.sign()).mean() / promised.abs().mean()
    assert agreement < 0.5


@pytest.mark.parametrize("sample", ["sequence", "token"])
@pytest.mark.parametrize("masked", [True, False])
def test_padding_never_counts(sample, masked):
    """What stands in padded places changes neither gradients, nor squares, nor curvature."""
    model, layers = model_and_layers()
    samples, index = sequences(pad=2), picks(layers)
    other = sequences(pad=2)
    padded = samples.inputs["attention_mask"] == 0
    other.inputs["input_ids"][padded] = (other.inputs["input_ids"][padded] + 3) % 11
    if not masked:
        # Causal, and padded on the right: labels alone say what counts.
        del samples.inputs["attention_mask"], other.inputs["attention_mask"]
    one, two = (
        look(model, layers, s, sample=sample, curvature_samples=9) for s in (samples, other)
    )
    for layer in layers:
        block = index[layer.name]
        torch.testing.assert_close(one.gradients[layer.name], two.gradients[layer.name])
        torch.testing.assert_close(one.squares[layer.name], two.squares[layer.name])
        a, b = (p.curvature(layer, block).factor for p in (one, two))
        torch.testing.assert_close(a, b)


def test_squares_are_of_the_counted_positions():
    model, layers = model_and_layers()
    samples = sequences(pad=1)
    hidden = []
    handle = layers[0].module.register_forward_pre_hook(lambda m, args: hidden.append(args[0]))
    found = look(model, layers, samples).squares["up"]
    handle.remove()
    counted = samples.targets != -100
    expected = torch.cat(hidden)[counted].square().sum(0)
    torch.testing.assert_close(found, expected)


def test_all_tokens_together_are_the_sum_of_their_outer_products():
    model, layers = model_and_layers()
    samples, index = sequences(pad=1), picks(layers)
    many = int((samples.targets != -100).sum())
    found = look(model, layers, samples, sample="token", curvature_samples=many)
    for layer in layers:
        inputs, deltas = [], []

        def hook(module, args, output, inputs=inputs, deltas=deltas):  # type: ignore[no-untyped-def]
            inputs.append(args[0].detach())
            output.register_hook(deltas.append)

        handle = layer.module.register_forward_hook(hook)
        Objective(sequence_loss).total(model(**samples.inputs), samples.targets).backward()
        handle.remove()
        rows, columns = layer.unravel(index[layer.name])
        each = deltas[0][:, :, rows] * inputs[0][:, :, columns] * layer.dense[rows, columns]
        each = each.flatten(0, 1)
        factor = found.curvature(layer, index[layer.name]).factor
        assert len(factor) == many
        torch.testing.assert_close(factor.T @ factor, each.T @ each / len(samples))


def test_some_tokens_stand_for_all_on_average():
    model, layers = model_and_layers()
    samples, layer = sequences(), layers[0]
    index = torch.arange(6)
    full = look(model, layers, samples, sample="token", curvature_samples=10**6)
    expected = full.curvature(layer, index).factor
    expected = expected.T @ expected
    mean = torch.zeros_like(expected)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        some = look(
            model, layers, samples, sample="token", curvature_samples=16, generator=generator
        )
        factor = some.curvature(layer, index).factor
        assert len(factor) == 16
        mean += factor.T @ factor / 200
    assert torch.linalg.norm(mean - expected) < 0.1 * torch.linalg.norm(expected)


def test_images_have_positions_too():
    """Layers of an image model run on different numbers of positions; each draws its own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(48, 3)
    ).double()
    samples = Samples(torch.randn(10, 1, 8, 8).double(), torch.randint(3, (10,)))
    layers = find_layers(model, PrunerConfig(density=0.5))
    found = take_pass(
        model,
        layers,
        Objective(nn.CrossEntropyLoss()),
        samples,
        curvature="empirical",
        curvature_samples=32,
        batch_size=4,
        generator=torch.Generator().manual_seed(0),
        sample="token",
    )
    for layer in layers:
        factor = found.curvature(layer, torch.arange(5)).factor
        assert factor.shape == (32, 5)
        assert factor.any()


def test_positions_are_drawn_without_padding_or_repetition():
    samples = sequences(count=6, length=8, pad=2)
    drawn = Drawn.of(samples, 20, torch.Generator().manual_seed(0))
    pairs = {(int(s), int(t)) for s, t in zip(drawn.sample, drawn.place, strict=True)}
    assert len(pairs) == 20
    assert all(samples.targets[s, t] != -100 for s, t in pairs)
    found = [drawn.within(start, 2, 8) for start in (0, 2, 4)]
    assert sum(len(s) for s, _ in found) == 20


def test_samples_that_a_layer_can_not_tell_apart_are_refused_by_name():
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.transpose(0, 1)).sum(0)

    model = Merged()
    samples = Samples(torch.randn(4, 5, 4), torch.randint(3, (4,)))
    with pytest.raises(DataError, match="layer 'inner' sees .* for 4 samples"):
        take_pass(
            model,
            find_layers(model, PrunerConfig(density=0.5)),
            Objective(nn.CrossEntropyLoss()),
            samples,
            curvature="empirical",
            curvature_samples=4,
            batch_size=4,
            generator=torch.Generator(),
        )
