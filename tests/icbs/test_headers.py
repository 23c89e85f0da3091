"""Headers of masks, compressed models and run folders: wrong types and false sizes."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from icbs import (
    LayerError,
    Pruner,
    RunFolderError,
    apply_masks,
    check_pattern,
    hold_masks,
    load_compressed,
    load_masks,
    save_compressed,
    save_masks,
    to_torch_pruning,
)
from icbs.export.digests import json_digest, tensors_digest
from icbs.export.safetensors_files import KEY
from icbs.report.evaluations import Evaluation, read_evaluations, write_evaluations
from tests.icbs.conftest import make_toy

MASKS = {"a": torch.tensor([[True, False, True], [False, True, True]]), "b": torch.ones(4) > 0}
SETTINGS = {"density": 0.3, "block_size": 32, "passes": 2, "solver": "diagonal"}


def facts_of(path: Path) -> dict[str, Any]:
    """Read the facts in a file's header, without their digest."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()[KEY])
    del facts["digest"]
    return facts


def seal(path: Path, facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write a file with a matching digest, as an attacker would."""
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    content = facts | {"digest": tensors_digest(facts, tensors)}
    save_file(tensors, path, {KEY: json.dumps(content)})


def claim(path: Path, entry: str, value: Any) -> None:
    """Set a fact of a header."""
    seal(path, facts_of(path) | {entry: value}, load_file(path))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    save_masks(MASKS, tmp_path / "masks.safetensors")
    return tmp_path / "masks.safetensors"


@pytest.mark.parametrize(
    ("entry", "value", "match"),
    [
        ("shapes", {"a": [30000, 30000]}, "shape .30000, 30000. takes 112500000 bytes"),
        ("shapes", {"a": [1 << 62, 4]}, r"shapes\.a\.0"),
        ("shapes", {"a": [-2, -3]}, r"shapes\.a\.0 = -2"),
        ("shapes", {"a": ["2", "3"]}, r"shapes\.a\.0 = '2'"),
        ("shapes", {"a": [2.0, 3]}, r"shapes\.a\.0 = 2\.0"),
        ("shapes", {"a": [True, 3]}, r"shapes\.a\.0 = True"),
        ("shapes", {"a": None}, r"shapes\.a = None"),
        ("shapes", {"a": [1] * 30}, r"shapes\.a"),
        ("shapes", {"a": [2, 2]}, r"takes 1 bytes|keeps [0-9] weights, but"),
        ("shapes", {"c": [2, 3]}, "c"),
        ("shapes", [1, 2], r"shapes = \[1, 2\]"),
        ("shapes", "{", "shapes"),
        ("shapes", "[" * 100_000, "shapes"),
        ("kept", {"a": "4"}, r"kept\.a = '4'"),
        ("kept", {"a": 3}, "keeps 4 weights, but its header says 3"),
        ("kept", {"c": 3}, "c"),
        ("format", "icbs-masks-0", "is not a mask file"),
    ],
)
def test_masks(masks, entry, value, match):
    claim(masks, entry, value)
    with pytest.raises(RunFolderError, match=match):
        load_masks(masks)


def test_masks_without_a_header_or_of_another_type(masks, tmp_path):
    facts = facts_of(masks)
    del facts["shapes"]
    seal(masks, facts, load_file(masks))
    with pytest.raises(RunFolderError, match="shapes"):
        load_masks(masks)
    facts = {"format": "icbs-masks-2", "shapes": {"a": [2, 3]}}
    for bits in (torch.zeros(1), torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(1).half()):
        seal(tmp_path / "b.safetensors", facts, {"a": bits})
        with pytest.raises(RunFolderError, match="takes 1 bytes, but the file has"):
            load_masks(tmp_path / "b.safetensors")


def test_declared_sizes_are_checked_before_allocation(masks):
    claim(masks, "shapes", {"a": [30000, 30000]})
    assert masks.stat().st_size < 500
    tracemalloc.start()
    with pytest.raises(RunFolderError):
        load_masks(masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    state = {"a.weight": torch.randn(2, 3) * MASKS["a"], "a.bias": torch.ones(2)}
    state["tied"] = state["a.bias"]
    save_compressed(state, {"a": MASKS["a"]}, tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize(
    ("entry", "value", "match"),
    [
        ("masked", {"a.weight": [30000, 30000]}, "takes 112500000 bytes"),
        ("masked", {"a.weight": "2"}, r"masked\.a\.weight"),
        ("masked", {"a": [2, 3]}, "only the weight of a layer can be masked"),
        ("masked", 3, "masked = 3"),
        ("same", {"tied": "nothing"}, "nothing"),
        ("same", {"tied": 3}, r"same\.tied = 3"),
        ("same", {"a.bias": "a.bias"}, "'a.bias' is tied but has its own values"),
        ("same", {"a.weight": "a.bias"}, "is tied but has its own values"),
        ("same", "no", "same"),
    ],
)
def test_compressed_models(compressed, entry, value, match):
    claim(compressed, entry, value)
    with pytest.raises(RunFolderError, match=match):
        load_compressed(compressed)


def test_the_number_of_values_must_match_the_mask(compressed):
    tensors, facts = load_file(compressed), facts_of(compressed)
    for values in (torch.ones(3), torch.ones(5), torch.ones(2, 2), torch.tensor(1.0)):
        seal(compressed, facts, tensors | {"a.weight:values": values})
        with pytest.raises(RunFolderError, match=r"'a.weight' has .* values"):
            load_compressed(compressed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy, run = make_toy(), tmp_path_factory.mktemp("finished") / "run"
    Pruner(**SETTINGS).prune(toy.model, toy.batches, toy.loss, run=run, about={"mine": [1]})
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resume(run: Path) -> Any:
    toy = make_toy()
    return Pruner.resume(run, toy.model, toy.batches, toy.loss)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("settings", 3), ("settings", None), ("model", ["a"]), ("samples", {}), ("versions", "1"),
        ("versions", {"torch": 2}), ("about", [1]), ("about", None), ("plan", 3), ("plan", {}),
        ("plan", {"batch_size": "4", "samples": 1, "remember": True, "limit": 0, "parts": {}}),
        ("plan", {"batch_size": 0, "samples": 1, "remember": True, "limit": 0, "parts": {}}),
        ("plan", {"batch_size": 1, "samples": 1, "remember": 1, "limit": 0, "parts": {}}),
    ],
)  # fmt: skip
def test_manifests(run, entry, value):
    manifest = json.loads((run / "manifest.json").read_text()) | {entry: value}
    del manifest["digest"]
    manifest["digest"] = json_digest(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match=rf"manifest\.json is damaged: .*{entry}"):
        resume(run)


@pytest.mark.parametrize("text", ["3", "[]", "null", "", "[" * 100_000, '{"a":' * 100_000, "\xff"])
def test_manifests_that_are_not_objects(run, text):
    (run / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunFolderError, match=r"manifest\.json is damaged"):
        resume(run)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("step", "2"), ("step", -1), ("step", 2.5), ("step", None), ("samples_seen", -1),
        ("history", {"rows": [1], "size": 3, "digest": ""}), ("history", 3), ("manifest", 3),
        ("kept", {}), ("kept", {"0": {"current": -1, "best": 1}}),
        ("seconds", -1.0), ("seconds", float("inf")), ("initial_loss", "x"), ("best_loss", None),
        ("acceptance", [1]), ("acceptance", {"damping": [1], "warned": False}),
        ("acceptance", {"damping": {"0": -1.0}, "warned": False}),
        ("acceptance", {"damping": {"0": "1"}, "warned": False}),
        ("acceptance", {"damping": {"0": float("nan")}, "warned": False}),
        ("acceptance", {"damping": {"0": 1.0}, "warned": 0}),
        ("acceptance", {"damping": {"0": 1.0}}), ("start_seconds", -1.0),
        ("visits", {"0": 1.5}), ("visits", {"0": 1 << 40}), ("visits", {}),
        ("samples_seen", 1 << 70),
    ],
)  # fmt: skip
def test_facts_of_a_checkpoint(run, fact, value):
    claim(run / "checkpoint.safetensors", fact, value)
    with pytest.raises(RunFolderError, match=r"checkpoint\.safetensors is not a readable"):
        resume(run)


def test_tensors_of_a_checkpoint_have_types_too(run):
    path = run / "checkpoint.safetensors"
    tensors, facts = load_file(path), facts_of(path)
    for name, value in {
        "stamp/0": torch.zeros(240, dtype=torch.int64),
        "stamp/2": torch.zeros(3, dtype=torch.int32),
        "current/0": torch.zeros(3, dtype=torch.uint8),
        "current-weights/0": torch.zeros(3),
        "best-weights/2": torch.zeros(16, 20, dtype=torch.float64),
        "best-weights/4": torch.full((4, 16), float("nan")),
        "best/4": torch.zeros(8),
        "generator": torch.zeros(5056),
    }.items():
        seal(path, facts, tensors | {name: value})
        with pytest.raises(RunFolderError, match="is not a readable checkpoint"):
            resume(run)


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "manifest.json", "checkpoint.safetensors", "history.csv"],
)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_not_opened(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(RunFolderError, match="is a pipe, socket or device"):
        resume(run)
    (run / name).unlink()
    (run / name).symlink_to("/dev/zero")
    with pytest.raises(RunFolderError, match="is a pipe, socket or device"):
        resume(run)


def test_evaluations_with_other_figures_are_kept(tmp_path):
    """For a resumed run whose task has other figures."""
    rows = [Evaluation(1, 0.5, {"loss": 1.0, "old": 2.0}), Evaluation(2, 1.0, {"loss": 0.5})]
    write_evaluations(rows, tmp_path / "a.csv")
    again = read_evaluations(tmp_path / "a.csv")
    assert [row.figures["loss"] for row in again] == [1.0, 0.5]
    assert again[0].figures["old"] == 2.0
    (tmp_path / "a.csv").write_text('step,seconds\n"' + "x" * 200_000 + '",1\n')
    with pytest.raises(RunFolderError, match="not a readable table"):
        read_evaluations(tmp_path / "a.csv")


def layer(**changes: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2))
    for name, value in changes.items():
        setattr(model[0], name, nn.Parameter(value, requires_grad=False))
    return model


MASK = {"0": MASKS["a"]}
with warnings.catch_warnings(action="ignore"):  # torch gives quantised tensors up
    QUANTISED = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize("use", [apply_masks, hold_masks, to_torch_pruning])
@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (torch.empty(2, 3, device="meta"), "'0' has its weights on the meta device"),
        (QUANTISED, "'0' has quantised weights"),
        (torch.ones(2, 3).to_sparse(), "'0' has weights that are sparse"),
    ],
)
def test_weights_without_values_are_refused(use, weight, match):
    with pytest.raises(LayerError, match=match):
        use(layer(weight=weight), MASK)


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (torch.empty(2, 3, dtype=torch.bool, device="meta"), "on the meta device"),
        (MASKS["a"].to_sparse(), "sparse"),
        (MASKS["a"].float(), "torch.float32"),
        (QUANTISED, "qint8"),
        (MASKS["a"].numpy(), "is ndarray; it must be a dense tensor"),
        (None, "is NoneType; it must be a dense tensor"),
    ],
)
def test_masks_that_are_not_plain_tensors_of_bools(tmp_path, mask, match):
    state = {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(2)}
    for use in (
        lambda: save_masks({"0": mask}, tmp_path / "m"),
        lambda: apply_masks(layer(), {"0": mask}),
        lambda: save_compressed(state, {"0": mask}, tmp_path / "c"),
        lambda: check_pattern({"0": mask}),
    ):
        with pytest.raises(LayerError, match=f"the mask of '0' .*{match}"):
            use()
    with pytest.raises(LayerError, match="3 is not a name"):
        save_masks({3: MASKS["a"]}, tmp_path / "m")  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.empty(2, device="meta"), "meta"),
        (QUANTISED, "quantised"),
        (MASK, "is dict instead of a tensor"),
    ],
)
def test_states_that_can_not_be_compressed(tmp_path, value, match):
    state = {"0.weight": torch.zeros(2, 3), "other": value}
    with pytest.raises(LayerError, match=f"'other' of the state .*{match}"):
        save_compressed(state, MASK, tmp_path / "c")
    with pytest.raises(LayerError, match="the weight of '0' is quantised"):
        save_compressed({"0.weight": QUANTISED}, MASK, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
