"""``icbs search`` and ``icbs prune --steps`` as a user calls them."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from icbs.export.masks import load_masks
from icbs.zoo import Task
from tests.icbs import language
from tests.icbs.conftest import make_toy
from tests.icbs.test_cli import icbs

TASK = ("--task", "tests.icbs.test_command_search:load")
FAST = ("--set", "passes=3", "--set", "block_size=64")
pytestmark = pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")


def load() -> Task:
    """A user's task with test samples of its own."""
    toy = make_toy()
    x, y = toy.batches[-1]

    @torch.no_grad()
    def evaluate(model):
        outputs = model(x)
        right = (outputs.argmax(dim=1) == y).float().mean()
        return {"accuracy": float(right), "loss": float(toy.loss(outputs, y))}

    @torch.no_grad()
    def correct(model):
        return model(x).argmax(dim=1) == y

    return Task("toy", toy.model, toy.batches[:-1], toy.loss, evaluate, correct=correct)


def words(result) -> str:
    return " ".join(result.output.split())


def test_a_search_prints_its_answer_and_is_continued_by_the_same_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("search", *TASK, "--max-accuracy-loss", "0.03", "--low", "0.2", *FAST)
    result = icbs(*command)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").iterdir()
    answer = json.loads((folder / "answer.json").read_text())
    assert f"density {answer['density']:g} meets the target accuracy loss ≤ 3.00%" in words(result)
    assert "judged on the test samples of the task toy, which pruning did not see" in words(result)
    assert f"{len(answer['points'])} densities tried" in words(result)
    point = next(p for p in answer["points"] if p["density"] == answer["density"])
    assert 0 < point["figures"]["loss"] < 2  # of the task's evaluation, where no sample has one
    (folder / "answer.json").unlink()
    again = icbs(*command)
    assert again.exit_code == 0, again.output
    assert json.loads((folder / "answer.json").read_text()) == answer  # seconds as well
    assert len(list((tmp_path / "runs").iterdir())) == 1
    shown = icbs("report", folder)
    assert shown.exit_code == 0, shown.output
    assert f"density {answer['density']:g} meets the target" in words(shown)
    assert "shows a single run" in words(shown)
    report = icbs("report", folder / "density-0.9")
    assert report.exit_code == 0, report.output


