"""``icbs cut`` writes the small model of a run of groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from icbs.cli import app
from icbs.errors import RunFolderError
from icbs.structure import load_cut, load_kept
from icbs.structure.kept import GROUPS
from icbs.structure.onnx_files import OnnxModel
from icbs.zoo import Task
from tests.icbs.conftest import make_toy


def load() -> Task:
    """A user's task, named as ``tests.icbs.test_cut_command:load``."""
    toy = make_toy()
    x, y = toy.samples

    @torch.no_grad()
    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        return {"loss": float(toy.loss(model(x), y))}

    return Task("toy", toy.model, toy.batches, toy.loss, evaluate)


NAME = "tests.icbs.test_cut_command:load"


def icbs(*words: object) -> str:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    return runner.invoke(app, [str(word) for word in words], catch_exceptions=False).output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut") / "run"
    icbs("prune", "--task", NAME, "--groups", "neurons", "--density", "0.5", "--passes", "0",
         "--run", folder)  # fmt: skip
    return folder


def test_the_small_model_computes_what_the_pruned_one_does(run: Path, tmp_path: Path) -> None:
    shown = icbs("cut", run, "--task", NAME, "--out", tmp_path)
    assert "parameters" in shown
    assert "MACs of a call" in shown
    dimensions, kept = load_kept(run)
    assert {d.kind for d in dimensions} == {"neurons"}
    task = load()
    masked = load().model
    masked.load_state_dict(load_file(run / "model.safetensors"))
    small = load_cut(task.model, tmp_path)
    inputs = torch.randn(5, next(task.model.parameters()).shape[1])
    assert (small(inputs) - masked(inputs)).abs().max() <= 1e-5
    for dimension in dimensions:
        left = int(kept[dimension.name].sum())
        assert small.get_submodule(dimension.writers[0].module).out_features == left
    count = sum(p.numel() for p in small.parameters())
    assert f"{count:,}" in shown


def test_onnx_and_latencies(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "small.onnx"
    shown = icbs("cut", run, "--task", NAME, "--out", tmp_path, "--onnx", file, "--measure")
    assert "PyTorch, a call" in shown
    assert "ONNX Runtime, a call" in shown
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["small.onnx"]
    task = load()
    inputs = torch.randn(3, next(task.model.parameters()).shape[1])
    expected = load_cut(task.model, tmp_path)(inputs)
    assert (OnnxModel(file)(inputs) - expected).abs().max() <= 1e-4


def test_a_run_of_single_weights_has_no_groups(tmp_path: Path) -> None:
    icbs("prune", "--task", NAME, "--density", "0.5", "--passes", "0", "--run", tmp_path / "run")
    shown = icbs("cut", tmp_path / "run", "--task", NAME)
    assert "has no groups that can be cut; prune with --groups" in " ".join(shown.split())
    with pytest.raises(RunFolderError, match="not a readable file of kept groups"):
        load_kept(tmp_path / "run")


@pytest.mark.parametrize(
    "command",
    [
        ("search", "--max-loss-increase", "5", "--low", "0.4", "--high", "0.6"),
        ("prune", "--density", "0.5", "--steps", "2"),
    ],
)
def test_runs_of_a_search_and_of_steps_are_cut_too(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    options = ("--task", NAME, "--groups", "neurons", "--set", "passes=0")
    icbs(*command, *options, "--run", tmp_path / "outer")
    folders = [path for path in (tmp_path / "outer").iterdir() if (path / GROUPS).exists()]
    assert folders
    for folder in folders:
        assert "small model in" in icbs("cut", folder, "--task", NAME)
        small = load_cut(load().model, folder / "cut")
        masked = load().model
        masked.load_state_dict(load_file(folder / "model.safetensors"))
        inputs = torch.randn(5, next(masked.parameters()).shape[1])
        assert (small(inputs) - masked(inputs)).abs().max() <= 1e-5


class FixedSize(torch.nn.Module):
    """A convolution whose outputs are flattened to a fixed size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.Linear(96, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.first(x).relu().view(-1, 96))


def load_fixed() -> Task:
    torch.manual_seed(0)
    x, y = torch.randn(40, 1, 4, 4), torch.randint(3, (40,))
    return Task("fixed", FixedSize(), [(x, y)], torch.nn.CrossEntropyLoss(), lambda _: {})


def test_a_model_that_can_not_run_when_it_is_cut_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such dimensions are left whole; runs of earlier releases may have pruned them."""
    task = ("--task", "tests.icbs.test_cut_command:load_fixed")
    words = ("prune", *task, "--groups", "channels", "--density", "0.5", "--passes", "0", "--run")
    shown = icbs(*words, tmp_path / "refused")
    assert "no channels that can be cut; left whole: first channels" in " ".join(shown.split())
    monkeypatch.setattr("icbs.structure.trial._cut_problem", lambda *_: "")
    icbs(*words, tmp_path / "run")
    for samples in (1, 8):  # images of 3 of 6 channels are divided into half as many samples
        shown = icbs("cut", tmp_path / "run", *task, "--samples", samples, "--out", tmp_path / "o")
        assert "ModelError: the cut model" in shown
        assert "fixes a size" in shown
        assert "Traceback" not in shown
