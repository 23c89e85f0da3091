"""Valid files of every kind that the project reads, small, the same every time."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from icbs import Pruner, save_compressed, save_masks
from icbs.cli.solution_io import write_solution
from icbs.layerwise import prune_layerwise
from icbs.report.evaluations import Evaluation, write_evaluations
from problems import CardinalityQUBO, Instance
from problems.formats import FORMATS, write
from solvers import solve
from tests.icbs.conftest import make_toy
from tests.icbs.language import make_language_model, make_texts, make_tokenizer, save

SETTINGS: dict[str, Any] = {
    "density": 0.3,
    "densities": {"0": 0.4},
    "block_size": 32,
    "passes": 2,
    "solver": "diagonal",  # nothing to compile
    "gradient_samples": 100,
    "curvature_samples": 50,
    "acceptance_samples": 100,
}


def make(folder: Path, *, language: bool = True) -> None:
    """Write the corpus: one folder for each kind of reader; language models on request."""
    for name in (
        "problems",
        "instances",
        "states",
        "tensors",
        "yaml",
        "texts",
        "idx",
        "cached",
        "set",
    ):
        (folder / name).mkdir(parents=True)
    _problems(folder)
    _run(folder / "run")
    _tensors(folder)
    _texts(folder)
    if language:
        save(folder / "model", layers=1)
        gguf_model(folder / "gguf")


def _problems(folder: Path) -> None:
    draw = np.random.default_rng(0)
    A, linear = draw.normal(size=(3, 8)).round(3), draw.normal(size=8).round(3)
    factored = CardinalityQUBO.from_factors(A, linear, k=3)
    grouped = CardinalityQUBO(
        np.array(factored.Q), k=[2, 1], groups=[0, 0, 0, 0, 0, 1, 1, 1], offset=0.5,
        labels=["a", "b[1]", "c", "dd", "e1", "f", "g", "[red]h"],
    )  # fmt: skip
    for name, form in FORMATS.items():
        for number, problem in enumerate((factored, grouped)):
            try:
                write(problem, folder / "problems" / f"{name}-{number}{form.endings[0]}", name)
            except Exception:  # a format without groups
                continue
    solution = solve(factored, "diagonal")
    write_solution(solution, folder / "states" / "x.npz")
    write_solution(solution, folder / "states" / "x.json")
    np.save(folder / "states" / "x.npy", solution.x)
    about = {"step": 3, "layer": "0 + 2", "n": 8, "k": 3, "energy": -0.5, "accepted": True}
    start = np.uint8([1, 1, 0, 0, 0, 1, 0, 0])
    for number, problem in enumerate((factored, grouped)):
        known = Instance(problem, start=start, answer=start, about=about | {"curvature": "gram"})
        known.save(folder / "instances" / f"{number}.npz")


def _run(run: Path) -> None:
    """A finished run, with what ``icbs prune`` adds to it."""
    toy = make_toy()
    masks = prune_layerwise(make_toy().model, None, "magnitude", density=0.3).masks
    masks["0"] = masks["0"] ^ masks["0"]
    masks["0"].view(-1)[: round(0.4 * masks["0"].numel())] = True
    about = {
        "task": "garment",
        "task_options": {"epochs": 1, "seed": 0},
        "evaluate_every": 1,
        "dense": {"accuracy": 0.9, "loss": 0.3},
    }
    Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, run=run, about=about, masks=masks)
    rows = [Evaluation(i, 0.5 * i, {"accuracy": 0.5 + i / 10, "loss": 1.0 / i}) for i in (1, 2)]
    write_evaluations(rows, run / "evaluations.csv")
    for left in run.glob(".*"):  # locks
        left.unlink()


def _tensors(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) / 7 + number)
    masks = prune_layerwise(model, None, "magnitude", density=0.4).masks
    save_masks(masks, folder / "tensors" / "masks.safetensors")
    tied = model.state_dict() | {"tied": model[1].weight}
    save_compressed(tied, masks, folder / "tensors" / "compressed.safetensors")
    shutil.copy(folder / "run" / "model.safetensors", folder / "cached" / "model.safetensors")


def _texts(folder: Path) -> None:
    configs = Path(__file__).parents[3]
    for number, name in enumerate(("configs/paper.yaml", "icbs/zoo/language_model.yaml")):
        shutil.copy(configs / name, folder / "yaml" / f"{number}.yaml")
    whole = "task: garment\ntask_options: {epochs: 2}\nrun: somewhere\nevaluate_every: 3\n"
    more = "pruner:\n  density: 0.2\n  densities: {'0': 0.3, 're:a.*': 0.1}\n  max_memory: 6GB\n"
    (folder / "yaml" / "2.yaml").write_text(whole + more + "  include: ['*']\n")
    words = ("density=0.3", "densities={'0': 0.4}", "passes=3", "max_memory=6e9", "exclude=[a, b]")
    (folder / "set" / "words.txt").write_text("\n".join(words))
    made = make_texts(6)
    (folder / "texts" / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in made))
    (folder / "texts" / "b.txt").write_text("\n\n".join(made))
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for name, array in (("images", images), ("labels", np.arange(5, dtype=np.uint8))):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        packed = gzip.compress(header + array.tobytes(), mtime=0)
        (folder / "idx" / f"{name}.gz").write_bytes(packed)


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_model(folder: Path) -> None:
    """Write the tiny language model as GGUF, one block, weights in float32."""
    import gguf

    folder.mkdir()
    model, vocabulary = make_language_model(layers=1), make_tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens[5] = "Ġt"  # what the one merge makes
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(257)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3])
    writer.add_token_merges(["Ġ t"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    for name, value in model.state_dict().items():
        part = name.removesuffix(".weight").removeprefix("model.")
        if part.startswith("layers.0."):
            part = f"blk.0.{_GGUF_NAMES[part.removeprefix('layers.0.')]}"
        part = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(part, part)
        if part != "lm_head":  # tied
            writer.add_tensor(f"{part}.weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
