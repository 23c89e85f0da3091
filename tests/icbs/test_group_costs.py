"""Costs of groups are those that torch's counter finds in dense and cut models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from icbs import Pruner
from icbs.config import PrunerConfig
from icbs.data.pytree import call
from icbs.groups.costs import count_costs
from icbs.groups.finding import find_groups
from icbs.model.modes import evaluation_mode
from icbs.structure import cut, find_dimensions
from icbs.structure.latency import latency_tables
from icbs.structure.operations import operations
from tests.icbs import structured_models


def flops(model: nn.Module, inputs: Any) -> float:
    """Multiply-accumulates by torch's counter."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        call(model, inputs)
    return counter.get_total_flops() / 2


class Upsampled(nn.Module):
    """Two convolutions with a transposed one, which can't be cut, between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 6, 3, padding=1), nn.ConvTranspose2d(6, 8, 2, stride=2)
        self.second, self.third = nn.Conv2d(8, 5, 3, padding=1), nn.Conv2d(5, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.up(self.first(images).relu()).relu()
        return self.third(self.second(x).relu()).mean((2, 3))


def bert() -> tuple[nn.Module, Any]:
    import transformers as t

    config = t.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=24, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = t.BertForSequenceClassification(config).eval()
    return model, {"input_ids": torch.randint(50, (8, 64))}


@pytest.mark.parametrize("groups", ["neurons", "heads", "heads,neurons", "channels"])
def test_costs_are_those_of_torchs_counter(groups: str) -> None:
    if groups == "channels":
        torch.manual_seed(0)
        model, inputs = Upsampled().eval(), torch.randn(1, 3, 6, 6)
    else:
        model, inputs = bert()
        inputs = {name: value[:1] for name, value in inputs.items()}
    config = PrunerConfig.of(groups=groups, density=0.5)
    with evaluation_mode(model) as plain:
        grouping = find_groups(plain, inputs, config)
        costs = count_costs(grouping, plain, inputs, "macs")
        state = np.zeros(grouping.count, dtype=np.uint8)
        assert costs.total(state) == pytest.approx(flops(plain, inputs))
        state[::2] = 1
        dimensions = [own.dimension for own in grouping.sets if own.dimension is not None]
        small = cut(plain, dimensions, grouping.kept(state))
        assert costs.total(state) == pytest.approx(flops(small, inputs))
    assert costs.total(state) < costs.total(0 * state)


def test_a_budget_holds_for_the_whole_model_without_heads() -> None:
    """Attention over 64 positions is a third of this model's work, and neurons don't save it."""
    model, inputs = bert()
    dense = flops(model, inputs)
    result = Pruner(
        groups="neurons", budget={"macs": 0.9}, passes=0, initial="magnitude",
        curvature="empirical",
    ).prune(
        model,
        [(inputs, torch.randint(2, (8,)))],
        lambda out, y: nn.functional.cross_entropy(out.logits, y),
        progress=False,
    )  # fmt: skip
    small = cut(model, find_dimensions(model, kinds=("neurons",)), result.groups)
    share = flops(small, inputs) / dense
    assert 0.88 < share <= 0.9
    assert result.summary()["shares"]["macs"] == pytest.approx(share)


def strided(stride: int, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=stride), act(), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def test_latencies_of_one_model_are_not_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights have equal shapes; stride and activation decide on the time."""
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    images = torch.randn(1, 3, 16, 16)
    models = [strided(1), strided(4), strided(1, nn.GELU), strided(1)]
    for model, files in zip(models, (1, 2, 3, 3), strict=True):
        latency_tables(model, find_dimensions(model, images, ("channels",)), images)
        assert len(list((tmp_path / "latency").iterdir())) == files
    other = strided(1)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    assert operations(other, images) == operations(models[0], images)


def test_dimensions_with_other_positions_are_measured_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    layers = [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
              nn.MaxPool2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
              nn.Conv2d(4, 4, 3, padding=1), nn.Flatten()]  # fmt: skip
    model, images = nn.Sequential(*layers).eval(), torch.randn(1, 4, 16, 16)
    dimensions = [
        d for d in find_dimensions(model, images, ("channels",)) if d.name[0] in ("0", "4")
    ]
    _, tables = latency_tables(model, dimensions, images)
    first, second = (tables[d.name][1] for d in dimensions)
    assert not np.array_equal(first, second)


def test_a_uniformly_cut_t5_is_saved_by_its_configuration(tmp_path: Path) -> None:
    import transformers as t

    config = t.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    torch.manual_seed(0)
    model = t.T5ForConditionalGeneration(config).eval()
    tokens = torch.randint(1, 50, (2, 6))
    inputs = {"input_ids": tokens, "decoder_input_ids": tokens}
    dimensions = find_dimensions(model, inputs, ("neurons",))
    small = cut(model, dimensions, {d.name: torch.arange(24) < 9 for d in dimensions})
    small.save_pretrained(tmp_path)
    loaded = t.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.config.d_ff == 9
    assert torch.allclose(loaded(**inputs).logits, small(**inputs).logits, atol=1e-5)


def test_a_second_cut_with_old_dimensions_is_refused() -> None:
    from icbs.errors import LayerError

    model, inputs = structured_models.make("residual")
    dimensions = find_dimensions(model, inputs, ("channels",))
    half = {d.name: torch.arange(d.groups) % 2 == 0 for d in dimensions}
    small = cut(model, dimensions, half)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    for in_place in (False, True):
        with pytest.raises(LayerError, match=r"has 4 inputs, and channel 7 .* cut before"):
            cut(small, dimensions, half, in_place=in_place)
    after = small.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
