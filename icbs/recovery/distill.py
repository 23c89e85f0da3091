"""``distill``: masked distillation from the dense model, by gradient descent."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from icbs.config.fields import Count, Positive, Unit
from icbs.config.groups import Group
from icbs.curvature.hooks import frozen
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples
from icbs.errors import ConfigError
from icbs.recovery.method import Method, Step
from icbs.recovery.subject import Subject
from icbs.recovery.teacher import Teacher, teacher_of
from icbs.recovery.trained import Full, LowRank, Trained

BETAS = (0.9, 0.95)
"""Decay rates of Adam's moments, as arXiv 2406.15524 uses for reconstruction."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class DistillSettings(Group):
    """Settings of ``distill``."""

    epochs: Count = 10
    """Maximum number of epochs over the calibration samples."""
    learning_rate: Annotated[Positive | None, Unit("per update")] = None
    """Initial step length of Adam, which falls linearly to 0; by default 1e-3, and 1e-4 for
    sequences."""
    batch: Annotated[Count | None, Unit("samples")] = None
    """Samples in an update; by default 64, and 8 for sequences."""
    parameters: Literal["all", "low-rank", "vectors"] = "all"
    """Parameters that move: kept weights and all vectors (biases, normalisation); vectors and a
    change of low rank within each mask (LoRA); or vectors only.

    ``low-rank`` needs less memory for the state of the optimiser, and overfits less.
    """
    rank: Annotated[Count, Unit("rank")] = 16
    """Rank of the changes under ``low-rank``."""
    temperature: Annotated[Positive, Unit("factor")] = 1.0
    """Temperature of the class probabilities that are compared."""
    data_weight: Annotated[float, Field(ge=0), Unit("factor")] = 0.0
    """Weight of the loss for the targets of the data, which is added to the divergence."""
    target: Literal["dense", "data"] = "dense"
    """Targets: the dense model's outputs, or those of the data alone."""
    patience: Annotated[Count, Unit("epochs")] = 3
    """Number of epochs without a lower held-out error after which the method ends."""


