"""Two processes with half of the samples each do what one does with all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from icbs import CausalLMLoss, DataError, Pruner, RunFolderError, load_masks
from icbs.curvature.fisher import Fisher
from icbs.curvature.layer_error import LayerError
from icbs.curvature.passes import Pass
from icbs.curvature.sum import Sum
from icbs.data.objective import Objective
from icbs.model.gates import Gates
from icbs.run.history import read_history
from problems import load_instances
from tests.icbs import passes
from tests.icbs.passes import empirical
from tests.icbs.test_passes import model_and_layers, picks, sequences

WAYS: dict[str, dict[str, Any]] = {
    "held": {"source": empirical(6)},
    "gathered": {"source": empirical(6), "select_after": 3},
    "tokens": {"source": Fisher(6, drawn=False, tokens=True)},
    "error of the layer": {"source": LayerError()},
    "sum": {"source": Sum(empirical(6), LayerError(2.0)), "select_after": 3},
}
RUNS: dict[str, dict[str, Any]] = {
    "labels of the data": {"curvature": "empirical"},
    "labels of the model": {"curvature": "monte-carlo"},
    "judged by passes": {
        "curvature": "empirical",
        "acceptance": "pass",
        "gradient_samples": 5,
    },
}
SETTINGS: dict[str, Any] = {
    "density": 0.5,
    "passes": 4,
    "block_size": 16,
    "gradient_samples": 10,
    "curvature_samples": 10,
    "batch_size": 3,
}


def look(way: str) -> Pass:
    """A pass with a block of each layer, and one of both layers."""
    model, layers = model_and_layers()
    blocks = picks(layers)
    blocks["both"] = Gates.joined(list(picks(layers).values()))
    return passes.look(
        model,
        layers,
        Objective(CausalLMLoss()),
        sequences(count=11),
        batch_size=2,
        select=lambda _: blocks,
        **WAYS[way],
    )


def figures(way: str) -> dict[str, torch.Tensor]:
    """All that a pass says about the blocks."""
    found = look(way)
    said = {"loss": torch.tensor(found.loss)}
    for name, gradient in found.gradients.items():
        said |= {f"{name} all": gradient, f"{name} squares": found.squares[name]}
    for name, gates in found.blocks.items():
        said[f"{name} gradient"] = torch.cat(found.gradient(gates))
        for number, model in enumerate(found.models(gates)):
            said[f"{name} gradient of model {number}"] = torch.cat(list(model.gradients or ()))
            if model.factor is not None:
                said[f"{name} factor of model {number}"] = model.factor
            if model.matrix is not None:
                said[f"{name} matrix of model {number}"] = model.matrix
    return said


def prune(run: str) -> dict[str, torch.Tensor]:
    model, _ = model_and_layers()
    given = sequences(count=41, pad=1)
    result = Pruner(**SETTINGS | RUNS[run]).prune(
        model, [(given.inputs, given.targets)], CausalLMLoss()
    )
    facts = torch.tensor([result.loss, result.initial_loss, result.density], dtype=torch.float64)
    samples = torch.tensor([row.samples for row in result.history])
    return result.masks | {"facts": facts, "samples": samples}


def prune_in(run: Path) -> dict[str, torch.Tensor]:
    """Begin a run in a folder that all share, break it off and go on; then try to begin anew."""

    def stop(progress: Any) -> None:
        if progress.step == 3:
            raise InterruptionError

    samples = sequences(count=41, pad=1)
    given = ([(samples.inputs, samples.targets)], CausalLMLoss())
    pruner = Pruner(
        **SETTINGS | RUNS["labels of the data"] | {"checkpoint_every": 2, "save_blocks": 1}
    )
    with suppress(InterruptionError):
        pruner.prune(model_and_layers()[0], *given, run=run, callback=stop)
    result = Pruner.resume(run, model_and_layers()[0], *given)
    with pytest.raises(RunFolderError, match="exists already"):
        pruner.prune(model_and_layers()[0], *given, run=run)
    return result.masks


class InterruptionError(Exception):
    pass


def refused(rank: int) -> str:
    """What a layout that mixes samples is refused with; one process sees no error by itself."""
    from icbs.curvature import gradient_check
    from tests.icbs.test_gradient_check import LABELS, LOSS, MIXING

    if rank == 1:
        gradient_check._Check.fault = lambda *_: None  # type: ignore[method-assign]
    make, inputs = MIXING["two views"]
    try:
        Pruner(**SETTINGS | {"batch_size": 16}).prune(make(), [(inputs, LABELS)], LOSS)
    except DataError as error:
        return str(error)
    return ""


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = Path(folder, "meeting").as_uri()
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
    found = {way: figures(way) for way in WAYS}
    for run in RUNS:
        found[run] = prune(run)
    found["folder"] = prune_in(Path(folder) / "run")
    found["refused"] = {"message": refused(rank)}  # type: ignore[dict-item]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def both(folder) -> list[dict[str, dict[str, torch.Tensor]]]:
    mp.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_gradients_and_factors_are_those_of_one_process(both, way):
    expected = figures(way)
    for found in both:
        assert found[way].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[way][name], value)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_all_processes_come_to_the_same_masks(both, run):
    one, two = (found[run] for found in both)
    for name, value in one.items():
        assert torch.equal(value, two[name])
    loss, initial, density = one["facts"].tolist()
    alone = prune(run)
    assert initial == pytest.approx(float(alone["facts"][1]), rel=1e-6)
    assert loss < initial
    assert density == 0.5
    if run != "labels of the model":
        # Labels are drawn by each process for its own samples; without them all is the same.
        assert loss == pytest.approx(float(alone["facts"][0]), rel=1e-2)
        assert torch.equal(one["samples"], alone["samples"])


@pytest.mark.slow
def test_the_first_process_alone_writes_the_run_folder(both, folder):
    saved = load_masks(folder / "run" / "masks.safetensors")
    for found in both:
        for name, mask in saved.items():
            assert torch.equal(found["folder"][name], mask)
            assert torch.equal(found["labels of the data"][name], mask)
    rows = read_history(folder / "run" / "history.csv")
    assert [row.step for row in rows] == sorted(row.step for row in rows)
    assert {row.step for row in rows} == set(range(SETTINGS["passes"]))
    saved = list(load_instances(folder / "run" / "blocks"))
    assert [each.about["number"] for each in saved] == list(range(len(rows)))
    assert [each.problem.energy(each.answer) for each in saved] == [row.energy for row in rows]


@pytest.mark.slow
def test_all_processes_refuse_alike(both):
    one, two = (found["refused"]["message"] for found in both)
    assert one == two
    assert "'e' is off by" in one
