"""Compiled and data-parallel models are pruned as if unwrapped; others are refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import LayerError, Pruner, apply_masks, check_pattern, hold_masks, make_blocks
from icbs.layerwise import prune_layerwise
from icbs.model.wrappers import modules_of

LOSS = nn.CrossEntropyLoss()
SETTINGS: dict[str, Any] = {"density": 0.4, "passes": 3, "block_size": 32}


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 12, generator=generator)
    return [(x, torch.randint(4, (96,), generator=generator))]


def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        inner = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), inner, nn.ReLU(), nn.Linear(16, 4))


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def run_before(model: nn.Module) -> nn.Module:
    """Dynamo ignores hooks that are registered after a first call."""
    wrapper = compiled(model)
    with torch.no_grad():
        wrapper(data()[0][0])
    return wrapper


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def by_parts(model: nn.Sequential) -> nn.Module:
    model[2] = run_before_part(model[2])
    model[4].compile(backend="eager")
    return model


def run_before_part(part: nn.Module) -> nn.Module:
    wrapper = compiled(part)
    with torch.no_grad():
        wrapper(torch.randn(3, 16))
    return wrapper


class Function(nn.Module):
    """A compiled function that calls layers."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        for name, part in model.named_children():
            self.add_module(name, part)
        self.call = torch.compile(lambda x: nn.Sequential(*self.children())(x), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


@pytest.fixture
def process_group(tmp_path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def distributed(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


WRAPPERS: dict[str, Callable[[Any], nn.Module]] = {
    "compiled": compiled,
    "compiled, has run": run_before,
    "compiled in place": in_place,
    "compiled parts": by_parts,
    "compiled function": Function,
    "data-parallel": nn.DataParallel,
    "data-parallel part": lambda m: nn.Sequential(*m[:2], nn.DataParallel(m[2]), *m[3:]),
    "distributed": distributed,
    "compiled, data-parallel": lambda m: compiled(nn.DataParallel(m)),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_models_are_pruned_as_plain_ones(name, process_group):
    plain = mlp()
    expected = Pruner(**SETTINGS).prune(plain, data(), LOSS)
    wrapped = WRAPPERS[name](mlp())
    structure = dict(wrapped.named_modules())
    found = Pruner(**SETTINGS).prune(wrapped, data(), LOSS)
    assert found.loss == expected.loss
    assert found.masks.keys() == expected.masks.keys() == {"0", "2.0", "2.2", "4"}
    for key, mask in expected.masks.items():
        assert torch.equal(found.masks[key], mask)
        assert torch.equal(modules_of(wrapped)[key].weight, plain.get_submodule(key).weight)
    # The wrappers are where they were, and compute with the pruned weights.
    assert dict(wrapped.named_modules()) == structure
    x = data()[0][0]
    torch.testing.assert_close(wrapped(x), plain(x))


def test_compiled_calls_are_back_after_a_run():
    model = in_place(mlp())
    call = model._compiled_call_impl
    assert call is not None
    with pytest.raises(LayerError):
        Pruner(**SETTINGS, include=["nothing"]).prune(model, data(), LOSS)
    assert model._compiled_call_impl is call


@pytest.mark.parametrize("name", ["compiled, has run", "compiled parts", "data-parallel"])
def test_layerwise_methods_and_blocks_ignore_wrappers(name):
    expected, wrapped = prune_layerwise(mlp(), data(), "wanda", density=0.5), WRAPPERS[name](mlp())
    found = prune_layerwise(wrapped, data(), "wanda", density=0.5)
    assert found.masks.keys() == expected.masks.keys()
    assert all(torch.equal(found.masks[key], mask) for key, mask in expected.masks.items())
    blocks = make_blocks(WRAPPERS[name](mlp()), data(), LOSS, **SETTINGS)
    for one, two in zip(blocks, make_blocks(mlp(), data(), LOSS, **SETTINGS), strict=True):
        assert (one.problem.linear == two.problem.linear).all()


@pytest.mark.parametrize("name", ["compiled", "compiled parts", "data-parallel"])
def test_masks_of_the_plain_model_fit_the_wrapped_one(name):
    masks = prune_layerwise(mlp(), None, "magnitude", pattern="2:4").masks
    wrapped = WRAPPERS[name](mlp())
    apply_masks(wrapped, masks)
    check_pattern(masks, model=wrapped)
    for key, mask in masks.items():
        assert not modules_of(wrapped)[key].weight[~mask].any()
    other = WRAPPERS[name](mlp())
    optimiser = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    x, y = data()[0]
    with hold_masks(other, masks):
        for _ in range(3):
            optimiser.zero_grad()
            LOSS(other(x), y).backward()
            optimiser.step()
    for key, mask in masks.items():
        weight = modules_of(other)[key].weight
        assert not weight[~mask].any()
        assert not torch.equal(weight, modules_of(wrapped)[key].weight)


def test_a_run_of_a_compiled_model_is_resumed_with_the_plain_one(tmp_path):
    expected = Pruner(**SETTINGS).prune(mlp(), data(), LOSS)

    def stop(progress: Any) -> bool:
        return progress.step == 1

    Pruner(**SETTINGS, checkpoint_every=1).prune(
        compiled(mlp()), data(), LOSS, run=tmp_path / "run", callback=stop
    )
    found = Pruner.resume(tmp_path / "run", mlp(), data(), LOSS)
    assert all(torch.equal(found.masks[key], mask) for key, mask in expected.masks.items())


def exported() -> nn.Module:
    return torch.export.export(mlp().eval(), (data()[0][0],)).module()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (exported, "module of an exported program.*prune the original module"),
        (lambda: nn.Sequential(exported(), nn.Linear(4, 4)), "'0' is the module of an exported"),
        (lambda: torch.jit.script(mlp()), "scripted.*prune the module that it was scripted from"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_models_that_do_not_run_as_modules_are_refused_by_name(make, message):
    model = make()
    before = copy.deepcopy(model.state_dict())
    for use in (
        lambda: Pruner(**SETTINGS).prune(model, data(), LOSS),
        lambda: prune_layerwise(model, data(), "wanda", density=0.5),
    ):
        with pytest.raises(LayerError, match=message):
            use()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
