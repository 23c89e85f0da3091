"""Logging of runs, read back by the packages' own readers."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from icbs import ConfigError, Pruner
from icbs.cli import app
from icbs.loggers import MlflowLogger, TensorBoardLogger, check_target
from tests.icbs.conftest import make_toy

PRUNER = Pruner(density=0.3, passes=4, block_size=16, checkpoint_every=1)


def prune_and_resume(folder, first, second):
    """Log a run that ends after two passes, and its resumption; return the losses by step."""
    toy, losses = make_toy(), {}

    def stop(progress):
        first(progress)
        losses[progress.step] = progress.loss
        return progress.step == 2

    def go(progress):
        second(progress)
        losses[progress.step] = progress.loss

    PRUNER.prune(toy.model, toy.batches, toy.loss, callback=stop, run=folder, progress=False)
    first.close()
    again = make_toy()
    Pruner.resume(folder, again.model, again.batches, again.loss, callback=go, progress=False)
    second.close()
    return losses


def test_tensorboard_has_each_step_once_after_a_resumption(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = tmp_path / "logs"
    first = TensorBoardLogger(logs)
    first.settings({"density": 0.3})
    losses = prune_and_resume(tmp_path / "run", first, TensorBoardLogger(logs))
    found = EventAccumulator(str(logs)).Reload()
    assert sorted(found.Tags()["scalars"]) == ["density", "loss", "seconds", "share_kept"]
    assert found.Tags()["tensors"] == ["settings/text_summary"]
    logged = {event.step: event.value for event in found.Scalars("loss")}
    assert sorted(logged) == [event.step for event in found.Scalars("loss")] == [0, 1, 2, 3, 4]
    assert logged == pytest.approx(losses, rel=1e-6)


def test_mlflow_has_each_step_once_after_a_resumption(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    first = MlflowLogger(uri, "it's")
    first.settings({"density": 0.3})
    second = MlflowLogger(uri, "it's")
    assert second.run_id == first.run_id
    assert MlflowLogger(uri, "another").run_id != first.run_id
    losses = prune_and_resume(tmp_path / "run", first, second)
    client = MlflowClient(tracking_uri=uri)
    history = client.get_metric_history(first.run_id, "loss")
    assert [metric.step for metric in history] == [0, 1, 2, 3, 4]
    assert {metric.step: metric.value for metric in history} == losses
    run = client.get_run(first.run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"density": "0.3"})


def test_the_command_logs_test_figures_too(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = ["prune", "--task", "tiny", "--density", "0.25", "--passes", "2"]
    options = ["--run", str(tmp_path / "mine"), "--log", f"tensorboard:{tmp_path / 'logs'}"]
    said = CliRunner().invoke(app, command + options)
    assert said.exit_code == 0, said.output
    found = EventAccumulator(str(tmp_path / "logs" / "mine")).Reload()
    assert [event.step for event in found.Scalars("test/accuracy")] == [0, 2]
    assert [event.step for event in found.Scalars("loss")] == [0, 1, 2]


@pytest.mark.parametrize("target", ["tensorboard", "tensorboard:", "wandb:x", "logs", ":x"])
def test_a_target_of_another_kind_is_refused_before_the_run(target, tmp_path):
    with pytest.raises(ConfigError, match="tensorboard:DIR or mlflow:URI"):
        check_target(target)
    run = tmp_path / "run"
    said = CliRunner().invoke(app, ["prune", "--task", "tiny", "--run", str(run), "--log", target])
    assert said.exit_code == 2
    assert not run.exists()
