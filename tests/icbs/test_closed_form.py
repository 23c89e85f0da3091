"""The closed-form step over all layers, against dense matrices in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs.config import PrunerConfig
from icbs.data.losses import CausalLMLoss
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.model.finding import find_layers
from icbs.model.layer import Layer
from icbs.recovery import column_sampling
from icbs.recovery.closed_form import ClosedForm
from icbs.recovery.direction import Direction
from icbs.recovery.global_step import GlobalSettings
from icbs.recovery.gradient_rows import GradientRows
from icbs.recovery.levenberg_marquardt import FIRST, GRID, Problem, Search
from tests.icbs.language import make_language_model


class Convolutions(nn.Module):
    """Convolutions, one of them grouped, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.first(x).tanh()).tanh().flatten(1))


class Repeated(nn.Module):
    """A layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.inner(x).tanh()).tanh())


def make(name: str) -> tuple[nn.Module, Samples, Objective]:
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "language":
            model = make_language_model().double()
            tokens = torch.randint(257, (5, 7), generator=generator)
            return model, Samples({"input_ids": tokens}, tokens), Objective(CausalLMLoss())
        models = {
            "linear": lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
            "convolutions": Convolutions,
            "repeated": Repeated,
        }
        model = models[name]().double()
    shapes = {"linear": (6,), "convolutions": (2, 8, 8), "repeated": (5,)}
    x = torch.randn(11, *shapes[name], generator=generator, dtype=torch.float64)
    y = torch.randint(3, (11,), generator=generator)
    return model.eval(), Samples(x, y), Objective(nn.CrossEntropyLoss())


def setup(name: str, density: float = 0.4) -> tuple[nn.Module, list[Layer], Samples, Objective]:
    model, samples, objective = make(name)
    layers = find_layers(model, PrunerConfig(density=density))
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        layer.set_mask(torch.rand(layer.size, generator=generator) > density)
    return model, layers, samples, objective


def parameters(layers: list[Layer], biases: bool = False) -> list[Tensor]:
    found = [layer.module.weight for layer in layers]
    if biases:
        found += [x.module.bias for x in layers if x.module.bias is not None]
    return found


def dense_rows(
    model: nn.Module, layers: list[Layer], samples: Samples, objective: Objective, biases: bool
) -> Tensor:
    """Autograd's gradient of each sample's loss, shape (N, p)."""
    wanted, rows = parameters(layers, biases), []
    for i in range(len(samples)):
        one = samples[i : i + 1]
        loss = objective.total(objective.run(model, one.inputs), one.targets)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)]))
    return torch.stack(rows)


def kept_entries(layers: list[Layer], biases: bool) -> Tensor:
    found = [layer.mask.flatten() for layer in layers]
    if biases:
        sizes = [x.shape[0] for x in layers if x.module.bias is not None]
        found += [torch.ones(size, dtype=torch.bool) for size in sizes]
    return torch.cat(found)


def flat(direction: Direction, layers: list[Layer]) -> Tensor:
    found = [x.kind.shaped(direction.weights[x.name]).flatten() for x in layers]
    found += [direction.biases[x.name] for x in layers if x.name in direction.biases]
    return torch.cat(found)


MODELS = ["linear", "convolutions", "repeated", "language"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("memory", ["held", "groups", "layers"])
def test_products_of_rows_equal_those_of_the_dense_matrix(name, biases, memory):
    model, layers, samples, objective = setup(name)
    most = 1 if memory == "layers" else 1 << 30
    rows = GradientRows(model, layers, objective, samples, batch_size=4, biases=biases, memory=most)
    if memory == "held":
        assert rows.hold()
    else:
        assert not rows.hold(1)
    G = dense_rows(model, layers, samples, objective, biases)
    K = G * kept_entries(layers, biases)
    torch.testing.assert_close(rows.gram(), K @ K.T)
    alpha = torch.randn(len(rows), generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(flat(rows.combine(alpha), layers), K.T @ alpha)
    everywhere = rows.combine(alpha, masked=False)
    torch.testing.assert_close(flat(everywhere, layers), G.T @ alpha)
    torch.testing.assert_close(rows.along(everywhere), G @ (G.T @ alpha))
    torch.testing.assert_close(flat(rows.mean(), layers), K.mean(dim=0))
    squares = Direction(rows.squares(by_position=False))
    weights = sum(layer.size for layer in layers)
    torch.testing.assert_close(flat(squares, layers), G.square().mean(dim=0)[:weights])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("biases", [False, True])
def test_products_from_all_columns_are_exact_and_from_some_unbiased(name, biases):
    model, layers, samples, objective = setup(name)
    rows = GradientRows(model, layers, objective, samples, batch_size=4, biases=biases)
    rows.hold()
    direction, generator = rows.mean(), torch.Generator().manual_seed(0)
    gram, along = rows.sampled_gram(1 << 20, generator, direction)
    torch.testing.assert_close(gram, rows.gram())
    torch.testing.assert_close(along, rows.along(direction))
    size = sum(layer.num_kept for layer in layers)
    found = [rows.sampled_gram(size // 3, generator, direction)[0] for _ in range(60)]
    error = (torch.stack(found).mean(dim=0) - gram).norm() / gram.norm()
    single = torch.stack([(one - gram).norm() for one in found]).mean() / gram.norm()
    assert error < 0.35 * single, "errors of the draws don't cancel"


def test_draws_by_importance_have_smaller_errors_where_few_inputs_are_large():
    model, layers, samples, objective = setup("linear")
    large = Samples(samples.inputs * torch.tensor([100.0, 1, 1, 1, 1, 1]), samples.targets)
    rows = GradientRows(model, layers, objective, large, batch_size=4)
    gram, generator = rows.gram(), torch.Generator().manual_seed(0)
    errors = []
    for share in (0.1, 1.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(column_sampling, "UNIFORM", share)
            found = [rows.sampled_gram(12, generator, Direction())[0] for _ in range(40)]
        errors.append(torch.stack([(one - gram).norm() for one in found]).mean() / gram.norm())
    assert errors[0] < 0.7 * errors[1]


def test_importance_is_the_squared_gradient_of_a_single_sample_and_position():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers_of = [nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6, 3)]
        model = nn.Sequential(*layers_of).double()
        one = Samples(torch.randn(1, 4, 3, 3, dtype=torch.float64), torch.tensor([1]))
    layers, objective = (
        find_layers(model, PrunerConfig(density=0.5)),
        Objective(nn.CrossEntropyLoss()),
    )
    rows = GradientRows(model, layers, objective, one, batch_size=1)
    kept = {layer.name: torch.arange(layer.size) for layer in layers}
    found = column_sampling.squared_norms(rows, kept)
    exact = rows.squares(by_position=False)
    for layer in layers:
        torch.testing.assert_close(found[layer.name], exact[layer.name].flatten())


@pytest.mark.parametrize(("memory", "groups"), [(1, 3), (1 << 30, 1)])
def test_each_group_of_layers_that_fits_the_memory_takes_one_pass(memory, groups):
    model, layers, samples, objective = setup("convolutions")
    rows = GradientRows(model, layers, objective, samples, batch_size=11, memory=memory)
    passes: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    rows.gram()
    assert passes == [1, *[11] * groups], "a sample for the sizes, then all"


def test_several_combinations_in_one_pass_are_those_of_single_passes():
    model, layers, samples, objective = setup("convolutions")
    rows = GradientRows(model, layers, objective, samples, batch_size=4, biases=True)
    alphas = torch.randn(3, len(rows), generator=torch.Generator().manual_seed(0)).double()
    for found, alpha in zip(rows.combine_all(alphas), alphas, strict=True):
        torch.testing.assert_close(flat(found, layers), flat(rows.combine(alpha), layers))


def test_held_rows_stay_those_of_the_weights_where_they_were_taken():
    model, layers, samples, objective = setup("linear")
    rows = GradientRows(model, layers, objective, samples, batch_size=4)
    rows.hold()
    before = rows.mean()
    layers[0].replace_weights(2 * layers[0].dense)
    assert torch.equal(flat(rows.mean(), layers), flat(before, layers))


def test_the_step_that_a_search_chooses_is_that_of_the_weights_it_began_at():
    model, layers, samples, objective = setup("linear")
    x, y = samples.inputs, samples.targets
    for memory in (1, 1 << 30):
        problem = Problem(
            *(model, layers, objective, samples, Samples(x, y)),
            GlobalSettings(target="data", columns=1 << 20),
            batch_size=4,
            seed=0,
            memory=memory,
        )
        form, _ = problem.linearise(0, torch.Generator().manual_seed(0))
        before = [layer.weight.clone() for layer in layers]
        expected = {}
        for i in range(-6, 7):
            damping = FIRST * GRID**i
            expected[damping] = form.solve(damping * form.scale).weights
        search = Search(problem, form)
        found = search.run(FIRST * GRID**3)
        assert found is not None
        near = min(expected, key=lambda damping: abs(damping - found))
        for layer, old in zip(layers, before, strict=True):
            torch.testing.assert_close(layer.weight, old + expected[near][layer.name])
            layer.kind.weight.copy_(old)


@pytest.mark.parametrize("run", [1, 3, 7, 100])
def test_rows_of_runs_of_positions_add_up_to_the_rows_of_samples(run):
    model, layers, samples, objective = setup("language")
    kwargs: dict[str, Any] = {"batch_size": 2}
    whole = GradientRows(model, layers, objective, samples, **kwargs)
    parts = GradientRows(model, layers, objective, samples, run=run, **kwargs)
    assert len(parts) == len(samples) * -(-7 // run)
    summed = parts.gram().view(len(samples), parts.runs, len(samples), parts.runs).sum(dim=(1, 3))
    torch.testing.assert_close(summed, whole.gram())
    direction = whole.mean()
    torch.testing.assert_close(
        parts.along(direction).view(len(samples), -1).sum(dim=1), whole.along(direction)
    )
    torch.testing.assert_close(flat(parts.mean(), layers), flat(direction, layers))


def dense_step(
    G: Tensor, rows: Tensor, kept: Tensor, removed: Tensor, damping: float, c: float
) -> Tensor:
    """Minimise the model by a dense p × p solve: gradients G, curvature of ``rows``."""
    count = len(G)
    F = rows.T @ rows / count + damping * torch.eye(G.shape[1], dtype=G.dtype)
    delta = torch.where(kept, 0, -removed)
    right = -(c * G.mean(dim=0) + F @ delta)[kept]
    delta[kept] = torch.linalg.solve(F[kept][:, kept], right)
    return delta


@pytest.mark.parametrize("name", ["linear", "convolutions", "repeated"])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
@pytest.mark.parametrize("c", [0.0, 1.0])
@pytest.mark.parametrize("drawn", [False, True])
def test_the_step_from_dense_weights_equals_a_dense_solve(name, damping, c, drawn):
    model, layers, samples, objective = setup(name)
    kept = kept_entries(layers, biases=True)
    removed = Direction()
    for layer in layers:  # the dense weights again, with the mask still known
        pruned = layer.pruned
        layer.set_mask(torch.zeros_like(pruned))
        layer.pruned = pruned
        removed.weights[layer.name] = layer.dense * pruned.view_as(layer.dense)
    values = torch.cat([p.detach().flatten() for p in parameters(layers, biases=True)])
    G = dense_rows(model, layers, samples, objective, True)
    other, gradient = samples, None
    if drawn:
        other = Samples(samples.inputs, samples.targets.roll(1))
        gradient = GradientRows(model, layers, objective, samples, batch_size=4, biases=True).mean()
    curvature = dense_rows(model, layers, other, objective, True)
    expected = dense_step(G, curvature, kept, values, damping, c)
    rows = GradientRows(model, layers, objective, other, batch_size=4, biases=True)
    form = ClosedForm.of(rows, removed=removed, first_order=c, gradient=gradient)
    found = flat(form.solve(damping), layers)
    torch.testing.assert_close(found, torch.where(kept, expected, 0))


def test_without_first_order_term_it_is_the_back_solve_of_chita():
    # (nλI + X_SᵀX_S) w_S = X_Sᵀy + nλ w̄_S with y = Xw̄ - c·1
    model, layers, samples, objective = setup("linear")
    kept = kept_entries(layers, biases=False)
    removed = Direction()
    for layer in layers:
        pruned = layer.pruned
        layer.set_mask(torch.zeros_like(pruned))
        layer.pruned = pruned
        removed.weights[layer.name] = layer.dense * pruned.view_as(layer.dense)
    dense = torch.cat([p.detach().flatten() for p in parameters(layers)])
    X = dense_rows(model, layers, samples, objective, False)
    damping = 0.03
    for c in (0.0, 0.5):
        y = X @ dense - c
        S, n = X[:, kept], len(X)
        left = n * damping * torch.eye(S.shape[1], dtype=S.dtype) + S.T @ S
        expected = torch.linalg.solve(left, S.T @ y + n * damping * dense[kept])
        rows = GradientRows(model, layers, objective, samples, batch_size=4)
        form = ClosedForm.of(rows, removed=removed, first_order=c)
        found = (dense + flat(form.solve(damping), layers))[kept]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_step_lowers_the_model_and_the_loss_as_predicted(drawn):
    model, layers, samples, objective = setup("linear")
    gradient, other = None, samples
    if drawn:
        gradient = GradientRows(model, layers, objective, samples, batch_size=4).mean()
        other = Samples(samples.inputs, samples.targets.roll(1))
    rows = GradientRows(model, layers, objective, other, batch_size=4)
    form = ClosedForm.of(rows, gradient=gradient)
    G = dense_rows(model, layers, samples, objective, False)
    C = dense_rows(model, layers, other, objective, False)
    smaller = 0.0
    for factor in (10.0, 1.0, 0.1):
        delta = form.solve(factor * form.scale)
        step = flat(delta, layers)
        change = float(G.mean(dim=0) @ step + (C @ step).square().mean() / 2)
        assert form.predicted(factor * form.scale) == pytest.approx(change, rel=1e-9)
        assert change < smaller, "less damping, and a lower value of the model"
        smaller = change
    before = float(objective.mean(objective.run(model, samples.inputs), samples.targets).detach())
    tiny = form.solve(1e4 * form.scale)
    for layer in layers:
        layer.replace_weights(layer.dense + tiny.weights[layer.name])
    after = float(objective.mean(objective.run(model, samples.inputs), samples.targets).detach())
    assert after - before == pytest.approx(form.predicted(1e4 * form.scale), rel=0.05)
