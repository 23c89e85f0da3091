"""Dimensions that can't be cut are named with the reason, and the others are found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from icbs import Pruner
from icbs.data.pytree import call
from icbs.structure import cut
from icbs.structure.find import survey_dimensions
from icbs.structure.gating import closed
from icbs.structure.outputs import output_tensors
from tests.icbs import structured_models as models

ALL = ("heads", "neurons", "channels")
TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def check(model: nn.Module, inputs: Any) -> tuple[list[str], dict[str, str]]:
    """Cut what is found, compare with closed groups, and return the names and what is left."""
    model = model.double().eval()
    found, left = survey_dimensions(model, inputs, ALL)
    kept = {d.name: torch.arange(d.groups) % 3 != 1 for d in found}
    with torch.no_grad(), closed(model, found, kept):
        expected = output_tensors(call(model, inputs))[0]
    small = output_tensors(call(cut(model, found, kept), inputs))[0]
    assert small.shape == expected.shape
    assert (small - expected).abs().max() <= 1e-10
    return [d.name for d in found], left


@pytest.mark.parametrize("count", [1, 16])
def test_sizes_in_the_code_of_a_model_are_found_out(count: int) -> None:
    """With 16 samples the images of fewer channels are divided into fewer samples."""
    torch.manual_seed(0)
    model, inputs = models.FixedSizes(), torch.randn(count, 1, 8, 8, dtype=torch.float64)
    found, left = check(model, inputs)
    assert found == ["first channels", "wide neurons"]
    (name,) = left
    assert name == "second channels"
    if count == 1:
        assert "can't run without some of them: RuntimeError: shape '[-1, 64]'" in left[name]
    found, left = check(models.Unflattened(), torch.randn(count, 6, dtype=torch.float64))
    assert found == ["images channels"]
    assert len(left) == 1


def test_functions_of_the_number_of_channels_are_found_out() -> None:
    torch.manual_seed(0)
    found, left = check(models.Scaled(), torch.randn(8, 6, dtype=torch.float64))
    assert found == ["second neurons"]
    assert "computes something else" in left["first neurons"]


def test_a_model_with_fixed_sizes_is_pruned_and_cut() -> None:
    torch.manual_seed(0)
    model = models.FixedSizes().eval()
    images, targets = torch.randn(40, 1, 8, 8), torch.randint(10, (40,))
    result = Pruner(groups="channels", density=0.5, passes=1).prune(
        model, [(images, targets)], nn.CrossEntropyLoss(), progress=False
    )
    assert list(result.groups) == ["first channels"]
    found, _ = survey_dimensions(model, images[:1], ("channels",))
    small = cut(model, found, result.groups)
    assert (small(images) - model(images)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("make", "shape", "expected", "left_whole"),
    [
        (models.Shuffled, (3, 3, 8, 8), ["second channels"], "first"),
        (models.Recurrent, (3, 6, 8), ["second neurons"], "first"),
    ],
)
def test_what_the_graph_mishandles_is_left_whole(
    make: type[nn.Module], shape: tuple[int, ...], expected: list[str], left_whole: str
) -> None:
    torch.manual_seed(0)
    found, left = check(make(), torch.randn(shape, dtype=torch.float64))
    assert found == expected
    assert any(left_whole in name for name in left)
    assert any("dependency graph" in reason for reason in left.values())


def transformers_model(name: str) -> nn.Module:
    import transformers as t

    small = {k: v for k, v in TEXT.items() if k != "intermediate_size"}
    makers: dict[str, Any] = {
        "bloom": lambda: t.BloomForCausalLM(
            t.BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4)
        ),
        "falcon": lambda: t.FalconForCausalLM(t.FalconConfig(**small)),
        "modernbert": lambda: t.ModernBertForSequenceClassification(
            t.ModernBertConfig(**TEXT, cls_token_id=1, sep_token_id=2)
        ),
        "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**TEXT, num_key_value_heads=2)),
        "phi": lambda: t.PhiForCausalLM(t.PhiConfig(**TEXT)),
        "mpnet": lambda: t.MPNetForSequenceClassification(
            t.MPNetConfig(**TEXT, max_position_embeddings=32)
        ),
    }
    return makers[name]()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bloom", {"neurons"}),
        ("falcon", {"neurons"}),
        ("modernbert", {"neurons"}),
        ("phi3", {"neurons"}),
        ("phi", {"heads", "neurons"}),
        ("mpnet", {"neurons"}),
    ],
)
def test_attention_that_is_not_followed_leaves_the_rest_prunable(
    name: str, kinds: set[str]
) -> None:
    torch.manual_seed(0)
    found, left = check(transformers_model(name), {"input_ids": torch.randint(3, 50, (2, 7))})
    assert {one.rpartition(" ")[2] for one in found} == kinds
    assert len(found) == 2 * len(kinds)
    if name == "mpnet":  # all layers add one bias of relative positions, with an entry per head
        assert sum("heads" in one for one in left) == 2
