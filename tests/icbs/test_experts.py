"""Experts behind a router: layers that get some samples, or some positions, only."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import DataError, LayerError, Pruner, PrunerConfig
from icbs.data.samples import Samples
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from icbs.model.gates import Gates
from icbs.run.context import RunContext
from tests.icbs.passes import empirical, factor_of, look

LOSS = nn.CrossEntropyLoss()
SETTINGS: dict[str, Any] = {"density": 0.5, "passes": 3, "block_size": 16}


class Experts(nn.Module):
    """Each position goes to the expert with the largest score of the router only.

    Parameters
    ----------
    empty : bool
        Call experts with nothing, too.
    """

    def __init__(self, *, empty: bool = False) -> None:
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head, self.empty = nn.Linear(8, 4), empty

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        shares, out = self.router(rows).softmax(-1), torch.zeros_like(rows)
        for e, expert in enumerate(self.experts):
            mine = shares.argmax(-1) == e
            if mine.any() or self.empty:
                out[mine] = expert(rows[mine]) * shares[mine, e, None]
        out = self.head(out.tanh()).view(*x.shape[:-1], 4)
        return out if x.ndim == 2 else out.mean(dim=1)


def build(*shape: int, **options: bool) -> tuple[Experts, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = Experts(**options).double().eval()
    with torch.no_grad():
        model.router.weight.mul_(9)
    x = torch.randn(40, *shape, dtype=torch.float64)
    return model, [(x, torch.randint(4, (40,)))]


def per_sample(model: nn.Module, samples: Samples) -> dict[str, Tensor]:
    """Gradients of each sample's loss by autograd, shape (N, out · in)."""
    names = [name for name, p in model.named_parameters() if p.ndim == 2]
    weights = [model.get_parameter(name) for name in names]
    rows = []
    for x, y in zip(samples.inputs, samples.targets, strict=True):
        loss = F.cross_entropy(model(x[None]), y[None])
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        pairs = zip(found, weights, strict=True)
        rows.append([torch.zeros_like(w) if g is None else g for g, w in pairs])
    return {
        name: torch.stack(row).flatten(1)
        for name, row in zip(names, zip(*rows, strict=True), strict=True)
    }


@pytest.mark.parametrize("shape", [(8,), (5, 8)])
@pytest.mark.parametrize("empty", [False, True])
def test_gradients_are_those_of_single_samples(shape, empty):
    model, batches = build(*shape, empty=empty)
    config = PrunerConfig.of(**SETTINGS, curvature="empirical")
    context = RunContext.prepare(model, batches, LOSS, config)
    assert context.plan.apart
    assert context.plan.together == 1 < context.plan.batch_size
    samples = Samples(*batches[0])
    expected = per_sample(model, samples)
    pass_info = look(
        model,
        context.layers,
        context.objective,
        samples,
        empirical(len(samples)),
        batch_size=context.plan.together,
    )
    for layer in context.layers:
        each = expected[f"{layer.name}.weight"]
        mean = pass_info.gradients[layer.name].flatten()
        torch.testing.assert_close(mean, each.mean(dim=0))
        factor = factor_of(pass_info, layer, torch.arange(layer.size))
        gates = each * layer.dense.flatten()
        torch.testing.assert_close(factor.T @ factor, gates.T @ gates / len(samples))


@pytest.mark.parametrize("after", [None, 11])
@pytest.mark.parametrize("shape", [(8,), (5, 8)])
def test_rows_of_several_layers_are_those_of_the_same_samples(shape, after):
    """Experts get different samples."""
    model, batches = build(*shape)
    config = PrunerConfig.of(**SETTINGS, curvature="empirical")
    context = RunContext.prepare(model, batches, LOSS, config)
    layers = [layer for layer in context.layers if "experts" in layer.name]
    gates = Gates.joined([Gates.single(layer, torch.arange(9)) for layer in layers])
    samples = Samples(*batches[0])
    found = look(
        model,
        context.layers,
        context.objective,
        samples,
        empirical(20),
        batch_size=1,
        select=lambda _: {"experts": gates},
        select_after=after,
    )
    (fisher,) = found.models(gates)
    expected = per_sample(model, samples)
    rows = [expected[f"{x.name}.weight"][:, :9] * x.dense.flatten()[:9] for x in layers]
    each = torch.cat(rows, dim=1)[after or 0 :]
    torch.testing.assert_close(fisher.factor.T @ fisher.factor, each[:20].T @ each[:20] / 20)
    slope = torch.cat(fisher.gradients) * torch.cat([x.dense.flatten()[:9] for x in layers])
    torch.testing.assert_close(slope, each.mean(dim=0))


