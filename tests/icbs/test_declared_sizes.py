"""Refusal of models that declare more than their files contain, or that contain code."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from icbs import ModelError
from icbs.lm import load_language_model
from icbs.lm.declared_sizes import declared_in_folder, declared_in_gguf
from tests.campaigns.fuzz.corpus import gguf_model
from tests.campaigns.fuzz.hostile import HOSTILE
from tests.icbs.language import make_language_model, save


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    gguf_model(folder / "gguf")
    save(folder / "model", layers=1)
    return folder


def test_sizes_agree_with_other_readers(corpus):
    import gguf

    found = declared_in_gguf(corpus / "gguf" / "tiny.gguf")
    theirs = gguf.GGUFReader(corpus / "gguf" / "tiny.gguf")
    assert found.tensors == len(theirs.tensors) == 11
    assert found.weights == sum(int(t.n_elements) for t in theirs.tensors)
    assert found.largest == 257
    folder = declared_in_folder(corpus / "model")
    tensors = load_file(corpus / "model" / "model.safetensors")
    assert folder.tensors == len(tensors)
    assert folder.weights == 2 * (corpus / "model" / "model.safetensors").stat().st_size
    assert declared_in_folder(corpus) is None


def test_an_honest_file_is_loaded(corpus):
    model, tokenizer = load_language_model(corpus / "gguf" / "tiny.gguf")
    wanted = make_language_model(layers=1).state_dict()
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"):
        assert torch.equal(model.state_dict()[name], wanted[name])
    assert tokenizer.convert_tokens_to_ids("Ġt") == 5
    assert tokenizer.decode(tokenizer("a red fox")["input_ids"]) == "a red fox"


@pytest.mark.parametrize(
    "make", [make for name, make in HOSTILE if name == "gguf"], ids=lambda make: make.__name__
)
def test_false_sizes_in_a_gguf_file_are_refused_at_once(tmp_path, corpus, make):
    path, began = make(tmp_path, corpus), time.process_time()
    with pytest.raises(ModelError, match="can't be loaded as a causal language model"):
        load_language_model(path)
    assert time.process_time() - began < 10


def test_tensors_must_be_inside_the_file_without_overlap(tmp_path, corpus):
    content = (corpus / "gguf" / "tiny.gguf").read_bytes()
    path = tmp_path / "a.gguf"
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight")
    (dimensions,) = struct.unpack_from("<I", content, at)
    offset = at + 4 + 8 * dimensions + 4
    for where, value in ((offset, 1 << 40), (at + 4, 1 << 33)):
        path.write_bytes(content[:where] + struct.pack("<Q", value) + content[where + 8 :])
        with pytest.raises(ModelError, match="its tensors need more than the"):
            declared_in_gguf(path)
    path.write_bytes(content[:-4])
    with pytest.raises(ModelError, match="its tensors need more"):
        declared_in_gguf(path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_hidden_layers": 1 << 30}, "declares num_hidden_layers = 1073741824"),
        ({"intermediate_size": 1 << 26}, "declares .* weights, but its files have"),
        ({"vocab_size": 1 << 28}, "declares .* weights"),
        ({"num_attention_heads": 0}, "can't be loaded"),
        ({"hidden_size": "x"}, "can't be loaded"),
    ],
)
def test_a_configuration_is_held_against_the_weights(tmp_path, corpus, changes, match):
    folder = save(tmp_path / "model", layers=1)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=match):
        load_language_model(folder)


def test_code_of_a_model_is_never_run(tmp_path):
    folder, marker = save(tmp_path / "model", layers=1), tmp_path / "was-run"
    code = f"open({str(marker)!r}, 'w').close()\nfrom transformers import LlamaForCausalLM as B\n"
    (folder / "theirs.py").write_text(code + "from transformers import LlamaConfig as C\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "theirs.B", "AutoConfig": "theirs.C"}}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "theirs"}))
    with pytest.raises(ModelError, match="can't be loaded"):
        load_language_model(folder)
    with pytest.raises(ModelError, match="trust_remote_code is not supported"):
        load_language_model(folder, trust_remote_code=True)
    assert not marker.exists()


class Bait:
    """A pickle that runs a function when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_pickles_are_not_run(tmp_path):
    folder, marker = save(tmp_path / "model", layers=1), tmp_path / "was-run"
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state | {"bait": Bait(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can't be loaded"):
        load_language_model(folder)
    assert not marker.exists()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    load_language_model(folder)
