"""Callback for transformers' Trainer that records a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from icbs.trajectory.recorder import Trajectory

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
        if state.is_world_process_zero and self.trajectory.count:
            self.trajectory.save(Path(args.output_dir) / FILE)
