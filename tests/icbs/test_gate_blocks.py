"""Energies of blocks whose gates are sets of weights, in one layer or in several.

The oracle knows no parts of a layer: gates are multipliers on the weights, by lists of their
members, and gradient, Hessian and per-sample gradients are autograd's with respect to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev

from icbs.blocks.block import Block, build_block
from icbs.config import PrunerConfig
from icbs.curvature.fisher import Fisher
from icbs.curvature.hessian import Hessian
from icbs.curvature.layer_error import LayerError
from icbs.curvature.source import CurvatureSource
from icbs.curvature.sum import Sum
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.model.gates import Gates, Part
from icbs.model.layer import Layer
from tests.icbs.passes import empirical, look

Members = list[list[tuple[int, int]]]
"""For each gate, the numbers of a layer and of a weight in it."""
SAMPLES = 17
GAMMA, KAPPA, RIDGE, RHO = 0.75, 2.0, 0.1, 3.0


@dataclass
class Setting:
    """A small classifier, pruned at random, and a block of gates in it."""

    model: nn.Module
    layers: list[Layer]
    samples: Samples
    gates: Gates
    members: Members

    def opened(self) -> Tensor:
        """Gates as they stand: 1 where they are open."""
        return torch.from_numpy(1.0 - self.gates.closed())

    def weights(self, opened: Tensor) -> dict[str, Tensor]:
        """Weights of all layers as a function of the gates."""
        found = {}
        for number, layer in enumerate(self.layers):
            multiplier = (~layer.pruned).double()
            for gate, weights in enumerate(self.members):
                own = torch.tensor([i for of, i in weights if of == number], dtype=torch.int64)
                multiplier = multiplier.index_put((own,), opened[gate].expand(len(own)))
            matrix = layer.dense * multiplier.view(layer.shape)
            found[f"{layer.name}.weight"] = layer.kind.shaped(matrix)
        return found

    def losses(self, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Loss of each sample as a function of the gates."""

        def losses(opened: Tensor) -> Tensor:
            outputs = functional_call(self.model, self.weights(opened), (self.samples.inputs,))
            return F.cross_entropy(outputs, targets, reduction="none")

        return losses

    def errors(self, opened: Tensor) -> float:
        """Sum of the layers' errors ``½‖(W - W⁰)X‖²/T``, on inputs of the model as it is."""
        inputs: dict[str, Tensor] = {}
        hooks = [
            layer.module.register_forward_pre_hook(
                lambda module, args, name=layer.name: inputs.update({name: args[0].detach()})
            )
            for layer in self.layers
        ]
        self.model(self.samples.inputs)
        for hook in hooks:
            hook.remove()
        total = 0.0
        moved = {layer for gate in self.members for layer, _ in gate}
        for number in sorted(moved):
            layer = self.layers[number]
            change = self.weights(opened)[f"{layer.name}.weight"] - layer.kind.shaped(layer.dense)
            error = layer.module._conv_forward if isinstance(layer.module, nn.Conv2d) else F.linear
            outputs = error(inputs[layer.name], change, None)
            positions = outputs.numel() // layer.shape[0]
            total += float(outputs.square().sum()) / 2 / positions
        return total

    def energies(self, block: Block) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Every state of the gates, its move, and its energy."""
        start = self.gates.closed()
        assert (block.start == start).all()
        for bits in product((0, 1), repeat=len(self.members)):
            x = np.array(bits, dtype=np.uint8)
            yield x, x - start.astype(float), block.problem.energy(x)


def single(rng: np.random.Generator, of: int, layer: Layer, count: int) -> tuple[Members, Gates]:
    index = rng.permutation(layer.size)[:count]
    return [[(of, int(i))] for i in index], Gates.single(layer, torch.from_numpy(index))


def sets(rng: np.random.Generator, of: int, layer: Layer, count: int) -> tuple[Members, Gates]:
    index = rng.permutation(layer.size)[: 3 * count]
    pieces = np.split(index, np.sort(rng.permutation(len(index) - 1)[: count - 1]) + 1)
    members = [[(of, int(i)) for i in piece] for piece in pieces]
    return members, Gates.of_sets(layer, [torch.from_numpy(piece) for piece in pieces])


def make_gates(kind: str, rng: np.random.Generator, layers: list[Layer]) -> tuple[Members, Gates]:
    first, second, third = layers
    if kind == "weights of two layers":
        blocks = [single(rng, 0, first, 4), single(rng, 2, third, 3)]
    elif kind == "sets of a layer":
        blocks = [sets(rng, 1, second, 6)]
    elif kind == "sets and weights of three layers":
        blocks = [sets(rng, 2, third, 3), single(rng, 0, first, 2), sets(rng, 1, second, 2)]
    elif kind == "two blocks of a layer":
        index = rng.permutation(third.size)[:9]
        one, two = torch.from_numpy(index[:3]), torch.from_numpy(index[3:])
        members = [[(2, int(i))] for i in index[:3]] + [[(2, int(i)) for i in index[3:]]]
        return members, Gates.joined([Gates.single(third, one), Gates.of_sets(third, [two])])
    else:  # a channel: what makes it, and what reads it
        count = first.shape[0]
        rows = torch.arange(first.size).view(first.shape)
        kernels = torch.arange(second.size).view(second.shape[0], count, -1).transpose(0, 1)
        of_first = torch.arange(count).repeat_interleave(first.shape[1])
        of_second = torch.arange(count).repeat_interleave(kernels[0].numel())
        members = [
            [(0, int(i)) for i in rows[c]] + [(1, int(i)) for i in kernels[c].flatten()]
            for c in range(count)
        ]
        parts = [
            Part(first, rows.flatten(), of_first),
            Part(second, kernels.flatten(), of_second),
        ]
        return members, Gates(parts, count)
    return [gate for own, _ in blocks for gate in own], Gates.joined([g for _, g in blocks])


KINDS = [
    "weights of two layers",
    "sets of a layer",
    "sets and weights of three layers",
    "two blocks of a layer",
    "channels",
]


def build(kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Setting:
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Conv2d(4, 2, 2), nn.Tanh(), nn.Flatten(),
            nn.Linear(8, 3),
        ).double().to(dtype).eval()  # fmt: skip
        x = torch.randn(SAMPLES, 1, 4, 4, dtype=torch.float64).to(dtype)
        samples = Samples(x, torch.randint(3, (SAMPLES,)))
    layers = find_layers(model, PrunerConfig(density=0.5))
    members, gates = make_gates(kind, rng, layers)
    masks = [torch.from_numpy(rng.random(layer.size) < 0.4) for layer in layers]
    for gate in members:
        closed = bool(rng.random() < 0.5)
        for of, index in gate:
            masks[of][index] = closed
    for layer, mask in zip(layers, masks, strict=True):
        layer.set_mask(mask)
    return Setting(model, layers, samples, gates, members)


def block_of(
    setting: Setting, source: CurvatureSource, after: int | None, drawn: Tensor | None = None
) -> Block:
    """The block that a pass makes, selected midway through it or at its end."""
    objective = Objective(nn.CrossEntropyLoss())
    if drawn is not None:
        count = iter(range(SAMPLES))
        objective.sample_targets = lambda outputs, *_: drawn[  # type: ignore[method-assign]
            torch.tensor([(after or 0) + next(count) for _ in range(len(outputs))])
        ]
    found = look(
        setting.model,
        setting.layers,
        objective,
        setting.samples,
        source,
        batch_size=5,
        select=lambda _: {"block": setting.gates},
        select_after=after,
    )
    models = found.models(found.blocks["block"])
    return build_block(setting.gates, models, gamma=GAMMA, kappa=KAPPA, ridge=RIDGE)


def omega(setting: Setting) -> np.ndarray:
    """Squared size of each gate's weights."""
    return np.array(
        [
            sum(float(setting.layers[of].dense.flatten()[i]) ** 2 for of, i in gate)
            for gate in setting.members
        ]
    )


