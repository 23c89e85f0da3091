"""The language-model task, from the command line to a folder for ``from_pretrained``."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from icbs import DataError, load_masks
from icbs.cli import app
from icbs.lm import load_language_model
from icbs.zoo import load_task
from tests.icbs.language import make_texts, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and a file of texts."""
    where = tmp_path_factory.mktemp("language")
    save(where / "model")
    lines = [json.dumps({"text": text}) for text in make_texts(200)]
    (where / "texts.jsonl").write_text("\n".join(lines))
    return where


def options(folder, **more):
    own = {"model": str(folder / "model"), "text": str(folder / "texts.jsonl"), "length": 24}
    return own | more


def tokens_of(task):
    return torch.cat([labels for _, labels in task.batches])


def test_windows_for_pruning_and_for_testing_are_disjoint(folder):
    task = load_task("language_model", **options(folder, samples=50, test_samples=9))
    windows = tokens_of(task)
    assert windows.shape == (50, 24)
    figures = task.evaluate(task.model)
    assert figures["perplexity"] == pytest.approx(torch.tensor(figures["loss"]).exp().item())
    assert 0 < figures["perplexity_standard_error"] < figures["perplexity"] / 10
    assert 0 < figures["loss_standard_error"] < 0.1
    decoded = [task.tokenizer.decode(window) for window in windows]
    # Each text begins with a number of its own.
    starts = [text.split(" ")[0] for text in decoded]
    assert len(set(starts)) == 50
    assert task.about == "50 windows of 24 tokens for pruning, 9 for testing"


def test_test_texts_are_disjoint_from_those_for_pruning(folder, tmp_path):
    other = tmp_path / "other.jsonl"
    shared, fresh = make_texts(200)[:20], ["x" * 30]
    other.write_text("\n".join(json.dumps({"text": t}) for t in shared + fresh))
    task = load_task("language_model", **options(folder, test_text=str(other)))
    assert task.about.endswith("1 for testing")
    other.write_text("\n".join(json.dumps({"text": t}) for t in shared))
    with pytest.raises(DataError, match="overlaps with those of"):
        load_task("language_model", **options(folder, test_text=str(other)))


def test_a_cut_model_keeps_its_first_blocks(folder):
    task = load_task("language_model", **options(folder, layers=1))
    assert len(task.model.model.layers) == 1
    assert task.model.config.num_hidden_layers == 1
    task.evaluate(task.model)
    with pytest.raises(DataError, match="layers = 3: the model has 2 decoder blocks"):
        load_task("language_model", **options(folder, layers=3))


def icbs(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


FLAGS = ["--density", 0.5, "--passes", 4, "--set", "block_size=64", "--set", "initial=wanda"]


def test_from_a_folder_to_a_folder(folder, tmp_path):
    run = tmp_path / "run"
    base = ["--model", folder / "model", "--text", folder / "texts.jsonl"]
    result = icbs("prune", *base, "--length", 24, "--samples", 60, *FLAGS, "--run", run)
    assert result.exit_code == 0, result.output
    assert "60 windows of 24 tokens for pruning" in result.output
    masks = load_masks(run / "masks.safetensors")
    assert len(masks) == 14  # seven linear layers a block; never embeddings and head
    model, tokenizer = load_language_model(run / "pretrained")
    dense, _ = load_language_model(folder / "model")
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert torch.equal(weight, dense.get_submodule(name).weight * mask)
    assert torch.equal(model.lm_head.weight, dense.lm_head.weight)
    assert tokenizer.eos_token == "<end>"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["loss"] < summary["initial_loss"]
    assert summary["density"] == pytest.approx(0.5, abs=1e-3)

    result = icbs("compress", run)
    assert result.exit_code == 0, result.output
    assert "density of the masks 0.5000" in result.output
    again = tmp_path / "again"
    shutil.copytree(run / "pretrained", again)
    (again / "model.safetensors").unlink()
    result = icbs("expand", run / "compressed.safetensors", again / "model.safetensors")
    assert result.exit_code == 0, result.output
    copy, _ = load_language_model(again)
    for name, value in model.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--length", "500"], "the model allows at most 128 tokens"),
        (["--length", "100", "--text", "{folder}/short.txt"], "shorter than one window of 100"),
        (["--text", "absent.txt"], "text 'absent.txt' is not a file"),
        (["--model", "no/such-model"], "'no/such-model' can't be loaded"),
        (["--task", "garment"], "don't apply to the task 'garment'"),
    ],
)
def test_bad_input_is_one_clear_line(folder, tmp_path, arguments, match):
    (folder / "short.txt").write_text("a red fox\n\na slow hen")
    words = [a.format(folder=folder) for a in arguments]
    run = tmp_path / "run"
    base = ["--model", folder / "model", "--text", folder / "texts.jsonl", "--length", 24]
    result = icbs("prune", *base, *words, "--run", run)
    assert result.exit_code == 2
    assert match in " ".join(result.output.split())
    assert not run.exists()
