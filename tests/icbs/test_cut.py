"""A cut model computes what the model with closed groups computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from icbs.data.pytree import call
from icbs.errors import LayerError
from icbs.structure import Dimension, cut, find_dimensions
from icbs.structure.find import survey_dimensions
from icbs.structure.gating import closed
from icbs.structure.matrices import is_linear, is_transposed
from icbs.structure.outputs import output_tensors
from tests.icbs import structured_models
from tests.icbs.structured_models import TRANSFORMERS

KINDS = ("heads", "neurons", "channels")
NAMES = (*TRANSFORMERS, *structured_models.PLAIN)


def choose(dimensions: list[Dimension], seed: int = 0) -> dict[str, Tensor]:
    """Keep a random part of each dimension, at least one group of all."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for dimension in dimensions:
        own = torch.rand(dimension.groups, generator=generator) < 0.6
        own[torch.randint(dimension.groups, (1,), generator=generator)] = dimension.floor == 1
        kept[dimension.name] = own
    return kept


@torch.no_grad()
def masked(model: nn.Module, dimensions: list[Dimension], kept: dict[str, Tensor]) -> nn.Module:
    """Set the readers' columns of closed groups to zero, by hand."""
    model = copy.deepcopy(model)
    for dimension in dimensions:
        for reader in dimension.readers:
            module = model.get_submodule(reader.module)
            columns = reader.index[~kept[dimension.name]].flatten()
            if is_transposed(module):
                module.weight[columns] = 0
            else:
                module.weight[:, columns] = 0
    return model


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_masked_and_cut_models_agree(name: str, seed: int) -> None:
    model, inputs = structured_models.make(name, seed)
    dimensions = find_dimensions(model, inputs, KINDS)
    kept = choose(dimensions, seed)
    before = copy.deepcopy(model.state_dict())
    small = cut(model, dimensions, kept)
    expected = output_tensors(call(masked(model, dimensions, kept), inputs))
    found = output_tensors(call(small, inputs))
    changed = output_tensors(call(model, inputs))
    for one, other, dense in zip(found, expected, changed, strict=True):
        assert (one - other).abs().max() <= 1e-10
        assert (one - dense).abs().max() > 1e-6  # the groups matter
    count = sum(p.numel() for p in small.parameters())
    assert count < sum(p.numel() for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["vit", "deit", "gpt2", "llama", "qwen2"])
def test_blocks_are_removed(name: str) -> None:
    model, inputs = structured_models.make(name)
    dimensions = find_dimensions(model, inputs, ("heads", "neurons", "blocks"))
    blocks = [d for d in dimensions if d.kind == "blocks"]
    assert len(blocks) == (3 if name in ("llama", "qwen2") else 2)
    kept = choose(dimensions) | {b.name: torch.tensor([b is not blocks[-1]]) for b in blocks}
    small = cut(model, dimensions, kept)
    expected = output_tensors(call(masked(model, dimensions, kept), inputs))
    for one, other in zip(output_tensors(call(small, inputs)), expected, strict=True):
        assert (one - other).abs().max() <= 1e-10
    assert small.config.num_hidden_layers == 2
    if name in ("gpt2", "llama", "qwen2"):  # caches are by layer
        tokens = small.generate(**inputs, max_new_tokens=3, do_sample=False, pad_token_id=0)
        plain = small.generate(
            **inputs, max_new_tokens=3, do_sample=False, pad_token_id=0, use_cache=False
        )
        assert torch.equal(tokens, plain)


def test_numbers_of_heads_are_put_right() -> None:
    model, inputs = structured_models.make("llama")
    dimensions = find_dimensions(model, inputs, ("heads",))
    assert [d.groups for d in dimensions] == [3, 3, 3]
    small = cut(model, dimensions, {d.name: torch.tensor([True, False, True]) for d in dimensions})
    config = small.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 4)
    assert small.model.layers[0].self_attn.q_proj.out_features == 16
    assert model.config.num_attention_heads == 6


def test_bert_has_heads_and_neurons_alone() -> None:
    model, inputs = structured_models.make("bert")
    dimensions = find_dimensions(model, inputs, ("heads", "neurons", "channels", "blocks"))
    assert [(d.kind, d.groups) for d in dimensions] == 3 * [("heads", 4), ("neurons", 40)]


