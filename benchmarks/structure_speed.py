"""Wall time of a sentence encoder at half of its MACs, dense against cut, in one run.

Half of the heads and half of the neurons of each layer are cut from all-MiniLM-L6-v2 (``icbs
fetch minilm``); which ones doesn't matter for speed. Models are called in turn. Writes a Markdown
table to ``benchmarks/results/structure_speed.md``.

    python benchmarks/structure_speed.py --threads 1 2
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from icbs.structure import cut, find_dimensions
from icbs.structure.counts import count
from icbs.structure.latency import latencies, model_latencies
from icbs.structure.onnx_files import OnnxModel, export_onnx

RESULTS = Path(__file__).parent / "results" / "structure_speed.md"


def encoder() -> nn.Module:
    """Return the encoder with a classifier of two classes."""
    from transformers import BertForSequenceClassification

    from icbs.zoo.sarcasm import encoder_folder

    return BertForSequenceClassification.from_pretrained(encoder_folder(), num_labels=2).eval()


def halved(model: nn.Module, inputs: dict[str, Tensor]) -> nn.Module:
    """Cut every second head and neuron."""
    dimensions = find_dimensions(model, inputs)
    kept = {one.name: torch.arange(one.groups) % 2 == 0 for one in dimensions}
    return cut(model, dimensions, kept)


def rows(
    model: nn.Module, small: nn.Module, length: int, batch: int, rounds: int, folder: Path
) -> Iterator[str]:
    """Yield rows of the table for calls of one size."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(30_000, (batch, length), generator=generator)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    share = count(small, inputs).macs / count(model, inputs).macs
    found = {"PyTorch": model_latencies({"dense": model, "cut": small}, inputs, rounds)}
    for name, one in (("dense", model), ("cut", small)):
        export_onnx(one, inputs, folder / f"{name}.onnx")  # of this length
    sessions = {name: OnnxModel(folder / f"{name}.onnx") for name in ("dense", "cut")}
    calls = {name: (lambda run=run: run(inputs)) for name, run in sessions.items()}
    found["ONNX Runtime"] = latencies(calls, rounds)
    for runtime, seconds in found.items():
        dense, less = (1e3 * seconds[name] for name in ("dense", "cut"))
        yield (
            f"| {runtime} | {torch.get_num_threads()} | {batch} × {length} | {share:.3f} "
            f"| {dense:.1f} | {less:.1f} | {dense / less:.2f}× |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    model = encoder()
    small = halved(model, {"input_ids": torch.randint(30_000, (1, 8))})
    lines = [
        "# Speed of a cut encoder",
        "",
        "all-MiniLM-L6-v2 without every second head and neuron: "
        f"{sum(p.numel() for p in small.parameters()):,} of "
        f"{sum(p.numel() for p in model.parameters()):,} parameters. Medians of {options.rounds} "
        f"calls in turn, torch {torch.__version__}, {platform.machine()}, a busy machine: compare "
        "times within a row alone. Written by `benchmarks/structure_speed.py`.",
        "",
        "| runtime | threads | samples × tokens | MACs, share | dense, ms | cut, ms | speed-up |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            torch.set_num_threads(threads)
            for length in options.lengths:
                lines += rows(model, small, length, options.batch, options.rounds, Path(folder))
    options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