def test_other_methods_recovery_and_samples_held_out(tmp_path):
    folder = tmp_path / "s"
    result = icbs(
        *("search", *TASK, "--max-loss-increase", "0.5", "--method", "wanda", "--judge", "heldout"),
        *("--recover", "least-squares", "--low", "0.2", "--tolerance", "0.5", "--run", folder),
    )
    assert result.exit_code == 0, result.output
    assert "judged on 100 samples held out from the training samples" in words(result)
    assert (folder / "density-0.9" / "recovery" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no target is given"),
        (("--max-loss-increase", "0.1", "--min-accuracy", "0.5"), "may contradict each other"),
        (("--min-accuracy", "1"), "the dense model misses the target already"),
        (("--max-perplexity-ratio", "1.1"), "only language models have"),
        (("--max-accuracy-loss", "0", "--high", "0.1", "--method", "wanda"), "no density reaches"),
        (("--min-accuracy", "0.5", "--judge", "tset"), "did you mean 'test'"),
        (("--min-accuracy", "0.5", "--method", "wand"), "did you mean 'wanda'"),
        (("--min-accuracy", "0.5", "--set", "density=0.1"), "density is chosen by the search"),
        (("--min-accuracy", "0.5", "--recover", "distil"), "did you mean 'distill'"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, arguments, message):
    if "--min-accuracy" in arguments and "1" in arguments:
        task = ("--task", "tests.icbs.test_cli:load")  # whose dense model makes errors
    else:
        task = TASK
    result = icbs("search", *task, *arguments, "--low", "0.05", "--run", tmp_path / "s")
    assert result.exit_code == 2
    assert message in words(result)
    assert "Traceback" not in result.output


def test_a_search_needs_a_model():
    result = icbs("search", "--min-accuracy", "0.5")
    assert result.exit_code == 2
    assert "no model is given" in words(result)


def test_settings_of_a_file_are_those_of_prune(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("task: digits\nmethod: magnitude\n")
    target = ("--max-accuracy-loss", "0.03", "--low", "0.2", "--tolerance", "0.5")
    for option in ("--model", "--text"):
        refused = icbs("search", "--config", file, option, "x", *target, "--run", tmp_path / "r")
        assert refused.exit_code == 2
        assert "don't apply to the task 'digits'" in words(refused)
    result = icbs("search", "--config", file, *target, "--run", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "s" / "search.json").read_text())["method"] == "magnitude"
    again = icbs("search", "--config", file, "--dashboard", *target, "--run", tmp_path / "s")
    assert again.exit_code == 2
    assert "method magnitude has none" in words(again)
    file.write_text("task: digits\nsteps: 3\n")
    steps = icbs("search", "--config", file, *target, "--run", tmp_path / "r")
    assert steps.exit_code == 2
    assert "leave the steps out" in words(steps)
    assert not (tmp_path / "r").exists()


def test_prune_in_steps(tmp_path):
    run = tmp_path / "r"
    command = (
        *("prune", *TASK, "--density", "0.3", "--passes", "4", "--steps", "2"),
        *("--decay", "linear", "--recover", "least-squares", "--run", run),
    )
    result = icbs(*command, "--set", "block_size=64")
    assert result.exit_code == 0, result.output
    assert re.search(r"dense .* density 0\.6506 .* density 0\.2997 ", words(result))  # what is kept
    assert "density 0.2997" in words(result)
    again = icbs(*command, "--set", "block_size=64")
    assert again.exit_code == 0, again.output
    state = load_file(run / "step-2" / "recovery" / "model.safetensors")
    assert int(sum(state[f"{n}.weight"].count_nonzero() for n in ("0", "2", "4"))) == 187


def counted_load() -> Task:
    """The task, which counts the figures of each model."""
    task, calls = load(), []
    judge = task.correct

    def evaluate(model):
        calls.append("evaluate")
        return load().evaluate(model)

    def correct(model):
        calls.append("correct")
        return judge(model)

    COUNTS.append(calls)
    return Task("toy", task.model, task.batches, task.loss, evaluate, correct=correct)


COUNTS: list[list[str]] = []


def test_the_dense_model_is_measured_once(tmp_path):
    COUNTS.clear()
    result = icbs(
        "search", "--task", "tests.icbs.test_command_search:counted_load", "--method", "magnitude",
        "--min-accuracy", "0.01", "--low", "0.5", "--run", tmp_path / "s",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    points = len(list((tmp_path / "s").glob("density-*")))
    [calls] = COUNTS
    assert calls.count("evaluate") == calls.count("correct") == 1 + points


def test_prune_by_another_method(tmp_path):
    run = tmp_path / "r"
    result = icbs("prune", *TASK, "--method", "sparsegpt", "--density", "0.3", "--run", run)
    assert result.exit_code == 0, result.output
    assert "sparsegpt, density 0.29" in words(result)


def test_prune_to_a_pattern_by_another_method(tmp_path):
    run = tmp_path / "r"
    pattern = ("--set", "constraint=2:4", "--run", run)
    result = icbs("prune", *TASK, "--method", "wanda", *pattern)
    assert result.exit_code == 0, result.output
    for mask in load_masks(run / "masks.safetensors").values():
        assert (mask.reshape(-1, 4).sum(1) == 2).all()
    result = icbs("prune", *TASK, "--method", "wanda", "--steps", "2", *pattern)
    assert result.exit_code == 2
    assert "fixes the density at 0.5" in words(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0.5,0.4", "--density", "0.3"), "ends at density 0.4"),
        (("--steps", "many"), "give a number, such as 5"),
        (("--steps", "3", "--decay", "line"), "did you mean 'linear'"),
        (("--steps", "3", "--enumerate"), "leave out --steps"),
        (("--method", "wonda"), "did you mean 'wanda'"),
    ],
)
def test_wrong_steps_are_one_line(tmp_path, arguments, message):
    result = icbs("prune", *TASK, *arguments, "--run", tmp_path / "r")
    assert result.exit_code == 2
    assert message in words(result)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("method", [pytest.param("icbs", marks=pytest.mark.slow), "sparsegpt"])
def test_a_language_model_by_its_perplexity(tmp_path, method):
    model = language.save(tmp_path / "model")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(language.make_texts(80)), encoding="utf-8")
    fast = ("--set", "passes=2", "--set", "block_size=32") if method == "icbs" else ()
    result = icbs(
        *("search", "--model", model, "--text", texts, "--max-perplexity-ratio", "1.02"),
        *("--set", "task_options.length=32", "--low", "0.3", "--tolerance", "0.5"),
        *("--method", method, "--run", tmp_path / "s", *fast),
    )
    assert result.exit_code == 0, result.output
    answer = json.loads((tmp_path / "s" / "answer.json").read_text())
    assert "meets the target perplexity ratio ≤ 1.020" in words(result)
    for point in answer["points"]:
        assert 0.9 < point["low"] <= point["value"] <= point["high"] < 1.5
        assert point["figures"]["perplexity"] > 1
