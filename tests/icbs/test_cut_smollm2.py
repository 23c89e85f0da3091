"""SmolLM2-135M cut to three quarters of its parameters, saved and loaded by transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from icbs.downloads.wheels import SMOLLM2
from icbs.structure import cut, find_dimensions
from icbs.structure.gating import closed

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not SMOLLM2.path.exists(), reason="icbs fetch smollm2-135m")
def test_the_cut_model_is_loaded_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from icbs.lm import load_language_model

    model, tokenizer = load_language_model("smollm2-135m")
    dimensions = find_dimensions(model)
    assert {(one.kind, one.groups) for one in dimensions} == {("heads", 3), ("neurons", 1536)}
    kept = {}
    for one in dimensions:
        reader = model.get_submodule(one.readers[0].module)
        sizes = reader.weight.detach().square().sum(dim=0)[one.readers[0].index].sum(dim=1)
        best = sizes.argsort(descending=True)[: 2 if one.kind == "heads" else 1054]
        kept[one.name] = torch.zeros(one.groups, dtype=torch.bool).index_fill(0, best, True)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad(), closed(model, dimensions, kept):
        masked = model(**inputs).logits
    small = cut(model, dimensions, kept)
    small.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (loaded.config.num_attention_heads, loaded.config.num_key_value_heads) == (6, 2)
    assert loaded.config.intermediate_size == 1054
    with torch.no_grad():
        found = loaded(**inputs).logits
    assert (found - masked).abs().max() <= 1e-4 * masked.abs().max()
    share = sum(p.numel() for p in loaded.parameters()) / sum(p.numel() for p in model.parameters())
    assert 0.74 < share <= 0.75
    written = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert written < 1.01 * sum(p.numel() * p.element_size() for p in loaded.parameters())