class Distill(Method):
    """Train the kept weights so that the outputs follow those of the dense model.

    The loss is the divergence from the dense model (see :class:`icbs.recovery.teacher.Teacher`),
    minimised by Adam without weight decay, so that pruned weights stay exactly 0. The errors in the
    history are values of that loss: the mean over an epoch's updates, and on held-out samples
    after it.
    """

    name = "distill"
    Settings = DistillSettings
    settings: DistillSettings
    needs_dense = False

    def __init__(self, settings: DistillSettings) -> None:
        super().__init__(settings)
        self.lowest, self.failures = float("inf"), 0
        self._saved: Mapping[str, Tensor] | None = None
        self._trained: dict[str, Trained] = {}
        self._optimizer: torch.optim.Adam | None = None

    def check(self, subject: Subject) -> None:
        """Refuse a loss without dense targets, and a subject without the chosen parameters."""
        teacher_of(subject, self.settings.target)
        names = {f"{layer.name}.weight" for layer in subject.free_layers()}
        if self.settings.parameters == "vectors" and not _vectors(subject, names):
            raise ConfigError(
                "parameters='vectors' trains biases and parameters of normalisation, and the model "
                "has none that may move; choose 'all' or 'low-rank'"
            )

    def memory(self, subject: Subject) -> int:
        """Bytes of gradients, of Adam's moments, and of copies of the weights."""
        wide = max(4, subject.layers[0].dense.element_size())
        own = subject.tensors
        weights = sum(layer.size for layer in subject.free_layers())
        vectors = sum(tensor.numel() for tensor in own.values()) - weights
        copies = {"all": 4, "low-rank": 2, "vectors": 0}[self.settings.parameters]
        ranks = 3 * self.settings.rank * sum(sum(x.shape) for x in subject.free_layers())
        low = ranks if self.settings.parameters == "low-rank" else 0
        return wide * (copies * weights + 4 * vectors + low)

    def state(self) -> dict[str, Tensor]:
        """Return the trained tensors, Adam's moments, and the record of early stopping."""
        found = {"lowest": torch.tensor([self.lowest, self.failures], dtype=torch.float64)}
        for name, trained in self._trained.items():
            found |= {f"{name}/{key}": tensor for key, tensor in trained.tensors().items()}
        for number, tensor in enumerate(self._optimised()):
            state = {} if self._optimizer is None else self._optimizer.state[tensor]
            found |= {f"{key}/{number}": state[key] for key in MOMENTS if key in state}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep a state for the next call of :meth:`steps`."""
        lowest, failures = tensors["lowest"].tolist()
        self.lowest, self.failures = lowest, int(failures)
        trained = {name: tensor for name, tensor in tensors.items() if name != "lowest"}
        self._saved = trained or None  # none of a recovery that ended before its first step

    def steps(self, subject: Subject) -> Iterator[Step]:
        """Train for one epoch in each step."""
        total = self.settings.epochs
        teacher = teacher_of(subject, self.settings.target, self.settings.temperature)
        self._begin(subject)
        if self.done == 0:
            self.lowest = self._measure(subject, teacher)
        while self.done < total and self.failures < self.settings.patience:
            error = self._train(subject, teacher)
            held = self._measure(subject, teacher)
            self.failures = 0 if held < self.lowest else self.failures + 1
            self.lowest = min(self.lowest, held)
            yield Step(f"epoch {self.done + 1}", self.done + 1, total, error, held)

    def _begin(self, subject: Subject) -> None:
        """Create the trained tensors and the optimiser, or restore them."""
        generator = subject.generator(self.settings.epochs)  # epochs use those before
        own = subject.tensors
        weights = {f"{layer.name}.weight": layer for layer in subject.free_layers()}
        kind = self.settings.parameters
        self._trained = {}
        for name, layer in weights.items():
            if kind == "all":
                pruned = layer.kind.shaped(layer.pruned.view(layer.shape))
                self._trained[name] = Full(own[name], pruned)
            elif kind == "low-rank":
                self._trained[name] = LowRank(layer, self.settings.rank, generator)
        for name in _vectors(subject, weights):
            self._trained[name] = Full(own[name])
        if self._saved is not None:
            for name, trained in self._trained.items():
                start = f"{name}/"
                trained.restore(
                    {
                        k.removeprefix(start): t
                        for k, t in self._saved.items()
                        if k.startswith(start)
                    }
                )
        self._optimizer = torch.optim.Adam(self._optimised(), betas=BETAS)
        if self._saved is not None:
            self._restore_moments(subject, self._optimizer, self._saved)
        self._saved = None

    def _optimised(self) -> list[Tensor]:
        return [tensor for trained in self._trained.values() for tensor in trained.optimised()]

    def _restore_moments(
        self, subject: Subject, optimizer: torch.optim.Adam, saved: Mapping[str, Tensor]
    ) -> None:
        updates = float(self.done * self._updates(subject))
        for number, tensor in enumerate(self._optimised()):
            moments = {key: saved[f"{key}/{number}"].to(tensor, copy=True) for key in MOMENTS}
            optimizer.state[tensor] = {"step": torch.tensor(updates), **moments}

    def _updates(self, subject: Subject) -> int:
        """Return the number of updates of an epoch."""
        return -(-len(subject.samples) // self._batch(subject))

    def _batch(self, subject: Subject) -> int:
        return self.settings.batch or (8 if _sequences(subject) else 64)

    def _train(self, subject: Subject, teacher: Teacher | None) -> float:
        """Train for one epoch; return the mean loss of its updates."""
        assert self._optimizer is not None
        samples, size, updates = subject.samples, self._batch(subject), self._updates(subject)
        rate = self.settings.learning_rate or (1e-4 if _sequences(subject) else 1e-3)
        order = torch.randperm(len(samples), generator=subject.generator(self.done))
        total = 0.0
        with _training(subject, self._trained) as parameters:
            for number in range(updates):
                part = samples[order[number * size : (number + 1) * size]]
                total += self._set_gradients(subject, teacher, part, parameters)
                passed = (self.done * updates + number) / (self.settings.epochs * updates)
                for group in self._optimizer.param_groups:
                    group["lr"] = rate * (1 - passed)
                self._optimizer.step()
                for trained in self._trained.values():
                    trained.write()
        self._optimizer.zero_grad()
        return total / len(samples)

    def _set_gradients(
        self,
        subject: Subject,
        teacher: Teacher | None,
        part: Samples,
        parameters: Mapping[str, Tensor],
    ) -> float:
        """Set the gradients of an update; return the loss, summed over its samples."""
        sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
        loss = 0.0
        for piece in subject.pieces(part):
            total = self._total(subject, teacher, piece)
            loss += float(total.detach())
            found = torch.autograd.grad(
                total / len(part), list(parameters.values()), allow_unused=True
            )
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    sums[name] += gradient
        for name, gradient in sums.items():
            self._trained[name].accept(gradient)
        return loss

    def _total(self, subject: Subject, teacher: Teacher | None, piece: Samples) -> Tensor:
        """Return the loss that is minimised, summed over samples."""
        outputs = subject.objective.run(subject.model, piece.inputs)
        if teacher is None:
            return subject.objective.total(outputs, piece.targets)
        total = teacher.total(outputs, teacher.outputs(piece), piece.targets)
        if self.settings.data_weight:
            own = subject.objective.total(outputs, piece.targets)
            total = total + self.settings.data_weight * own
        return total

    @torch.no_grad()
    def _measure(self, subject: Subject, teacher: Teacher | None) -> float:
        """Return the mean loss that is minimised, on held-out samples."""
        pieces = subject.pieces(subject.heldout)
        return sum(float(self._total(subject, teacher, p)) for p in pieces) / len(subject.heldout)


def _sequences(subject: Subject) -> bool:
    """Whether the samples are sequences."""
    return counted_positions(subject.samples[:1]) is not None


def _vectors(subject: Subject, weights: Container[str]) -> list[str]:
    """Return the names of parameters that may move, other than weights of masked layers."""
    own = dict(subject.model.named_parameters())
    return [name for name in subject.tensors if name not in weights and name in own]


@contextmanager
def _training(subject: Subject, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Let only some parameters of the model require gradients within the context; yield them."""
    own: dict[str, Tensor] = dict(subject.model.named_parameters())
    own |= {f"{layer.name}.weight": layer.kind.module.weight for layer in subject.layers}
    chosen = {name: own[name] for name in names}
    with frozen(subject.model):
        for parameter in chosen.values():
            parameter.requires_grad_()
        try:
            yield chosen
        finally:
            for parameter in chosen.values():
                parameter.requires_grad_(False)
