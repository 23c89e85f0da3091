"""Cut models are exported by torch.export and run by ONNX Runtime."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from icbs.data.pytree import call, tree_map
from icbs.errors import ModelError
from icbs.structure import cut, find_dimensions
from icbs.structure.onnx_files import FirstOutput, OnnxModel, export_onnx, named_inputs
from icbs.structure.outputs import output_tensors
from tests.icbs import structured_models

NAMES = ("bert", pytest.param("vit", marks=pytest.mark.slow), "llama", "residual")


def small_model(name: str) -> tuple[torch.nn.Module, object]:
    model, inputs = structured_models.make(name)
    kinds = ("channels",) if name == "residual" else ("heads", "neurons")
    dimensions = find_dimensions(model, inputs, kinds)
    kept = {d.name: torch.arange(d.groups) % 2 == 0 for d in dimensions}
    single = tree_map(lambda t: t.float() if t.is_floating_point() else t, inputs)
    return cut(model, dimensions, kept).float(), single


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_computes_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    small, inputs = small_model(name)
    export_onnx(small, inputs, tmp_path / "small.onnx")
    more = tree_map(lambda t: torch.cat([t, t.flip(0), t]), inputs)  # another batch size
    found = OnnxModel(tmp_path / "small.onnx")(more)
    expected = output_tensors(call(small, more))[0]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["bert", "residual"])
def test_torch_export_computes_the_same(name: str) -> None:
    small, inputs = small_model(name)
    named = named_inputs(inputs)
    first = FirstOutput(small, list(named) if isinstance(inputs, dict) else []).eval()
    exported = torch.export.export(first, tuple(named.values())).module()
    expected = first(*named.values())
    assert (exported(*named.values()) - expected).abs().max() <= 1e-5 * expected.abs().max()


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cant_be_exported_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(ModelError, match="Branching can't be exported to ONNX"):
        export_onnx(Branching(), torch.randn(2, 3), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_the_export_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The exporter can't evaluate BERT's token types in advance, and would warn of it."""
    pytest.importorskip("onnxscript")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=50, num_hidden_layers=1, **sizes)
    tokens = torch.randint(50, (2, 7))
    named = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    folder = logging.getLogger("onnxscript.optimizer._constant_folding")
    level = folder.level
    model = transformers.BertForSequenceClassification(config).eval()
    export_onnx(model, named, tmp_path / "x.onnx")
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert folder.level == level
