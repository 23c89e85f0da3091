"""Passes that choose blocks on their way, tokens as samples, and padding that never counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from icbs.config import PrunerConfig
from icbs.curvature.fisher import Fisher
from icbs.curvature.hessian import Hessian
from icbs.curvature.layer_error import LayerError
from icbs.curvature.passes import Pass
from icbs.curvature.source import CurvatureSource
from icbs.curvature.sum import Sum
from icbs.data.objective import Objective
from icbs.data.positions import Drawn
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.model.finding import find_layers
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.selection.schedule import selection_point
from tests.icbs import passes
from tests.icbs.passes import empirical, factor_of, model_of


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


def look(
    model: nn.Module,
    layers: list[Layer],
    samples: Samples,
    source: CurvatureSource | None = None,
    **changes: object,
) -> Pass:
    """By default with the gradients of all samples as rows."""
    source = source or empirical(len(samples))
    settings = {"batch_size": 4} | changes
    return passes.look(model, layers, Objective(sequence_loss), samples, source, **settings)


def picks(layers: list[Layer]) -> dict[str, Gates]:
    """A block of 13 weights of each layer."""
    generator = torch.Generator().manual_seed(2)
    return {
        x.name: Gates.single(x, torch.randperm(x.size, generator=generator)[:13]) for x in layers
    }


@pytest.mark.parametrize("after", [1, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 20])
def test_columns_gathered_on_the_way_are_those_of_a_pass_that_holds_everything(after, batch_size):
    model, layers = model_and_layers()
    samples, blocks = sequences(), picks(layers)
    seen: list[Pass] = []

    def select(pass_info: Pass) -> dict[str, Gates]:
        seen.append(pass_info)
        return blocks

    found = look(
        model,
        layers,
        samples,
        empirical(4),
        batch_size=batch_size,
        select=select,
        select_after=after,
    )
    whole = look(model, layers, samples)
    first = look(model, layers, samples[:after])
    others = look(model, layers, samples[after:])
    rest = look(model, layers, samples[after : after + 4])
    assert len(seen) == 1
    assert found.count == len(samples)
    assert found.loss == pytest.approx(whole.loss)
    assert found.blocks == blocks
    for layer in layers:
        gates = blocks[layer.name]
        # What blocks are chosen by is what came before the selection point, …
        torch.testing.assert_close(found.gradients[layer.name], first.gradients[layer.name])
        torch.testing.assert_close(found.squares[layer.name], first.squares[layer.name])
        # … the linear term is of all that followed, the curvature of the first of it.
        torch.testing.assert_close(found.gradient(gates), others.gradient(gates))
        a, b = (model_of(p, gates) for p in (found, rest))
        torch.testing.assert_close(a.factor, b.factor)
        torch.testing.assert_close(a.gradients, others.gradient(gates))


def test_a_layer_whose_turn_it_is_not_costs_nothing_and_has_no_curvature():
    model, layers = model_and_layers()
    blocks = {"up": Gates.single(layers[0], torch.arange(5))}
    found = look(model, layers, sequences(), select=lambda _: blocks, select_after=2)
    assert set(found.means) == {id(blocks["up"])}
    with pytest.raises(ValueError, match="other weights of 'out'"):
        found.models(Gates.single(layers[1], torch.arange(5)))
    with pytest.raises(ValueError, match="other weights of 'up'"):
        found.models(Gates.single(layers[0], torch.arange(4)))


def test_a_pass_without_a_source_gives_gradients_alone():
    model, layers = model_and_layers()
    found = passes.look(model, layers, Objective(sequence_loss), sequences(), batch_size=4)
    expected = look(model, layers, sequences())
    for name, gradient in expected.gradients.items():
        assert torch.equal(found.gradients[name], gradient)
    with pytest.raises(ValueError, match="without curvature"):
        found.models(Gates.single(layers[0], torch.arange(5)))


def test_gathered_monte_carlo_columns_have_mean_gradients_of_the_data():
    model, layers = model_and_layers()
    samples, blocks = sequences(), picks(layers)
    objective = Objective(sequence_loss)

    def draw(outputs: torch.Tensor, targets: object, generator: object) -> torch.Tensor:
        return outputs.argmin(dim=2)

    objective.sample_targets = draw  # type: ignore[method-assign, assignment]
    settings = {"batch_size": 2, "select": lambda _: blocks}
    found = passes.look(model, layers, objective, samples, Fisher(6), select_after=3, **settings)
    held = passes.look(model, layers, objective, samples[3:], Fisher(6), **settings)
    others = look(model, layers, samples[3:])
    for gates in blocks.values():
        torch.testing.assert_close(found.gradient(gates), others.gradient(gates))
        a, b = (model_of(p, gates).factor for p in (found, held))
        torch.testing.assert_close(a, b)


def test_a_share_of_the_samples_of_a_pass_chooses_its_blocks():
    assert [selection_point(0.25, n) for n in (1, 2, 16, 17)] == [None, 1, 4, 5]
    assert selection_point(0.5, 16) == 8
    assert selection_point(0.99, 16) == 15


@pytest.mark.parametrize(
    ("source", "midway"),
    [
        (Fisher(9), True),
        (empirical(9), True),
        (Sum(Fisher(9), LayerError()), True),
        # The exact Hessian, the layer's own error and tokens choose at the end.
        (Hessian(9), False),
        (LayerError(), False),
        (Fisher(9, tokens=True), False),
        (empirical(9), None),
    ],
)
def test_what_keeps_columns_alone_chooses_on_its_way_and_the_rest_at_the_end(source, midway):
    model, layers = model_and_layers()
    samples, blocks = sequences(), picks(layers)
    objective, counts = Objective(sequence_loss), []
    objective.sample_targets = lambda outputs, *_: outputs.argmax(dim=2)  # type: ignore[method-assign]

    def select(pass_info: Pass) -> dict[str, Gates]:
        counts.append(pass_info.count)
        return blocks

    after = None if midway is None else 4
    found = passes.look(
        model, layers, objective, samples, source, select=select, select_after=after
    )
    assert source.selects_midway == (midway is not False)
    assert counts == [4 if midway else len(samples)]
    assert found.count == len(samples)
    assert bool(found.means) == bool(midway)
    for gates in blocks.values():
        assert found.models(gates)


def test_no_sample_that_chose_a_block_says_what_moving_it_is_worth():
    """Of samples that are noise, the gradient of the most promising weights is noise too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 1, bias=False)).double()
    layers = find_layers(model, PrunerConfig(density=0.5))
    samples = Samples(torch.randn(64, 400).double(), torch.randn(64, 1).double())
    chosen = []

    def select(pass_info: Pass) -> dict[str, Gates]:
        index = pass_info.gradients["0"].abs().flatten().topk(20).indices
        chosen.append(pass_info.gradients["0"].flatten()[index])
        return {"0": Gates.single(layers[0], index)}

    found = passes.look(
        model,
        layers,
        Objective(nn.MSELoss()),
        samples,
        empirical(64),
        select=select,
        select_after=32,
    )
    promised, (others,) = chosen[0], found.gradient(found.blocks["0"])
    # Signs of the promises hold for all of them by construction; for others by chance.
    agreement = (others * promised.sign()).mean() / promised.abs().mean()
    assert agreement < 0.5


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("masked", [True, False])
def test_padding_is_ignored(tokens, masked):
    """What stands in padded places changes neither gradients, nor squares, nor curvature."""
    model, layers = model_and_layers()
    samples, blocks = sequences(pad=2), picks(layers)
    other = sequences(pad=2)
    padded = samples.inputs["attention_mask"] == 0
    other.inputs["input_ids"][padded] = (other.inputs["input_ids"][padded] + 3) % 11
    if not masked:
        # Causal, and padded on the right: labels alone say what counts.
        del samples.inputs["attention_mask"], other.inputs["attention_mask"]
    source = Fisher(9, drawn=False, tokens=tokens)
    one, two = (look(model, layers, s, source) for s in (samples, other))
    for layer in layers:
        torch.testing.assert_close(one.gradients[layer.name], two.gradients[layer.name])
        torch.testing.assert_close(one.squares[layer.name], two.squares[layer.name])
        a, b = (model_of(p, blocks[layer.name]).factor for p in (one, two))
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
    samples, blocks = sequences(pad=1), picks(layers)
    many = int((samples.targets != -100).sum())
    found = look(model, layers, samples, Fisher(many, drawn=False, tokens=True))
    for layer in layers:
        inputs, deltas = [], []

        def hook(module, args, output, inputs=inputs, deltas=deltas):  # type: ignore[no-untyped-def]
            inputs.append(args[0].detach())
            output.register_hook(deltas.append)

        handle = layer.module.register_forward_hook(hook)
        Objective(sequence_loss).total(model(**samples.inputs), samples.targets).backward()
        handle.remove()
        gates = blocks[layer.name]
        rows, columns = gates.parts[0].places
        each = deltas[0][:, :, rows] * inputs[0][:, :, columns] * layer.dense[rows, columns]
        each = each.flatten(0, 1)
        factor = model_of(found, gates).factor
        assert len(factor) == many
        torch.testing.assert_close(factor.T @ factor, each.T @ each / len(samples))


def test_some_tokens_stand_for_all_on_average():
    model, layers = model_and_layers()
    samples, layer = sequences(), layers[0]
    index = torch.arange(6)
    full = look(model, layers, samples, Fisher(10**6, drawn=False, tokens=True))
    expected = factor_of(full, layer, index)
    expected = expected.T @ expected
    mean = torch.zeros_like(expected)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        source = Fisher(16, drawn=False, tokens=True)
        factor = factor_of(look(model, layers, samples, source, generator=generator), layer, index)
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
    source = Fisher(32, drawn=False, tokens=True)
    objective = Objective(nn.CrossEntropyLoss())
    found = passes.look(model, layers, objective, samples, source, batch_size=4)
    for layer in layers:
        factor = factor_of(found, layer, torch.arange(5))
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
    layers = find_layers(model, PrunerConfig(density=0.5))
    objective = Objective(nn.CrossEntropyLoss())
    with pytest.raises(DataError, match="layer 'inner' sees .* for 4 samples"):
        passes.look(model, layers, objective, samples, empirical(4), batch_size=4)