def check(setting: Setting, block: Block, slope: Tensor, curvature: Tensor) -> None:
    """Compare the energies of all states with the quadratic of the loss, and its ridge."""
    a, C, penalty = slope.detach().numpy(), curvature.detach().numpy(), RIDGE * omega(setting)
    for x, u, energy in setting.energies(block):
        # Closing a gate takes it from 1 to 0: the gates move by -u.
        change = -GAMMA * a @ u + KAPPA / 2 * u @ C @ u
        assert energy == pytest.approx(change + penalty @ u**2, rel=1e-9, abs=1e-9)
        assert block.predicted(x, energy) == pytest.approx(change, rel=1e-9, abs=1e-9)


every_kind = pytest.mark.parametrize("kind", KINDS)
some_seeds = given(seed=st.integers(0, 10_000))
few = settings(max_examples=3, deadline=None)


@every_kind
@some_seeds
@few
def test_the_hessian_is_autograds_with_respect_to_the_gates(kind, seed):
    setting = build(kind, seed)
    losses, opened = setting.losses(setting.samples.targets), setting.opened()

    def mean(opened: Tensor) -> Tensor:
        return losses(opened).mean()

    block = block_of(setting, Hessian(SAMPLES), None)
    check(setting, block, jacrev(mean)(opened), hessian(mean)(opened))
    assert block.problem.energy(block.start) == pytest.approx(0, abs=1e-12)


