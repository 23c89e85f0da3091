"""Recording of weights and gradients while a model is trained."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from icbs.config import brief
from icbs.errors import ConfigError, LayerError
from icbs.model.finding import matches_any
from icbs.model.kinds import kind_of
from icbs.model.plain import check_weight
from icbs.model.wrappers import check_runs_as_modules, modules_of
from icbs.trajectory.averages import AVERAGES, AverageName
from icbs.trajectory.record import Record
from problems.suggest import did_you_mean


class Trajectory:
    """Average and spread of a model's weights over training, and scores from its gradients.

    Parameters
    ----------
    model : nn.Module
        Model that is being trained; it may be compiled or data-parallel, but not sharded.
    average : {"uniform", "linear", "exponential", "loss"}
        Weight of a record in the average: equal, its number, decreasing with its age by ``decay``,
        or the inverse of its validation loss. arXiv 2502.17071 does not state its weights; these
        are interpretations.
    decay : float
        Factor on the weight of earlier records, and on earlier gradient scores, at each step.
    spread : bool
        Whether to record the standard deviation too, in a second copy of the weights.
    gradients : {"snip", "momentum"}, optional
        Score to accumulate: the sum of ``|w ∘ g|`` over steps (SNIP, arXiv 1810.02340), or a sum
        in which earlier steps count less by ``decay`` (Neural Compressor's ``snip_momentum``).
    include : sequence of str
        Patterns of layers, as for :class:`icbs.Pruner`.
    folder : path, optional
        Folder for the copies, which are mapped from files there instead of held in memory.

    Raises
    ------
    ConfigError
        For an unknown kind of average or score, or a decay outside (0, 1].
    LayerError
        If no layer is recorded, a weight is quantised, computed or not loaded, or the model is
        sharded, scripted or exported.

    Examples
    --------
    >>> trajectory = Trajectory(model)  # doctest: +SKIP
    >>> for epoch in range(epochs):  # doctest: +SKIP
    ...     train_one_epoch(model)
    ...     trajectory.update()
    >>> trajectory.save("trajectory.safetensors")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        average: AverageName = "uniform",
        decay: float = 0.9,
        spread: bool = True,
        gradients: Literal["snip", "momentum"] | None = None,
        include: list[str] | tuple[str, ...] = ("*",),
        folder: str | Path | None = None,
    ) -> None:
        _check("average", average, list(AVERAGES))
        if gradients is not None:
            _check("gradients", gradients, ["snip", "momentum"])
        if not 0 < decay <= 1:
            raise ConfigError(f"decay is {decay}; it must be more than 0 and at most 1")
        check_runs_as_modules(model)
        self.average, self.gradients, self.decay = average, gradients, decay
        self.count = 0
        self._observed = 0
        self._total = 0.0
        self._model = model
        self._names = [
            name
            for name, module in modules_of(model).items()
            if kind_of(module) is not None and matches_any(name, module, include)
        ]
        if not self._names:
            raise LayerError(f"include={list(include)} leaves no layer of the model to record")
        for name in self._names:
            check_weight(name, modules_of(model)[name])
        self._copies = _Copies(folder)
        weights = self._weights()
        self._mean = self._copies.like(weights)
        self._squares = self._copies.like(weights) if spread else {}
        self._scores = self._copies.like(weights) if gradients else {}

    @torch.no_grad()
    def update(self, loss: float | None = None) -> None:
        """Add the current weights to the average: after each epoch, or every so many steps.

        Parameters
        ----------
        loss : float, optional
            Validation loss, for ``average="loss"``.

        Raises
        ------
        ConfigError
            If ``average="loss"`` and the loss is missing or not positive.
        """
        weight = AVERAGES[self.average](self.count + 1, loss)
        kept = self.decay if self.average == "exponential" else 1.0
        self.count += 1
        self._total = kept * self._total + weight
        share = weight / self._total
        for name, value in self._weights().items():
            mean = self._mean[name]
            ahead = value.float().cpu() - mean
            # West's update of a weighted variance (CACM 22, 1979), which does not cancel.
            mean.add_(ahead, alpha=share)
            if self._squares:
                rest = weight * (1 - share)
                self._squares[name].mul_(kept).addcmul_(ahead, ahead, value=rest)

    @torch.no_grad()
    def observe(self) -> None:
        """Add ``|w ∘ g|`` to the scores: after each backward pass, before the optimiser's step.

        Raises
        ------
        ConfigError
            If no score is recorded, or no weight has a gradient.
        """
        if not self._scores:
            raise ConfigError("pass gradients='snip' or 'momentum' to score by gradients")
        weights = self._weights()
        if all(weight.grad is None for weight in weights.values()):
            raise ConfigError(
                f"no recorded weight has a gradient ({brief(list(weights))}); call observe() after "
                "backward(), before zero_grad(), for the model that is trained"
            )
        self._observed += 1
        kept = self.decay if self.gradients == "momentum" else 1.0
        for name, weight in weights.items():
            if weight.grad is not None:
                self._scores[name].mul_(kept).add_((weight * weight.grad).abs().float().cpu())

    def record(self) -> Record:
        """Return a copy of the record so far.

        Raises
        ------
        ConfigError
            If there was no update.
        """
        return copy.deepcopy(self._record())

    def _record(self) -> Record:
        """Return the record so far, with the tensors that later updates change."""
        if not self.count:
            raise ConfigError("nothing is recorded yet; call update() after each epoch")
        spread = {n: (value / self._total).sqrt() for n, value in self._squares.items()}
        facts: dict[str, Any] = {
            "average": self.average,
            "decay": self.decay,
            "records": self.count,
        }
        facts |= {"gradients": self.gradients or "none"}
        scores = self._scores if self._observed else {}
        return Record(dict(self._mean), spread, dict(scores), facts)

    def check_trains(self, model: nn.Module) -> None:
        """Refuse a model whose weights are not those that are recorded.

        Parameters
        ----------
        model : nn.Module
            The model that is trained; it may be wrapped.

        Raises
        ------
        LayerError
        """
        trained = {id(parameter) for parameter in model.parameters()}
        for name, weight in self._weights().items():
            if id(weight) not in trained:
                raise LayerError(
                    f"the trajectory records another model than the one that is trained: layer "
                    f"{name!r} is of another object; create it from the trained model, "
                    "Trajectory(trainer.model), after copies and wrappers"
                )

    def save(self, path: str | Path) -> None:
        """Write the record next to the model, as safetensors.

        Raises
        ------
        ConfigError
            If there was no update.
        RunFolderError
            If the file can't be written.
        """
        self._record().save(path)

    def _weights(self) -> dict[str, nn.Parameter]:
        modules = modules_of(self._model)
        return {name: modules[name].get_parameter("weight") for name in self._names}


class _Copies:
    """Copies of weights, in memory or mapped from files."""

    def __init__(self, folder: str | Path | None) -> None:
        self._files = None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._files = tempfile.TemporaryDirectory(prefix="trajectory-", dir=folder)
        self._number = 0

    def like(self, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """Return zeros in the shapes of the weights, in float32."""
        return {name: self._zeros(weight.shape) for name, weight in weights.items()}

    def _zeros(self, shape: torch.Size) -> Tensor:
        if self._files is None:
            return torch.zeros(shape)
        self._number += 1
        path = Path(self._files.name) / str(self._number)
        # A new shared file reads as zeros.
        return torch.from_file(str(path), shared=True, size=shape.numel()).view(shape)


def _check(setting: str, value: str, known: list[str]) -> None:
    if value not in known:
        raise ConfigError(
            f"{setting} is {value!r}{did_you_mean(value, known)}; choose one of {', '.join(known)}"
        )
