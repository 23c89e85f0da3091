"""Records of training: averages against NumPy, files, scores, and the Trainer's callback."""

from __future__ import annotations

import argparse
import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from icbs import ConfigError, LayerError, Pruner, PrunerConfig, RunFolderError, Trajectory
from icbs.testing import check_score
from icbs.testing import toy as conformance
from icbs.trajectory import Record
from icbs.trajectory.score import TrajectoryScore


def toy(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def moved(model, steps, seed=1):
    """Yield the first layer's weight after each of several random changes."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        yield model[0].weight.detach().double().numpy().copy()


@given(steps=st.integers(1, 9), seed=st.integers(0, 99), decay=st.floats(0.3, 1.0))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("average", ["uniform", "linear", "exponential", "loss"])
def test_average_and_spread_are_those_of_numpy(average, steps, seed, decay):
    model = toy()
    trajectory, values = Trajectory(model, average=average, decay=decay), []
    losses = np.random.default_rng(seed).uniform(0.1, 3, steps)
    for value, loss in zip(moved(model, steps, seed), losses, strict=True):
        values.append(value)
        trajectory.update(loss)
    number = np.arange(1, steps + 1)
    weights = {
        "uniform": np.ones(steps),
        "linear": number,
        "exponential": decay ** (steps - number),
        "loss": 1 / losses,
    }[average]
    mean = np.average(values, axis=0, weights=weights)
    spread = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
    record = trajectory.record()
    np.testing.assert_allclose(record.average["0"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(record.spread["0"], spread, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "decay"), [("snip", 1.0), ("momentum", 0.5)])
def test_gradient_scores_are_sums_over_steps(kind, decay):
    model, expected = toy(), 0.0
    trajectory = Trajectory(model, gradients=kind, decay=0.5, spread=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        model(inputs).square().sum().backward()
        weight, gradient = model[2].weight.detach().numpy(), model[2].weight.grad.numpy()
        expected = decay * expected + np.abs(weight * gradient)
        trajectory.observe()
        optimizer.step()
    trajectory.update()
    np.testing.assert_allclose(trajectory.record().gradients["2"], expected, rtol=1e-5)


def test_a_record_is_not_changed_by_later_updates():
    model = toy()
    trajectory = Trajectory(model, gradients="snip")
    model(torch.ones(2, 6)).sum().backward()
    trajectory.observe()
    trajectory.update()
    record = trajectory.record()
    before = copy.deepcopy(record)
    for _ in moved(model, 2):
        trajectory.observe()
        trajectory.update()
    for kind in ("average", "spread", "gradients"):
        torch.testing.assert_close(getattr(record, kind), getattr(before, kind), rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrap", [lambda model: torch.compile(model, backend="eager"), nn.DataParallel]
)
def test_a_wrapped_model_is_recorded_by_the_names_of_the_model_itself(tmp_path, wrap):
    model, path = toy(), tmp_path / "t.safetensors"
    trajectory = Trajectory(wrap(model), gradients="snip")
    wrap(model)(torch.ones(2, 6)).sum().backward()
    trajectory.observe()
    for _ in moved(model, 3):
        trajectory.update()
    trajectory.save(path)
    record = Record.load(path)
    assert set(record.average) == set(record.gradients) == {"0", "2"}
    assert record.gradients["2"].max() > 0
    assert prune(model, path).density == 0.5


def test_copies_on_disk_are_the_same_and_are_removed(tmp_path):
    model, other = toy(), toy()
    here, there = Trajectory(model), Trajectory(other, folder=tmp_path)
    for _ in zip(moved(model, 3), moved(other, 3), strict=True):
        here.update()
        there.update()
    assert list(tmp_path.rglob("1"))
    torch.testing.assert_close(here.record().average, there.record().average, rtol=0, atol=0)
    del there
    assert not list(tmp_path.rglob("1"))


def recorded(path, model, **more):
    trajectory = Trajectory(model, **more)
    for _ in moved(model, 3):
        trajectory.update()
    trajectory.save(path)
    return trajectory


def prune(model, path, **more):
    batches = [(torch.randn(40, 6), torch.randint(3, (40,)))]
    options = {"density": 0.5, "passes": 0, "initial": "trajectory"} | more
    trajectory = None if path is None else str(path)
    pruner = Pruner(trajectory=trajectory, **options)
    return pruner.prune(model, batches, nn.CrossEntropyLoss())


@pytest.mark.parametrize("score", ["average", "stability"])
def test_the_initial_mask_keeps_the_best_scores(tmp_path, score):
    model, path = toy(), tmp_path / "t.safetensors"
    record = recorded(path, model).record()
    result = prune(model, path, trajectory_score=score)
    values = record.average["0"].abs()
    if score == "stability":
        values = values / record.spread["0"]
    kept = result.masks["0"]
    assert kept.sum() == 24
    assert values[kept].min() >= values[~kept].max()


def test_it_is_a_score_of_the_selection_too(tmp_path):
    model, path = toy(), tmp_path / "t.safetensors"
    recorded(path, model)
    more = {"initial": "magnitude", "selection": "trajectory", "passes": 2, "block_size": 8}
    assert prune(model, path, **more).density == 0.5


def test_files_are_read_as_written(tmp_path):
    path = tmp_path / "t.safetensors"
    record = recorded(path, toy(), gradients="snip").record()
    again = Record.load(path)
    assert again.facts["records"] == 3
    for kind in ("average", "spread", "gradients"):
        torch.testing.assert_close(getattr(again, kind), getattr(record, kind), rtol=0, atol=0)


def test_the_rule_of_the_paper_as_densities():
    record = Record({"a": torch.tensor([[0.0, -1.0, 2.0, -3.0]])})
    deviation = np.std([0, 1, 2, 3], ddof=1)
    assert record.densities(1.5 / deviation) == {"a": 0.5}


def test_bad_input_is_refused_before_work(tmp_path):
    path = tmp_path / "t.safetensors"
    recorded(path, toy(), spread=False)
    with pytest.raises(LayerError, match="of another model: the average of layer '0' has cosine"):
        prune(toy(seed=7), path)
    narrow = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(LayerError, match=r"weights of \(8, 6\) for layer '0', whose weight has"):
        prune(narrow, path)
    with pytest.raises(ConfigError, match="no record for trajectory_score='stability'"):
        prune(toy(), path, trajectory_score="stability")
    with pytest.raises(RunFolderError, match="not a readable trajectory"):
        prune(toy(), tmp_path / "none")
    with pytest.raises(ConfigError, match="set trajectory=FILE"):
        prune(toy(), None)
    with pytest.raises(ConfigError, match="average is 'unifrom' \\(did you mean 'uniform'"):
        Trajectory(toy(), average="unifrom")
    with pytest.raises(ConfigError, match="decay is 0"):
        Trajectory(toy(), decay=0)
    with pytest.raises(ConfigError, match="call update"):
        Trajectory(toy()).record()
    with pytest.raises(ConfigError, match="the loss is None"):
        Trajectory(toy(), average="loss").update()
    with pytest.raises(LayerError, match="leaves no layer"):
        Trajectory(toy(), include=["head"])
    with pytest.raises(LayerError, match="scripted"):
        Trajectory(torch.jit.script(toy()))


@pytest.mark.parametrize("average", ["uniform", "loss"])
def test_the_trainer_records(tmp_path, average):
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    from icbs.trajectory.trainer import TrajectoryCallback

    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    data = [{"input_ids": [i % 11] * 8, "labels": [i % 11] * 8} for i in range(8)]
    trajectory = Trajectory(model, average=average, gradients="momentum")
    arguments = transformers.TrainingArguments(
        tmp_path, num_train_epochs=3, eval_strategy="epoch", report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    callbacks = [TrajectoryCallback(trajectory)]
    transformers.Trainer(
        model, arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks
    ).train()
    record = Record.load(tmp_path / "trajectory.safetensors")
    assert record.facts["records"] == 3
    name = "transformer.h.0.attn.c_attn"
    assert record.spread[name].min() > 0
    assert record.gradients[name].max() > 0


def test_scores_that_say_nothing_are_refused(tmp_path):
    model, path = toy(), tmp_path / "t.safetensors"
    recorded(path, model, gradients="snip")
    with pytest.raises(ConfigError, match="no record for trajectory_score='gradients'"):
        prune(model, path, trajectory_score="gradients")
    with pytest.raises(ConfigError, match="no recorded weight has a gradient"):
        Trajectory(toy(), gradients="snip").observe()
    zero = Record.load(path)
    zero.gradients.update({name: torch.zeros_like(a) for name, a in zero.average.items()})
    zero.save(path)
    with pytest.raises(ConfigError, match="gradient scores of 0 only"):
        prune(model, path, trajectory_score="gradients")
    zero.gradients["0"] += 1
    zero.save(path)
    with pytest.raises(LayerError, match="'2'.* are all 0"):
        prune(model, path, trajectory_score="gradients")
    trajectory = Trajectory(toy())
    trajectory.update()
    trajectory.save(path)
    with pytest.raises(ConfigError, match="1 update, between which no weight changed"):
        prune(model, path, trajectory_score="stability")
    trajectory.update()  # of the same weights
    trajectory.save(path)
    with pytest.raises(ConfigError, match="2 updates, between which no weight changed"):
        prune(model, path, trajectory_score="stability")


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_the_callback_refuses_another_model(wrap):
    transformers = pytest.importorskip("transformers")
    from icbs.trajectory.trainer import TrajectoryCallback

    arguments = argparse.Namespace(eval_strategy=transformers.IntervalStrategy.NO)
    model = toy()
    callback = TrajectoryCallback(Trajectory(model))
    callback.on_train_begin(arguments, None, None, model=wrap(model))
    with pytest.raises(LayerError, match="another model than the one that is trained"):
        callback.on_train_begin(arguments, None, None, model=wrap(copy.deepcopy(model)))


def test_averages_by_the_loss_need_evaluations(tmp_path):
    transformers = pytest.importorskip("transformers")
    from icbs.trajectory.trainer import TrajectoryCallback

    callback = TrajectoryCallback(Trajectory(toy(), average="loss"))
    with pytest.raises(ConfigError, match="eval_strategy is 'no'"):
        callback.on_train_begin(
            argparse.Namespace(eval_strategy=transformers.IntervalStrategy.NO), None, None
        )
    steps = argparse.Namespace(
        eval_strategy=transformers.IntervalStrategy.STEPS, output_dir=tmp_path
    )
    callback.on_train_begin(steps, None, None)
    state = transformers.TrainerState(is_world_process_zero=True)
    with pytest.warns(UserWarning, match="no trajectory is saved, as no evaluation ended"):
        callback.on_train_end(steps, state, None)


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_process_saves(tmp_path, first):
    transformers = pytest.importorskip("transformers")
    from icbs.trajectory.trainer import TrajectoryCallback

    callback = TrajectoryCallback(Trajectory(toy()))
    callback.on_epoch_end(None, None, None)
    state = transformers.TrainerState(is_world_process_zero=first)
    callback.on_train_end(argparse.Namespace(output_dir=tmp_path), state, None)
    assert (tmp_path / "trajectory.safetensors").exists() is first


def test_the_score_conforms(tmp_path):
    path = tmp_path / "t.safetensors"
    trajectory = Trajectory(conformance.make_model())
    trajectory.update()
    trajectory.save(path)
    check_score(TrajectoryScore(PrunerConfig(trajectory=str(path))))