def test_example_inputs_are_made_of_configurations() -> None:
    for name in TRANSFORMERS:
        model, inputs = structured_models.make(name)
        with_inputs = [d.name for d in find_dimensions(model, inputs)]
        assert [d.name for d in find_dimensions(model)] == with_inputs


def test_shared_layers_are_left_whole(caplog: pytest.LogCaptureFixture) -> None:
    model = structured_models.Shared().eval()
    with caplog.at_level("INFO", "icbs"):
        dimensions = find_dimensions(model, torch.randn(3, 6))
    assert [d.name for d in dimensions] == ["once neurons"]
    assert "twice is called 2 times" in caplog.text


def test_tied_layers_are_left_whole(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 5),
                          nn.ReLU(), nn.Linear(5, 2)).eval()  # fmt: skip
    model[2].weight = model[0].weight
    with caplog.at_level("INFO", "icbs"):
        dimensions = find_dimensions(model)
    assert [d.name for d in dimensions] == ["4 neurons"]
    assert "2 shares its weights (0.weight, 2.weight)" in caplog.text


class Softmaxed(nn.Module):
    """A function of all channels that the dependency graph takes for an elementwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).softmax(-1)).relu())


def test_functions_that_mix_channels_are_found_by_the_test(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)  # with some weights no noise passes the ReLU
    with caplog.at_level("INFO", "icbs"):
        dimensions = find_dimensions(Softmaxed().eval(), torch.randn(3, 4))
    assert [d.name for d in dimensions] == ["second neurons"]
    assert "left whole: first neurons (something else reads them)" in caplog.text


def test_bad_input_is_refused() -> None:
    model, inputs = structured_models.make("mlp")
    dimensions = find_dimensions(model, inputs)
    name = dimensions[0].name
    none = torch.zeros(9, dtype=torch.bool)
    with pytest.raises(LayerError, match="0 of the 9 groups of '0 neurons' are kept; keep at"):
        cut(model, dimensions, {name: none})
    with pytest.raises(LayerError, match=r"shape \(3,\); it must be \(9,\)"):
        cut(model, dimensions, {name: none[:3]})
    with pytest.raises(LayerError, match="no dimension '0 neuron' .did you mean"):
        cut(model, dimensions, {"0 neuron": ~none})
    with pytest.raises(LayerError, match="training mode; call model.eval"):
        cut(model.train(), dimensions, {name: ~none})
    with pytest.raises(LayerError, match="kind of groups 'head' is unknown"):
        find_dimensions(model.eval(), inputs, ("head",))
    with pytest.raises(LayerError, match="no heads that can be cut"):
        find_dimensions(model, inputs, ("heads",))
    with pytest.raises(LayerError, match="give example_inputs"):
        find_dimensions(structured_models.Residual().eval(), kinds=("channels",))


def test_in_place() -> None:
    model, inputs = structured_models.make("mlp")
    dimensions = find_dimensions(model, inputs)
    kept = choose(dimensions)
    expected = call(cut(model, dimensions, kept), inputs)
    assert cut(model, dimensions, kept, in_place=True) is model
    assert torch.equal(call(model, inputs), expected)
    assert all(is_linear(m) for m in (model[0], model[2]))


def test_heads_with_biases_of_relative_positions_are_left_whole() -> None:
    """Swin has a bias for each head, which removing the head's projections would not remove."""
    import transformers

    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 12, "window_size": 4}
    config = transformers.SwinConfig(depths=[1, 1], num_heads=[2, 4], num_labels=3, **sizes)
    model = transformers.SwinForImageClassification(config).double().eval()
    inputs = {"pixel_values": torch.randn(2, 3, 16, 16).double()}
    dimensions, left = survey_dimensions(model, inputs)
    assert [one.kind for one in dimensions] == ["neurons", "neurons"]
    reasons = [reason for name, reason in left.items() if name.endswith("heads")]
    assert len(reasons) == 2
    assert all("relative_position_bias_table has an entry per head" in one for one in reasons)
    kept = {one.name: torch.arange(one.groups) % 2 == 0 for one in dimensions}
    with torch.no_grad(), closed(model, dimensions, kept):
        masked = model(**inputs).logits
    assert (cut(model, dimensions, kept)(**inputs).logits - masked).abs().max() <= 1e-10
