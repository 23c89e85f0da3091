"""Replay of blocks gives the inputs of a whole forward pass, with any caches."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icbs import DataError, Pruner
from icbs.layerwise import prune_layerwise
from tests.icbs.architectures import Wrapped, make
from tests.icbs.language import make_language_model

pytest.importorskip("transformers")
IDS = torch.randint(3, 60, (6, 10), generator=torch.Generator().manual_seed(0))

VISION = ["*vision*"]

#: Chain of blocks of each architecture, whether it has an encoder, and what is left dense.
CHAINS: dict[str, tuple[str, bool, list[str]]] = {
    "llama": ("model.layers", False, []),
    "llava": ("model.language_model.layers", False, [*VISION, "*projector*"]),
    "mistral3": ("model.language_model.layers", False, [*VISION, "*projector*"]),
    "gemma3": ("model.language_model.layers", False, VISION),
    "qwen2-vl": ("model.language_model.layers", False, ["*visual*"]),
    "bert2bert": ("decoder.bert.encoder.layer", True, []),
    "t5": ("decoder.block", True, []),
    "bart": ("model.decoder.layers", True, []),
    "mamba": ("backbone.layers", False, ["*dt_proj"]),  # used without being run
}


def batches(encoder: bool = False, ids: Tensor = IDS) -> list[tuple[Any, Tensor]]:
    """Batches of three, with two tokens more in the encoder than in the decoder."""
    more = {"decoder_input_ids": ids[:, :8]} if encoder else {}
    inputs = {"input_ids": ids} | more
    return [({k: v[i : i + 3] for k, v in inputs.items()}, ids[i : i + 3]) for i in (0, 3)]


def without_caches(model: nn.Module) -> nn.Module:
    """A copy without caches in any part."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.use_cache = False
    return model


@torch.no_grad()
def inputs_of(model: nn.Module, names: list[str], data: Any) -> dict[str, Tensor]:
    """Inputs of layers in whole forward passes, one row per position."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: seen[name].append(args[0].flatten(0, -2))
        )
        for name in names
    ]
    for inputs, _ in data:
        model(**inputs)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def groups_in_order(model: nn.Module, names: list[str], chain: str, data: Any) -> list[list[str]]:
    """Layers in the order of execution, those of a block together."""
    order: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: order.append(name)
        )
        for name in names
    ]
    with torch.no_grad():
        model(**data[0][0])
    for handle in handles:
        handle.remove()
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(order):
        block = re.match(re.escape(chain) + r"\.\d+\.", name)
        groups.setdefault(block[0] if block else name, []).append(name)
    return list(groups.values())


def by_hand(model: nn.Module, names: list[str], chain: str, data: Any) -> dict[str, Tensor]:
    """Wanda at density 0.5, by whole passes of the pruned model for each group of layers."""
    model, masks = without_caches(model), {}
    for group in groups_in_order(model, names, chain, data):
        received = inputs_of(model, group, data)
        for name in group:
            weight = model.get_submodule(name).weight.data
            score = weight.abs() * received[name].norm(dim=0)
            mask = torch.zeros_like(weight, dtype=torch.bool)
            masks[name] = mask.scatter(1, score.topk(weight.shape[1] // 2).indices, True)
            weight *= masks[name]
    return masks


@pytest.mark.parametrize("name", CHAINS)
def test_masks_are_those_of_whole_passes_without_caches(name):
    model, (chain, encoder, exclude) = make(name), CHAINS[name]
    dense, data = copy.deepcopy(model), batches(encoder)
    found = prune_layerwise(model, data, "wanda", density=0.5, exclude=exclude).masks
    expected = by_hand(dense, list(found), chain, data)
    assert any(key.startswith(chain) for key in found)
    for key, mask in found.items():
        assert torch.equal(mask, expected[key]), key


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "exchange"])
def test_a_wrapped_model_is_pruned_as_it_is_alone(method):
    alone = prune_layerwise(make("llama"), batches(), method, density=0.5).masks
    wrapped = prune_layerwise(Wrapped(make("llama")), batches(), method, density=0.5).masks
    assert wrapped.keys() == {f"lm.{name}" for name in alone}
    assert all(torch.equal(mask, wrapped[f"lm.{name}"]) for name, mask in alone.items())


def test_initial_masks_by_exchange_ignore_caches_too():
    def start(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
        def loss(outputs: Any, labels: Tensor) -> Tensor:
            logits = outputs if isinstance(outputs, Tensor) else outputs.logits
            return nn.functional.cross_entropy(logits[:, :-1].mT, labels[:, 1:])

        pruner = Pruner(density=0.5, passes=0, initial="exchange", curvature="empirical")
        return pruner.prune(model, inputs, loss).masks

    alone = start(make("llama"), batches())
    wrapped = start(Wrapped(make("llama")), batches())
    assert all(torch.equal(mask, wrapped[f"lm.{name}"]) for name, mask in alone.items())


def test_a_cache_requested_in_the_call_is_left_out_of_the_replay():
    """The argument use_cache=True of a call overrides the configuration."""
    alone = prune_layerwise(make("llama"), batches(), "wanda", density=0.5).masks
    model = Wrapped(make("llama"), use_cache=True)
    wrapped = prune_layerwise(model, batches(), "wanda", density=0.5).masks
    assert all(torch.equal(mask, wrapped[f"lm.{name}"]) for name, mask in alone.items())


def test_configurations_are_as_before_also_after_a_failure():
    model = make("t5")
    parts = [module for module in model.modules() if hasattr(module, "config")]
    before = [part.config.use_cache for part in parts]
    assert True in before
    prune_layerwise(model, batches(encoder=True), "wanda", density=0.5)
    assert [part.config.use_cache for part in parts] == before
    with pytest.raises(DataError):
        prune_layerwise(model, [], "wanda", density=0.5)
    assert [part.config.use_cache for part in parts] == before


class Remembering(nn.Module):
    """A block with its own cache, which attends to the states of all earlier calls."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, cache: dict[int, Tensor]) -> Tensor:
        past = cache.get(id(self))
        cache[id(self)] = y = x if past is None else torch.cat([past, x], dim=1)
        return x + self.out((self.mix(x) @ y.mT).softmax(-1) @ y)


class Beside(nn.Module):
    """A block with a second input that depends on earlier hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.out((self.mix(x) + beside).tanh())


class Own(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.ModuleList(kind() for _ in range(3))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        cache: dict[int, Tensor] = {}
        for layer in self.layers:
            x = layer(x, cache if self.kind is Remembering else 3 * x.flip(-1))
        return x


@pytest.mark.parametrize("kind", [Remembering, Beside])
def test_blocks_that_can_not_be_replayed_take_whole_passes(kind, caplog):
    model = Own(kind).double()
    x = torch.randn(6, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = [(x[:4], x[:4]), (x[4:], x[4:])]
    dense = copy.deepcopy(model)
    with caplog.at_level("INFO", logger="icbs"):
        found = prune_layerwise(model, data, "wanda", density=0.5).masks
    assert "each layer needs its own forward pass" in caplog.text
    expected = by_hand(dense, list(found), "nothing", [({"x": x}, y) for x, y in data])
    assert all(torch.equal(mask, expected[name]) for name, mask in found.items())


def test_a_plain_chain_is_carried_from_block_to_block(caplog):
    with caplog.at_level("INFO", logger="icbs"):
        prune_layerwise(make_language_model(), batches(), "wanda", density=0.5)
    assert "depend on more" not in caplog.text
