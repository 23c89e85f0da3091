"""The tables of :mod:`benchmarks.pruning`, from all existing cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from icbs.lm import Perplexity
from problems.files import write_text

TITLES = {
    "smollm2": "SmolLM2-135M-Instruct, a language model",
    "deit": "DeiT architecture, trained on Fashion-MNIST",
    "efficientnet_lite0": "EfficientNet-lite0, trained on ImageNet",
}
NOTES = {
    "smollm2": "Weights dequantised from 4 bits. Calibration: 64 windows of 256 tokens of "
    "Wikipedia and OpenWebText passages, for every method (iCBS holds 16 of them out for its "
    "acceptance test). Test: 64 windows of 256 tokens, each from other Wikipedia articles, "
    "without 13 consecutive words in common. `lm_head` and embeddings stay dense. iCBS starts "
    "from Wanda's masks and takes 6 passes of 16 windows, with `max_memory` at 4 GB. 40 questions "
    "of each zero-shot task.",
    "deit": "Width 96, 4 blocks, patches of 7 × 7 pixels. 8192 training images for every method. "
    "Test: the 10,000 test images. iCBS starts from Wanda's masks and takes 12 passes.",
    "efficientnet_lite0": "ImageNet's training images were not available: losses are "
    "cross-entropies to the dense model's predictions on photographs of CIFAR-10's test set (768 "
    "for pruning, 512 others for testing), accuracy is agreement with the dense model on the "
    "latter, and `imagenet` is the accuracy on 20 labelled photographs, of 5 points each. "
    "The stem and the depthwise convolutions stay dense. iCBS starts from Wanda's masks and takes "
    "10 passes. Density 0.5 is left out: magnitude and Wanda agree with the dense model on less "
    "than 1 % of the photographs.",
}
NAMES = {
    "icbs": "iCBS",
    "exchange": "exchanges from Wanda",
    "sparsegpt": "SparseGPT (updates weights)",
}


def write_tables(cells: list[Any], path: Path) -> None:
    """Write ``path`` with the extensions ``.md`` and ``.json``."""
    lines = ["# iCBS, magnitude, Wanda and SparseGPT", "", *HEAD]
    summaries: dict[str, Any] = {}
    for name in TITLES:
        own = [c for c in cells if c.name == name and (c.folder / "measured.json").exists()]
        if not own:
            continue
        rows = [_summary(cell) for cell in own]
        summaries[name] = rows
        lines += [f"## {TITLES[name]}", "", NOTES[name], "", *_table(rows), ""]
    write_text(path.with_suffix(".json"), json.dumps(summaries, indent=1) + "\n")
    write_text(path.with_suffix(".md"), "\n".join(lines))


HEAD = [
    "Written by `python -m benchmarks.pruning`. Magnitude, Wanda and iCBS choose a mask and don't "
    "change the kept weights; SparseGPT changes them. Nothing was selected on test data. "
    "± is a standard error, by bootstrap over test samples; *gain* is the decrease of the test "
    "loss relative to Wanda's at the same level, in nats, with the bootstrap error of the paired "
    "difference. *calibration* is the loss on samples used by the method. Density is that of the "
    "prunable weights. iCBS starts from Wanda's mask, or from that with exchanges, as described "
    "below, and its minutes are in addition to theirs. Time and peak memory are those of one "
    "process on one thread, with the loading of the model in the peak memory.",
    "",
]


def _summary(cell: Any) -> dict[str, Any]:
    """Return the results of a cell, without the losses of single samples."""
    found = {"level": cell.level, "method": cell.method}
    measured = _read(cell, "measured")
    own = Perplexity(torch.tensor(measured["losses"], dtype=torch.float64))
    found |= {"loss": own.loss, "loss_error": own.loss_error, "samples": len(own.losses)}
    found |= {"calibration": measured["calibration"], "figures": measured["figures"]}
    if cell.name == "smollm2":
        found |= {"perplexity": own.value, "perplexity_error": own.error}
    wanda = _read(cell.beside("wanda"), "measured")
    if wanda and cell.method not in ("dense", "wanda"):
        other = Perplexity(torch.tensor(wanda["losses"], dtype=torch.float64))
        found["gain"], found["gain_error"] = own.gain(other)
    return found | {"pruned": _read(cell, "pruned"), "asked": _read(cell, "asked")}


def _table(rows: list[dict[str, Any]]) -> list[str]:
    figures = [name for name in rows[0]["figures"] if name != "loss"]
    tasks = list(next((row["asked"] for row in rows if row["asked"]), {}))
    language = "perplexity" in rows[0]
    titles = ["level", "method", "density", *(["perplexity"] if language else []), *figures]
    titles += ["test loss", "gain", "calibration", *(name.replace("_", " ") for name in tasks)]
    titles += ["minutes", "GB", "seed"]
    lines = ["| " + " | ".join(titles) + " |"]
    lines.append("| --- | --- |" + " ---: |" * (len(titles) - 2))
    for row in rows:
        pruned = row["pruned"]
        cells = [row["level"], NAMES.get(row["method"], row["method"])]
        cells.append(f"{pruned['density']:.4f}" if pruned else "1")
        if language:
            cells.append(_pm(row["perplexity"], row["perplexity_error"], 2))
        cells += [f"{row['figures'][name]:.2%}" for name in figures]
        cells.append(_pm(row["loss"], row["loss_error"], 4))
        cells.append(_pm(row["gain"], row["gain_error"], 4) if "gain" in row else "")
        cells.append(f"{row['calibration']:.4f}")
        for name in tasks:
            asked = row["asked"].get(name)
            cells.append(f"{asked['accuracy']:.2f} ± {asked['error']:.2f}" if asked else "")
        if pruned:
            cells += [f"{pruned['seconds'] / 60:.1f}", f"{pruned['peak_gigabytes']:.1f}"]
            cells.append(str(pruned["seed"]) if row["method"] == "icbs" else "")
        else:
            cells += ["", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _read(cell: Any, step: str) -> dict[str, Any]:
    file = cell.folder / f"{step}.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _pm(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}"
