"""Inputs that were thought of: bombs, claims without bytes, pipes and devices."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

#: ``make(scratch, corpus)`` writes an input and returns its path.
Make = Callable[[Path, Path], Path]


def safetensors(path: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> Path:
    """Write a safetensors file by hand, so that it may say anything."""
    header: dict[str, object] = {"__metadata__": metadata}
    content = b""
    for name, array in tensors.items():
        kind = {"uint8": "U8", "float32": "F32", "int64": "I64"}[array.dtype.name]
        ends = [len(content), len(content) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": ends}
        content += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def masks_of_30000_by_30000(scratch: Path, corpus: Path) -> Path:
    facts = {"format": "icbs-masks-1", "shapes": json.dumps({"a": [30000, 30000]}), "kept": "{}"}
    return safetensors(scratch / "m.safetensors", facts, {"a": np.zeros(8, np.uint8)})


def masks_of_huge_dimensions(scratch: Path, corpus: Path) -> Path:
    facts = {"format": "icbs-masks-1", "shapes": json.dumps({"a": [0, 1 << 40, 1 << 40, 1 << 40]})}
    return safetensors(scratch / "m.safetensors", facts, {"a": np.zeros(0, np.uint8)})


def masks_of_deep_json(scratch: Path, corpus: Path) -> Path:
    facts = {"format": "icbs-masks-1", "shapes": '{"a":' + "[" * 200_000}
    return safetensors(scratch / "m.safetensors", facts, {"a": np.zeros(8, np.uint8)})


def compressed_of_30000_by_30000(scratch: Path, corpus: Path) -> Path:
    masked = json.dumps({"a.weight": [30000, 30000]})
    facts = {"format": "icbs-compressed-1", "masked": masked, "same": "{}"}
    tensors = {"a.weight:bits": np.zeros(8, np.uint8), "a.weight:values": np.zeros(0, np.float32)}
    return safetensors(scratch / "c.safetensors", facts, tensors)


def yaml_bomb(scratch: Path, corpus: Path) -> Path:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return _text(scratch / "a.yaml", "\n".join([*lines, "task: *a11"]))


def yaml_deep(scratch: Path, corpus: Path) -> Path:
    return _text(scratch / "a.yaml", "pruner: " + "[" * 100_000)


def yaml_wide(scratch: Path, corpus: Path) -> Path:
    return _text(scratch / "a.yaml", "a: 1\n" * 30_000)


def yaml_with_code(scratch: Path, corpus: Path) -> Path:
    return _text(scratch / "a.yaml", "task: !!python/object/apply:os.system [exit 3]")


def yaml_naming_a_function(scratch: Path, corpus: Path) -> Path:
    return _text(scratch / "a.yaml", "task: os:abort")


def idx_bomb(scratch: Path, corpus: Path) -> Path:
    path = scratch / "bomb.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(struct.pack(">HBBI", 0, 8, 1, 1 << 30))
        for _ in range(1 << 10):
            file.write(bytes(1 << 20))
    return path


def idx_without_end(scratch: Path, corpus: Path) -> Path:
    path = scratch / "long.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(struct.pack(">HBBI", 0, 8, 1, 1000))
        for _ in range(1 << 10):
            file.write(bytes(1 << 20))
    return path


def pipe(scratch: Path, corpus: Path) -> Path:
    os.mkfifo(scratch / "pipe.jsonl")
    return scratch / "pipe.jsonl"


def zeros(scratch: Path, corpus: Path) -> Path:
    (scratch / "zeros.jsonl").symlink_to("/dev/zero")
    return scratch / "zeros.jsonl"


def pipe_in_a_folder(scratch: Path, corpus: Path) -> Path:
    folder = Path(shutil.copytree(corpus / "texts", scratch / "texts"))
    os.mkfifo(folder / "pipe.txt")
    (folder / "zeros.jsonl").symlink_to("/dev/zero")
    (folder / "folder.txt").mkdir()
    return folder


def _pipe_for(name: str) -> Make:
    def pipe_in_a_run(scratch: Path, corpus: Path) -> Path:
        run = Path(shutil.copytree(corpus / "run", scratch / "run"))
        (run / name).unlink()
        os.mkfifo(run / name)
        return run

    return pipe_in_a_run


def _zeros_for(name: str) -> Make:
    def zeros_in_a_run(scratch: Path, corpus: Path) -> Path:
        run = Path(shutil.copytree(corpus / "run", scratch / "run"))
        (run / name).unlink()
        (run / name).symlink_to("/dev/zero")
        return run

    return zeros_in_a_run


def _gguf(name: str, *parts: bytes) -> Make:
    def make(scratch: Path, corpus: Path) -> Path:
        path = scratch / "a.gguf"
        path.write_bytes(b"GGUF" + b"".join(parts))
        return path

    make.__name__ = name
    return make


def _u(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def _array(kind: int, count: int) -> bytes:
    return _u(1) + b"a" + struct.pack("<II", 9, kind) + _u(count)


VERSION = struct.pack("<I", 3)
GGUF = (
    _gguf("gguf_of_many_tensors", VERSION, _u(1 << 60, 0)),
    _gguf("gguf_of_many_entries", VERSION, _u(0, 1 << 60)),
    _gguf("gguf_of_a_long_array", VERSION, _u(0, 1), _array(0, 1 << 60)),
    _gguf("gguf_of_nested_arrays", VERSION, _u(0, 1), _array(9, 1), (b"\x09\0\0\0" + _u(1)) * 9999),
    _gguf("gguf_of_two_million_bytes", VERSION, _u(0, 1), _array(0, 1 << 21), bytes(1 << 21)),
    _gguf("gguf_empty"),
)


def gguf_of_many_layers(scratch: Path, corpus: Path) -> Path:
    return _set_in_gguf(scratch, corpus, b"llama.block_count", 1 << 30)


def gguf_of_wide_layers(scratch: Path, corpus: Path) -> Path:
    return _set_in_gguf(scratch, corpus, b"llama.feed_forward_length", 1 << 28)


def _set_in_gguf(scratch: Path, corpus: Path, key: bytes, value: int) -> Path:
    content = (corpus / "gguf" / "tiny.gguf").read_bytes()
    at = content.index(key) + len(key) + 4
    (scratch / "a.gguf").write_bytes(content[:at] + struct.pack("<I", value) + content[at + 4 :])
    return scratch / "a.gguf"


def _model_with(name: str, **changes: object) -> Make:
    def make(scratch: Path, corpus: Path) -> Path:
        folder = Path(shutil.copytree(corpus / "model", scratch / "model"))
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    make.__name__ = name
    return make


def text_not_in_utf8(scratch: Path, corpus: Path) -> Path:
    path = scratch / "a.txt"
    path.write_bytes("café".encode("latin-1"))
    return path


def json_lines(name: str, line: str) -> Make:
    def make(scratch: Path, corpus: Path) -> Path:
        return _text(scratch / "a.jsonl", line)

    make.__name__ = name
    return make


def history_of_huge_numbers(scratch: Path, corpus: Path) -> Path:
    run = Path(shutil.copytree(corpus / "run", scratch / "run"))
    lines = (run / "history.csv").read_text().splitlines()
    head, first = lines[0], lines[1].split(",")
    rows = []
    for value in ("1e308", "-1e308", "nan", "inf", "1e-320", "0"):
        own = dict(zip(head.split(","), first, strict=True))
        own |= {"predicted": value, "actual": value, "moved": "1", "accepted": "True"}
        rows.append(",".join(own.values()))
    (run / "history.csv").write_text("\n".join([*lines, *rows]) + "\n")
    return run


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


HOSTILE: tuple[tuple[str, Make], ...] = (
    *(("masks", make) for make in (masks_of_30000_by_30000, masks_of_huge_dimensions)),
    *(("masks", make) for make in (masks_of_deep_json, pipe, zeros)),
    *(("compressed", make) for make in (compressed_of_30000_by_30000, pipe, zeros)),
    *(
        ("settings", make)
        for make in (yaml_bomb, yaml_deep, yaml_wide, yaml_with_code, pipe, zeros)
    ),
    *(("icbs prune", make) for make in (yaml_bomb, yaml_deep, yaml_with_code)),
    ("icbs prune", yaml_naming_a_function),
    *(("idx", make) for make in (idx_bomb, idx_without_end, pipe, zeros)),
    *((f"texts {kind}", pipe) for kind in ("jsonl", "txt")),
    *((f"texts {kind}", zeros) for kind in ("jsonl", "txt")),
    ("texts folder", pipe_in_a_folder),
    ("texts txt", text_not_in_utf8),
    ("texts jsonl", json_lines("json_deep", "[" * 200_000)),
    ("texts jsonl", json_lines("json_list", "[1]")),
    ("texts jsonl", json_lines("json_surrogate", '{"text": "\\ud800"}')),
    ("texts jsonl", json_lines("json_long_number", '{"text": ' + "9" * 10_000 + "}")),
    *(("run manifest", _pipe_for(name)) for name in ("config.yaml", "manifest.json")),
    ("run manifest", _pipe_for("initial.safetensors")),
    *(("run manifest", _zeros_for(name)) for name in ("config.yaml", "manifest.json")),
    *(("run checkpoint", _pipe_for(name)) for name in ("checkpoint.safetensors", "history.csv")),
    *(("run checkpoint", _zeros_for(name)) for name in ("checkpoint.safetensors", "history.csv")),
    *(("icbs report", _pipe_for(name)) for name in ("history.csv", "evaluations.csv")),
    ("icbs report", history_of_huge_numbers),
    *(("icbs compress", _pipe_for(name)) for name in ("masks.safetensors", "model.safetensors")),
    *(("history", make) for make in (pipe, zeros)),
    *(("cached model", make) for make in (pipe, zeros)),
    *(("gguf", make) for make in (*GGUF, gguf_of_many_layers, gguf_of_wide_layers)),
    ("model config", _model_with("model_of_many_layers", num_hidden_layers=1 << 30)),
    ("model config", _model_with("model_of_wide_layers", intermediate_size=1 << 30)),
    ("model config", _model_with("model_with_code", auto_map={"AutoModelForCausalLM": "a.B"})),
)