@every_kind
@pytest.mark.parametrize("after", [None, 5])
@some_seeds
@few
def test_the_fisher_is_of_per_sample_gradients_of_the_gates(kind, after, seed):
    """The slope is of all samples that did not select the block, the curvature of nine."""
    setting = build(kind, seed)
    first = after or 0
    each = jacrev(setting.losses(setting.samples.targets))(setting.opened())
    rows = each[first : first + 9]
    block = block_of(setting, empirical(9), after)
    check(setting, block, each[first:].mean(dim=0), rows.T @ rows / len(rows))


@every_kind
@pytest.mark.parametrize("after", [None, 5])
@some_seeds
@few
def test_of_drawn_targets_too(kind, after, seed):
    setting = build(kind, seed)
    first, drawn = after or 0, (setting.samples.targets + 1) % 3
    each = jacrev(setting.losses(setting.samples.targets))(setting.opened())
    rows = jacrev(setting.losses(drawn))(setting.opened())[first:]
    block = block_of(setting, Fisher(SAMPLES), after, drawn)
    check(setting, block, each[first:].mean(dim=0), rows.T @ rows / len(rows))


@every_kind
@some_seeds
@few
def test_the_error_of_layers_is_the_error_itself(kind, seed):
    """Whatever γ and κ are: both are of models of the loss."""
    setting = build(kind, seed)
    block, penalty = block_of(setting, LayerError(), None), RIDGE * omega(setting)
    before, opened = setting.errors(setting.opened()), setting.opened().numpy()
    for x, u, energy in setting.energies(block):
        change = setting.errors(torch.from_numpy(opened - u)) - before
        assert energy == pytest.approx(change + penalty @ u**2, rel=1e-9, abs=1e-9)
        assert block.predicted(x, energy) == pytest.approx(change, rel=1e-9, abs=1e-9)


@every_kind
@pytest.mark.parametrize("after", [None, 5])
@some_seeds
@few
def test_a_sum_of_sources_adds_energies_and_predicts_the_loss_alone(kind, after, seed):
    setting = build(kind, seed)
    whole = block_of(setting, Sum(empirical(9), LayerError(RHO)), after)
    loss, error = (block_of(setting, s, after) for s in (empirical(9), LayerError()))
    penalty = RIDGE * omega(setting)
    for x, u, energy in setting.energies(whole):
        parts = loss.problem.energy(x) + RHO * (error.problem.energy(x) - penalty @ u**2)
        assert energy == pytest.approx(parts, rel=1e-9, abs=1e-9)
        expected = loss.predicted(x, loss.problem.energy(x))
        assert whole.predicted(x, energy) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@every_kind
@pytest.mark.parametrize(
    "source", [empirical(9), Hessian(SAMPLES), LayerError(), Sum(empirical(9), LayerError(RHO))]
)
def test_single_precision_gives_the_same_problem_but_for_rounding(kind, source):
    """Sums over many weights, in another order, are not the same both ways round."""
    for seed in range(3):
        double, single = (build(kind, seed, dtype) for dtype in (torch.float64, torch.float32))
        one, other = (block_of(setting, source, None) for setting in (double, single))
        for x, _, energy in double.energies(one):
            assert other.problem.energy(x) == pytest.approx(energy, rel=1e-3, abs=1e-3)


@every_kind
def test_gates_keep_the_counts_of_their_groups(kind):
    for seed in range(3):
        setting = build(kind, seed)
        labels = torch.arange(len(setting.gates)) % 2 * 7 + 3  # numbers say nothing
        gates = Gates(setting.gates.parts, len(setting.gates), labels)
        block = build_block(gates, look_models(setting, gates))
        start = gates.closed()
        groups = block.problem.groups
        assert [int(g) for g in groups] == [i % 2 for i in range(len(gates))]
        for group in range(2):
            assert block.problem.cardinalities[group] == start[groups == group].sum()
        assert block.keeps_counts(start)
        moved = start.copy()
        moved[0] ^= 1
        assert not block.keeps_counts(moved)


def look_models(setting: Setting, gates: Gates) -> list:
    objective = Objective(nn.CrossEntropyLoss())
    found = look(setting.model, setting.layers, objective, setting.samples, empirical(9))
    return found.models(gates)
