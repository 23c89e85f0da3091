"""Callback for transformers' Trainer that records a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from icbs.errors import ConfigError
from icbs.trajectory.recorder import Trajectory
from problems.warn import warn

FILE = "trajectory.safetensors"


class TrajectoryCallback(TrainerCallback):
    """Record a trajectory in ``Trainer.train``, and save it in ``output_dir`` at the end.

    A record is taken after each epoch; with ``average="loss"`` after each evaluation.

    Parameters
    ----------
    trajectory : Trajectory
        Of the model that is trained.

    Examples
    --------
    >>> callback = TrajectoryCallback(Trajectory(model))  # doctest: +SKIP
    >>> Trainer(model, arguments, train_dataset=data, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Refuse a trajectory of another model, or one that needs evaluations without any.

        Raises
        ------
        LayerError, ConfigError
        """
        if model is not None:
            self.trajectory.check_trains(model)
        strategy = getattr(args, "eval_strategy", None)
        if self.trajectory.average == "loss" and str(getattr(strategy, "value", strategy)) == "no":
            raise ConfigError(
                "average='loss' records the weights after each evaluation, and eval_strategy is "
                "'no'; set eval_strategy='epoch' and an eval_dataset, or choose average='uniform'"
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score by the gradients, before they are used."""
        if self.trajectory.gradients:
            self.trajectory.observe()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the weights."""
        if self.trajectory.average != "loss":
            self.trajectory.update()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Record the weights with their validation loss."""
        if self.trajectory.average == "loss":
            self.trajectory.update((metrics or {}).get("eval_loss"))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the record."""
        if not state.is_world_process_zero:
            return
        if self.trajectory.count:
            self.trajectory.save(Path(args.output_dir) / FILE)
        else:
            after = "evaluation" if self.trajectory.average == "loss" else "epoch"
            warn(f"no trajectory is saved, as no {after} ended; train for longer")
