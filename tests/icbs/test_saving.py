"""Files of masks and compressed models: deterministic, with damage detected."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from icbs import RunFolderError, load_compressed, load_masks, save_compressed, save_masks
from icbs.errors import UncheckedFileWarning
from icbs.export.digests import contents_of, json_digest, tensors_digest
from icbs.export.masks import pack_bits

SHAPES = {"first": (9, 7), "second": (4, 3, 2), "last.one": (1, 1)}


def make_masks(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) < 0.4 for name, shape in SHAPES.items()}


def make_state(masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = {
        f"{name}.weight": torch.randn(mask.shape, generator=generator) * mask
        for name, mask in masks.items()
    }
    return weights | {"bias": torch.randn(5, generator=generator), "tied": weights["first.weight"]}


WRITE = """
import sys
from icbs import save_compressed, save_masks
from tests.icbs.test_saving import make_masks, make_state
masks = dict(sorted(make_masks().items(), reverse=len(sys.argv) > 3))
save_masks(masks, sys.argv[1])
save_compressed(make_state(make_masks()), masks, sys.argv[2])
"""


def test_equal_masks_give_equal_files(tmp_path):
    """Byte for byte, in any process and for any order of layers."""
    found = set()
    for seed, more in (("0", []), ("1", []), ("2", ["turned"])):
        paths = [str(tmp_path / f"{seed}.masks"), str(tmp_path / f"{seed}.model")]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", WRITE, *paths, *more], env=environment, check=True)
        found.add(tuple(Path(path).read_bytes() for path in paths))
    assert len(found) == 1


def same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(map(same, a, b))
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
    )


@pytest.mark.parametrize("kind", ["masks", "compressed"])
def test_every_flipped_bit_is_detected(tmp_path, kind):
    path = tmp_path / "file"
    masks = make_masks()
    load: Callable[[Path], Any]
    if kind == "masks":
        save_masks(masks, path)
        load = load_masks
    else:
        save_compressed(make_state(masks), masks, path)
        load = load_compressed
    content, whole = path.read_bytes(), load(path)
    draw = random.Random(0)
    # Half of them in the tensors, which are a small part of so small a file.
    start = 8 + int.from_bytes(content[:8], "little")
    bits = [draw.randrange(8 * start) for _ in range(150)]
    bits += [draw.randrange(8 * start, 8 * len(content)) for _ in range(150)]
    refused = 0
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert same(load(path), whole), bit
        except RunFolderError:
            refused += 1
    assert refused > 280  # what is left is white space


def test_masks_of_another_count_are_refused(tmp_path):
    """A file with a matching digest and a wrong header."""
    tensors = {"layer": pack_bits(torch.ones(3, 3, dtype=torch.bool))}
    facts = {"format": "icbs-masks-2", "shapes": {"layer": [3, 3]}, "kept": {"layer": 8}}
    refuse(tmp_path, tensors, facts, "keeps 9 weights, but its header says 8")
    facts = facts | {"shapes": {"layer": [3, 6]}, "kept": {"layer": 9}}
    refuse(tmp_path, tensors, facts, "takes 3 bytes, but the file has")


def refuse(folder: Path, tensors: dict[str, torch.Tensor], facts: Any, match: str) -> None:
    sealed = facts | {"digest": tensors_digest(facts, tensors)}
    save_file(tensors, folder / "file", {"icbs": json.dumps(sealed)})
    with pytest.raises(RunFolderError, match=match):
        load_masks(folder / "file")


def test_files_of_the_first_format_are_read_with_a_warning(tmp_path):
    masks = make_masks()
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    header = {"format": "icbs-masks-1", "shapes": json.dumps(shapes), "kept": json.dumps(kept)}
    save_file({name: pack_bits(mask) for name, mask in masks.items()}, tmp_path / "masks", header)
    with pytest.warns(UncheckedFileWarning, match="save it again"):
        assert same(load_masks(tmp_path / "masks"), masks)
    weight = torch.randn(9, 7) * masks["first"]
    arrays = {
        "first.weight:bits": pack_bits(masks["first"]),
        "first.weight:values": weight[masks["first"]],
    }
    header = {
        "format": "icbs-compressed-1",
        "masked": json.dumps({"first.weight": [9, 7]}),
        "same": json.dumps({"tied": "first.weight"}),
    }
    save_file(arrays, tmp_path / "model", header)
    with pytest.warns(UncheckedFileWarning, match="save it again"):
        state, found = load_compressed(tmp_path / "model")
    assert same(found, {"first": masks["first"]})
    assert same(state, {"first.weight": weight, "tied": weight})
    # One value for many weights would be broadcast.
    arrays["first.weight:values"] = weight[masks["first"]][:1]
    save_file(arrays, tmp_path / "model", header)
    with (
        pytest.warns(UncheckedFileWarning),
        pytest.raises(RunFolderError, match="has 1 values for"),
    ):
        load_compressed(tmp_path / "model")


def test_files_of_a_later_format_are_refused_by_name(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "file", {"icbs": '{"format": "icbs-masks-9"}'})
    with pytest.raises(RunFolderError, match="'icbs-masks-2', but 'icbs-masks-9'; it is of anoth"):
        load_masks(tmp_path / "file")


def test_other_tools_can_read_the_header(tmp_path):
    save_masks(make_masks(), tmp_path / "masks")
    with safe_open(tmp_path / "masks", framework="np") as file:
        header = json.loads(file.metadata()["icbs"])
    assert header["format"] == "icbs-masks-2"
    assert header["shapes"] == {name: list(shape) for name, shape in SHAPES.items()}
    assert header["kept"] == {name: int(mask.sum()) for name, mask in make_masks().items()}


def test_an_error_of_writing_names_the_path(tmp_path):
    with pytest.raises(RunFolderError, match="nowhere/masks can't be written.*does not exist"):
        save_masks(make_masks(), tmp_path / "nowhere" / "masks")
    masks = {"layer": torch.ones(1000, 1000, dtype=torch.bool)}
    save_masks(make_masks(), tmp_path / "masks")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(RunFolderError, match="masks can't be written.*File too large"):
            save_masks(masks, tmp_path / "masks")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert same(load_masks(tmp_path / "masks"), make_masks())
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"b": t["a"]},
        lambda t: {"a": t["a"].view(2, 3)},
        lambda t: {"a": t["a"].view(torch.int32)},
        lambda t: t | {"b": torch.empty(0)},
        lambda t: {"a": -t["a"]},  # of zeros, the sign alone
    ],
)
def test_a_digest_is_of_names_types_shapes_and_bits(change):
    tensors = {"a": torch.zeros(6)}
    assert tensors_digest({"x": 1}, tensors) != tensors_digest({"x": 1}, change(tensors))
    assert tensors_digest({"x": 1}, tensors) != tensors_digest({"x": 2}, tensors)


def test_digests_do_not_depend_on_the_order_of_keys_or_strides():
    assert json_digest({"a": 1, "b": (2, float("nan"))}) == json_digest(
        {"b": [2, float("nan")], "a": 1}
    )
    tensor = torch.arange(6, dtype=torch.int16).view(2, 3)
    assert bytes(contents_of(tensor.T)) == bytes([0, 0, 3, 0, 1, 0, 4, 0, 2, 0, 5, 0])
    assert bytes(contents_of(torch.tensor(True))) == b"\x01"
    assert bytes(contents_of(torch.empty(0, 3))) == b""
