"""Masks and weights of one moment: taken, set again, and through a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from icbs import Pruner, RunFolderError
from icbs.export.headers import Kept
from icbs.export.safetensors_files import read_header, write_tensors
from icbs.model.layer import Layer
from icbs.run.context import RunContext
from icbs.run.run_folder import CHECKPOINT, RunFolder
from icbs.run.snapshot import Snapshot
from icbs.run.start import start_run
from icbs.run.state import RunState
from tests.icbs.conftest import Toy, make_toy

SETTINGS = {
    "density": 0.3,
    "block_size": 32,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
}


def make_layers() -> list[Layer]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [nn.Linear(5, 4), nn.Conv2d(2, 3, 2), nn.Linear(3, 6)]
        return [Layer.of(f"l{i}", module, 0.5) for i, module in enumerate(modules)]


def copies(layers: list[Layer]) -> list[tuple[Tensor, Tensor, Tensor, bool]]:
    return [
        (x.dense.clone(), x.pruned.clone(), x.module.weight.detach().clone(), x.replaced)
        for x in layers
    ]


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    return all(
        all(torch.equal(a, b) for a, b in zip(x[:3], y[:3], strict=True)) and x[3] == y[3]
        for x, y in zip(one, other, strict=True)
    )


def disturb(layers: list[Layer], generator: torch.Generator) -> None:
    """Take new masks, and new weights for some layers, or the first ones again."""
    for layer in layers:
        layer.set_mask(torch.rand(layer.size, generator=generator) < 0.5)
        match int(torch.randint(3, (), generator=generator)):
            case 0:
                layer.replace_weights(torch.randn(layer.shape, generator=generator))
            case 1:
                layer.restore_weights()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_was_taken_is_set_again_exactly_however_often(seed):
    layers, generator = make_layers(), torch.Generator().manual_seed(seed)
    original = [layer.dense.clone() for layer in layers]
    taken, expected = [], []
    for _ in range(4):
        disturb(layers, generator)
        taken.append(Snapshot.take(layers))
        expected.append(copies(layers))
    for i in [*torch.randperm(4, generator=generator).tolist(), 0, 0]:
        taken[i].apply(layers)
        assert same(copies(layers), expected[i])
        assert taken[i].kept() == {layer.name: layer.num_kept for layer in layers}
        assert set(taken[i].weights) == {layer.name for layer in layers if layer.replaced}
    for layer, dense in zip(layers, original, strict=True):
        layer.restore_weights()
        assert torch.equal(layer.dense, dense)
        assert torch.equal(layer.weight, torch.where(layer.pruned.view(layer.shape), 0, dense))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_its_tensors_bring_it_back(seed):
    layers, generator = make_layers(), torch.Generator().manual_seed(seed)
    disturb(layers, generator)
    expected, taken = copies(layers), Snapshot.take(layers)
    tensors = taken.tensors("best")
    disturb(layers, generator)
    kept = {name: Kept(current=0, best=count) for name, count in taken.kept().items()}
    found = Snapshot.read("best", layers, tensors, kept)
    for tensor in tensors.values():
        tensor.zero_()  # what was read is nobody else's
    found.apply(layers)
    assert same(copies(layers), expected)


def test_masks_stay_when_weights_are_replaced_and_weights_follow_from_masks():
    layer = make_layers()[0]
    pruned = torch.arange(layer.size) % 3 == 0
    layer.set_mask(pruned)
    new = torch.arange(1.0, layer.size + 1).view(layer.shape)
    layer.replace_weights(new)
    assert torch.equal(layer.weight, torch.where(pruned.view(layer.shape), 0, new))
    index = torch.tensor([0, 1])
    layer.set_block(index, torch.tensor([False, True]))
    assert layer.weight.flatten()[:2].tolist() == [1, 0]
    new.zero_()
    assert layer.weight.flatten()[0] == 1  # copied


def begun(toy: Toy) -> tuple[RunContext, RunState, Pruner]:
    pruner = Pruner(**SETTINGS)
    context = RunContext.prepare(toy.model, toy.batches, toy.loss, pruner.config)
    return context, start_run(context), pruner


def saved(toy: Toy, run: Path) -> tuple[RunContext, RunState]:
    """A run with a pass done, new weights in two layers, and other ones in the best state."""
    context, state, pruner = begun(toy)
    with RunFolder.new(run) as folder:
        folder.create(context, {}, None)
    first, _, last = context.layers
    first.replace_weights(1.01 * first.dense)
    state.loss = context.holdout.measure()
    state.best_loss = float("inf")
    state.keep_best(context.layers)
    last.replace_weights(-5 * last.dense)  # nothing that a pass mends
    first.replace_weights(0.5 * first.dense)
    state.loss = context.holdout.measure()
    pruner.step(context, state)
    with RunFolder.existing(run) as folder:
        folder.save(context, state)
    return context, state


def test_a_checkpoint_holds_the_weights_of_both_states(tmp_path):
    context, state = saved(make_toy(), tmp_path / "run")
    toy = make_toy()
    fresh, _, _ = begun(toy)
    with RunFolder.existing(tmp_path / "run") as folder:
        folder.check(fresh)
        found = folder.load(fresh)
    assert found is not None
    # The original weights are nobody's state; all else is the same to the bit.
    assert same(copies(fresh.layers), copies(context.layers))
    assert [layer.replaced for layer in fresh.layers] == [True, False, True]
    assert found.best.weights.keys() == state.best.weights.keys() == {"0"}
    for name, mask in state.best.pruned.items():
        assert torch.equal(found.best.pruned[name], mask)
    assert torch.equal(found.best.weights["0"], state.best.weights["0"])
    assert (found.best_loss, found.samples_seen) == (state.best_loss, state.samples_seen)
    assert found.acceptance.facts() == state.acceptance.facts()
    for held in (state, found):
        held.best.apply((context if held is state else fresh).layers)
    assert same(copies(fresh.layers), copies(context.layers))
    assert [layer.replaced for layer in fresh.layers] == [True, False, False]
    assert fresh.holdout.measure() == pytest.approx(context.holdout.measure())
    for layer in fresh.layers:
        layer.restore_weights()
    assert all(
        torch.equal(layer.dense, make_toy().model.get_submodule(layer.name).weight)
        for layer in fresh.layers
    )


def test_a_checkpoint_of_the_first_weights_holds_masks_alone(tmp_path):
    context, state, _ = begun(make_toy())
    with RunFolder.new(tmp_path / "run") as folder:
        folder.create(context, {}, None)
        folder.save(context, state)
    tensors = load_file(tmp_path / "run" / CHECKPOINT)
    assert {key.partition("/")[0] for key in tensors} == {
        "generator", "current", "best", "free", "stamp",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("current-weights/0", torch.zeros(3), "the current weights of '0' are"),
        ("best-weights/0", torch.zeros(20, 12).double(), "the best weights of '0' are"),
        ("current-weights/4", torch.full((4, 16), torch.inf), "of '4' are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_is_set(tmp_path, key, value, match):
    saved(make_toy(), tmp_path / "run")
    path = tmp_path / "run" / CHECKPOINT
    facts, tensors = read_header(path, "checkpoint"), load_file(path)
    del facts["digest"]
    write_tensors(path, facts.pop("format"), facts, tensors | {key: value})
    fresh, _, _ = begun(make_toy())
    before = copies(fresh.layers)
    with (
        RunFolder.existing(tmp_path / "run") as folder,
        pytest.raises(RunFolderError, match=f"is not a readable checkpoint: .*{match}"),
    ):
        folder.load(fresh)
    assert same(copies(fresh.layers), before)
