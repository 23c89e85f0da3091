"""The search for the lowest density that meets a target."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import icbs
from icbs import ConfigError, RunFolderError, TargetError, search
from icbs.data.samples import Samples
from icbs.density import mask_maker
from icbs.density.judge import by_samples
from icbs.density.result import SearchResult
from icbs.export.compressed import load_compressed
from icbs.layerwise import prune_layerwise
from tests.icbs.conftest import Toy, make_toy

FAST = {"passes": 3, "block_size": 64}
pytestmark = pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")


def heldout(toy: Toy) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [toy.batches[-1]]


def own(toy: Toy) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return toy.batches[:-1]


def run(toy: Toy, **arguments):
    chosen = {"heldout": heldout(toy), "low": 0.1, "max_accuracy_loss": 0.03} | arguments
    return search(toy.model, own(toy), toy.loss, **chosen)


def poor(model: nn.Module) -> dict[str, float]:
    return {"accuracy": 0.8}


def test_the_answer_is_that_of_every_density_tried_by_hand():
    toy = make_toy()
    result = run(toy, method="magnitude", tolerance=0.05)
    x, y = toy.batches[-1]
    dense = float((make_toy().model(x).argmax(1) == y).double().mean())
    for point in result.curve.points:
        model = make_toy().model
        masks = prune_layerwise(model, None, "magnitude", density=point.density).masks
        accuracy = float((model(x).argmax(1) == y).double().mean())
        assert point.value == pytest.approx(dense - accuracy)
        assert point.met == (dense - accuracy <= 0.03 + 1e-9)
        assert point.low <= point.value <= point.high
        if point.density == result.density:
            assert all(torch.equal(mask, result.masks[name]) for name, mask in masks.items())
            for mine, other in zip(toy.model.parameters(), model.parameters(), strict=True):
                assert torch.equal(mine, other)
    assert result.density == min(p.density for p in result.curve.points if p.met)


def test_icbs_starts_from_its_neighbour_and_writes_the_curve(tmp_path):
    toy, seen = make_toy(), []
    result = run(toy, run=tmp_path / "s", callback=seen.append, tolerance=0.5, **FAST)
    points = result.curve.points
    assert [p.density for p in points] == sorted((p.density for p in points), reverse=True)
    first = next(point for point in points if point.density == 0.9)
    assert first.start is None
    folders = {p.density: tmp_path / "s" / f"density-{p.density:g}" for p in points}
    for point in points:
        _, masks = load_compressed(folders[point.density] / "compressed.safetensors")
        assert point.size == (folders[point.density] / "compressed.safetensors").stat().st_size
        kept = sum(int(mask.sum()) for mask in masks.values())
        assert point.kept == kept / 624
        assert point.macs == kept
        if point is not first:
            start = icbs.load_masks(folders[point.density] / "initial.safetensors")
            near, larger = load_compressed(folders[point.start] / "compressed.safetensors")[1], 0
            for name, mask in start.items():
                inside = mask & near[name]
                assert int(inside.sum()) == min(int(mask.sum()), int(near[name].sum()))
                larger += int(mask.sum()) > int(near[name].sum())
            assert larger in (0, len(start))
    assert sum(progress.point is not None for progress in seen) == len(points)
    assert sum(progress.progress is not None for progress in seen) == 4 * len(points)
    rows = list(csv.DictReader((tmp_path / "s" / "curve.csv").open()))
    assert [float(row["density"]) for row in rows] == [point.density for point in points]
    assert [float(row["value"]) for row in rows] == [point.value for point in points]
    answer = json.loads((tmp_path / "s" / "answer.json").read_text())
    assert answer["density"] == result.density
    page = (tmp_path / "s" / "curve.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert f"density {result.density:g} meets the target accuracy loss ≤ 3.00%" in page
    assert (tmp_path / "s" / "curve.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "s" / "curve.md").read_text().count("\n| ") == len(points) + 3


def test_an_interrupted_search_gives_the_same_answer(tmp_path):
    whole = run(make_toy(), run=tmp_path / "whole", **FAST)
    count = 0

    def stop(progress) -> None:
        nonlocal count
        count += 1
        if count == 7:  # in the middle of a run
            raise KeyboardInterrupt

    toy = make_toy()
    with pytest.raises(KeyboardInterrupt):
        run(toy, run=tmp_path / "parts", callback=stop, **FAST)
    for mine, dense in zip(toy.model.parameters(), make_toy().model.parameters(), strict=True):
        assert torch.equal(mine, dense)
    parts = run(toy, run=tmp_path / "parts", **FAST)
    assert parts.density == whole.density
    assert all(torch.equal(mask, parts.masks[name]) for name, mask in whole.masks.items())
    assert [p.value for p in parts.curve.points] == [p.value for p in whole.curve.points]
    # A finished search is read again, and its runs serve other targets.
    again = run(make_toy(), run=tmp_path / "parts", **FAST)
    assert [p.seconds for p in again.curve.points] == [p.seconds for p in parts.curve.points]
    other = run(
        make_toy(), run=tmp_path / "parts", max_accuracy_loss=None, max_loss_increase=0.3, **FAST
    )
    assert {p.density for p in parts.curve.points} <= {p.density for p in other.curve.points}
    assert other.curve.target.name == "max_loss_increase"


def test_pruning_and_recovery_never_see_the_judge_s_samples(monkeypatch):
    toy = make_toy()
    x, _ = toy.samples
    seen: list[torch.Tensor] = []
    real_recover, real_layerwise = mask_maker.recover, mask_maker.prune_layerwise

    def recover(model, masks, batches, *rest, **named):
        seen.extend(inputs for inputs, _ in batches)
        return real_recover(model, masks, batches, *rest, **named)

    def layerwise(model, batches, *rest, **named):
        seen.extend(inputs for inputs, _ in batches)
        return real_layerwise(model, batches, *rest, **named)

    monkeypatch.setattr(mask_maker, "recover", recover)
    monkeypatch.setattr(mask_maker, "prune_layerwise", layerwise)
    result = search(
        toy.model, toy.batches, toy.loss, max_loss_increase=0.5, method="wanda",
        recover="least-squares", tolerance=1, low=0.1,
    )  # fmt: skip
    assert "120 samples held out from the training samples" in result.curve.judge
    rows = {tuple(row.tolist()) for part in seen for row in part}
    assert len(rows) == 480
    outside = [i for i in range(600) if tuple(x[i].tolist()) not in rows]
    assert len(outside) == 120
    # The figures of the dense model are those on the others.
    x, y = toy.samples
    held = Samples(x[outside], y[outside])
    judge = by_samples(held, toy.loss, make_toy().model, batch_size=50, about="")
    assert judge.measure(make_toy().model).figures["loss"] == pytest.approx(
        result.curve.dense["loss"]
    )


def test_recovery_lowers_the_density():
    alone = run(make_toy(), method="wanda").density
    recovered = run(make_toy(), method="wanda", recover="global").density
    assert recovered < alone


def test_only_whole_intervals_count_where_certainty_is_asked_for():
    toy = make_toy()
    guess, sure = (run(make_toy(), method="wanda", certain=c, max_accuracy_loss=0.1)
                   for c in (False, True))  # fmt: skip
    assert sure.density >= guess.density
    assert sure.point.verdict == "meets"
    assert "certain at 95%" in str(sure)
    with pytest.raises(TargetError, match="with certainty"):
        run(toy, method="wanda", certain=True, max_accuracy_loss=0.25, low=0.39, high=0.4)


def test_functions_judge_by_number_or_by_sample():
    toy = make_toy()
    x, y = toy.batches[-1]

    def numbers(model: nn.Module) -> dict[str, float]:
        return {"accuracy": float((model(x).argmax(1) == y).double().mean())}

    def each(model: nn.Module) -> dict[str, torch.Tensor]:
        return {"accuracy": model(x).argmax(1) == y}

    arguments = {"heldout": None, "method": "wanda"}
    by_number = run(make_toy(), evaluate=numbers, **arguments)
    by_sample = run(make_toy(), evaluate=each, **arguments)
    assert by_number.density == by_sample.density
    assert by_number.point.verdict == "unknown"
    assert "the uncertainty is not known" in str(by_number)
    assert by_sample.point.low < by_sample.point.high


def test_a_target_that_nothing_reaches_is_named_with_what_was_measured(tmp_path):
    toy = make_toy()
    arguments = {"max_accuracy_loss": 0.0, "high": 0.12, "method": "magnitude"}
    with pytest.raises(TargetError, match=r"at 0.12, the highest, accuracy loss is \d+"):
        run(toy, run=tmp_path / "s", **arguments)
    assert "no density reaches" in (tmp_path / "s" / "curve.html").read_text()
    for mine, dense in zip(toy.model.parameters(), make_toy().model.parameters(), strict=True):
        assert torch.equal(mine, dense)


def test_an_answer_of_an_earlier_target_does_not_stay(tmp_path):
    folder, arguments = tmp_path / "s", {"method": "magnitude", "tolerance": 0.5}
    run(make_toy(), run=folder, **arguments)
    assert (folder / "answer.json").exists()
    with pytest.raises(TargetError, match="no density reaches"):
        run(make_toy(), run=folder, **arguments | {"max_accuracy_loss": 0.0, "high": 0.15})
    assert not (folder / "answer.json").exists()


def test_the_lower_end_of_the_range_is_not_called_the_lowest_density():
    lines = str(run(make_toy(), method="magnitude", max_accuracy_loss=0.9, low=0.5))
    assert "0.5 is the lower end of the range, and sparser models were not tried" in lines
    assert "lower end" not in str(run(make_toy(), method="magnitude", tolerance=0.5))


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        ({0.9: "uncertain", 0.5: "uncertain"}, "no density that was tried meets the target with "),
        ({0.9: "uncertain", 0.5: "uncertain", 0.3: "misses"}, "certainty above 0.3, which misses"),
        ({0.9: "meets", 0.5: "uncertain", 0.3: "misses"}, "uncertain between 0.3 and 0.9"),
        ({0.9: "meets", 0.5: "uncertain"}, "uncertain below 0.9"),
    ],
)
def test_the_uncertain_range_is_spelled_out(verdicts, words):
    result = run(make_toy(), method="magnitude", tolerance=1)
    [first, *_] = result.curve.points
    points = [
        first.model_copy(update={"density": d, "verdict": v, "met": v != "misses"})
        for d, v in verdicts.items()
    ]
    curve = dataclasses.replace(result.curve, points=points)
    [line] = [x for x in SearchResult.of(0.5, {}, curve).lines() if "intervals of" in x]
    assert words in line


def test_figures_that_are_not_finite_miss_the_target():
    def broken(model: nn.Module) -> dict[str, float]:
        dense = all(bool(p.all()) for p in model.parameters())
        return {"loss": 1.0 if dense else math.nan}

    limit = {"max_accuracy_loss": None, "max_loss_increase": 5.0}
    with pytest.raises(TargetError, match="no density reaches"):
        run(make_toy(), method="magnitude", heldout=None, evaluate=broken, **limit)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"min_accuracy": 0.5}, ConfigError, "2 targets are given"),
        ({"max_accuracy_loss": None}, ConfigError, "no target is given"),
        (
            {"max_accuracy_loss": None, "min_accuracy": 0.9, "heldout": None, "evaluate": poor},
            TargetError,
            "misses the target already: its accuracy is 80.00%",
        ),
        ({"max_accuracy_loss": None, "max_perplexity_ratio": 1.1}, ConfigError, "'perplexity'"),
        ({"low": 0.5, "high": 0.4}, ConfigError, "the range of densities is 0.5 to 0.4"),
        ({"density": 0.1}, ConfigError, "the search chooses it"),
        ({"method": "wnada"}, ConfigError, "did you mean 'wanda'"),
        ({"method": "wanda", "passes": 3}, ConfigError, "passes has no effect"),
        ({"recover": "least-square"}, ConfigError, "did you mean 'least-squares'"),
        ({"constraint": "2:4"}, ConfigError, "fixes the density at 0.5"),
        ({"low": 1e-4}, icbs.LayerError, "keeps 0 of the"),
        ({"confidence": 1.0}, ConfigError, "confidence = 1"),
        ({"tolerance": 0.0}, ConfigError, "tolerance = 0"),
        ({"evaluate": lambda model: {"accuracy": 1.0}}, ConfigError, "leave one of them out"),
        (
            {"evaluate": lambda model: {"f1": 1.0}, "heldout": None},
            ConfigError,
            "needs the figure 'accuracy', which is not measured; the figures are: f1",
        ),
    ],
)
def test_bad_input_is_named_before_any_work(tmp_path, arguments, error, words):
    toy, folder = make_toy(), tmp_path / "s"
    with pytest.raises(error, match=words):
        run(toy, run=folder, **arguments)
    assert not folder.exists()


def test_folders_of_other_searches_are_refused(tmp_path):
    folder = tmp_path / "s"
    run(make_toy(), run=folder, method="wanda", tolerance=1)
    with pytest.raises(RunFolderError, match="made with another method"):
        run(make_toy(), run=folder, method="magnitude")
    with pytest.raises(RunFolderError, match="made with another judge, model, samples"):
        run(make_toy(seed=1), run=folder, method="wanda", max_accuracy_loss=0.5)
    text = (folder / "search.json").read_text()
    (folder / "search.json").write_text(text.replace("wanda", "alps"))
    with pytest.raises(RunFolderError, match="damaged"):
        run(make_toy(), run=folder, method="wanda")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"has no search\.json"):
        run(make_toy(), run=other, method="wanda")
    (folder / "search.json").write_text(text)
    (next(folder.glob("density-*")) / "point.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"point\.json is damaged"):
        run(make_toy(), run=folder, method="wanda")