@pytest.mark.parametrize("shape", [(8,), (5, 8)])
def test_experts_are_pruned_to_their_density(shape, tmp_path):
    model, batches = build(*shape)
    dense = copy.deepcopy(model)
    result = Pruner(**SETTINGS).prune(model, batches, LOSS, run=tmp_path / "run")
    assert {f"experts.{e}" for e in range(3)} < set(result.masks)
    for name, mask in result.masks.items():
        assert int(mask.sum()) == mask.numel() // 2
        weight = dense.get_submodule(name).weight
        assert torch.equal(model.get_submodule(name).weight, weight * mask)
    assert result.loss < result.initial_loss
    # The loss that was measured is that of the model.
    context = RunContext.prepare(copy.deepcopy(dense), batches, LOSS, PrunerConfig.of(**SETTINGS))
    context.holdout.model = model
    with torch.no_grad():
        held = context.holdout.pieces[0].samples
        assert result.loss == pytest.approx(float(LOSS(model(held.inputs), held.targets)))
    again = Pruner.resume(tmp_path / "run", dense, batches, LOSS)
    assert all(torch.equal(again.masks[name], mask) for name, mask in result.masks.items())


def test_models_without_experts_need_one_pass_per_batch(toy):
    context = RunContext.prepare(toy.model, toy.batches, toy.loss, PrunerConfig.of(**SETTINGS))
    assert not context.plan.apart
    assert context.plan.together == context.plan.batch_size > 1


def test_an_expert_that_few_samples_reach_is_found_and_one_that_none_reaches_is_named():
    model, [(x, y)] = build(8)
    with torch.no_grad():
        model.router.weight.fill_(1e-9)
        model.router.weight[0, 0], model.router.weight[1, 0] = 1, -1
        model.router.bias.copy_(torch.tensor([1.0, 0.0, -99.0]))
    x[:, 0] = 0.0  # to the first expert, but for a late one to the second
    x[35, 0] = -5.0
    for use in (
        lambda **more: Pruner(**SETTINGS, **more).prune(model, [(x, y)], LOSS),
        lambda **more: prune_layerwise(model, [(x, y)], "wanda", density=0.5, **more),
    ):
        before = copy.deepcopy(model.state_dict())
        message = "'experts.2' did not run in the forward pass of any of 40 samples"
        with pytest.raises(DataError, match=message):
            use()
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert "experts.1" in use(exclude=["experts.2"]).masks
        model.load_state_dict(before)


def test_positions_as_samples_are_refused_for_experts():
    model, batches = build(5, 8)
    with pytest.raises(LayerError, match="'experts.0'.* use sample='sequence'"):
        Pruner(**SETTINGS, sample="token").prune(model, batches, LOSS)


@pytest.mark.parametrize("empty", [False, True])
def test_wanda_scores_an_expert_by_its_own_inputs(empty):
    model, [(x, y)] = build(5, 8, empty=empty)
    slow = copy.deepcopy(model)
    found = prune_layerwise(model, [(x, y)], "wanda", density=0.5, batch_size=7).masks
    for name in ("router", "experts.0", "experts.1", "experts.2", "head"):
        linear, seen = slow.get_submodule(name), []

        def note(module: nn.Module, args: tuple[Tensor], seen: list[Tensor] = seen) -> None:
            seen.append(args[0])

        handle = linear.register_forward_pre_hook(note)
        with torch.no_grad():
            slow(x)
        handle.remove()
        score = linear.weight.detach().abs() * torch.cat(seen).norm(dim=0)
        kept = score.topk(4, dim=1).indices
        expected = torch.zeros_like(score, dtype=torch.bool).scatter(1, kept, True)
        assert torch.equal(found[name], expected), name
        linear.weight.data *= expected


def test_layers_are_found_in_the_order_in_which_they_run():
    model, _ = build(8)
    names = [layer.name for layer in find_layers(model, PrunerConfig(density=0.5))]
    assert names == ["router", "experts.0", "experts.1", "experts.2", "head"]


def test_an_expert_that_pruning_cuts_off_keeps_its_largest_weights(caplog):
    model, [(x, y)] = build(8)
    with torch.no_grad():
        # Large inputs that tell no expert from another, beside small ones that do.
        model.router.weight.copy_(torch.tensor([[0.0, *[1.0] * 4, 0, 0, 0]]).expand(3, 8))
        model.router.weight[1, 0], model.router.weight[2, 0] = 0.5, -0.5
        model.router.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))
    x[:, 1:5] = 10.0
    x[:, 0] = torch.tensor([0.0, 2.0, -2.0, 2.0]).repeat(10)
    sizes = {e: model.experts[e].weight.detach().abs() for e in (1, 2)}
    found = prune_layerwise(model, [(x, y)], "wanda", density=0.5).masks
    for e, size in sizes.items():
        assert f"no sample reaches experts.{e} after" in caplog.text
        kept = size.topk(4, dim=1).indices
        expected = torch.zeros_like(size, dtype=torch.bool).scatter(1, kept, True)
        assert torch.equal(found[f"experts.{e}"], expected)
    assert "experts.0 now" not in caplog.text
