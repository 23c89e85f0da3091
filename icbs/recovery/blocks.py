"""``blocks``: block after block, the output of the dense model's block is reproduced."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from icbs.config.fields import Count, Positive, Unit
from icbs.config.groups import Group
from icbs.data.positions import counted_positions
from icbs.data.samples import Samples
from icbs.errors import DataError
from icbs.layerwise.chain import is_inside
from icbs.recovery.block_chain import Block, HiddenStates, find_blocks
from icbs.recovery.masked_adam import MaskedAdam
from icbs.recovery.method import Method, Step
from icbs.recovery.subject import Subject, normalisations

log = logging.getLogger("icbs")
_POSITIONS = 1024
"""Positions in a batch, unless its size is set."""
_LEAST, _MOST = 4, 256
"""Range of the default batch size."""
_BATCHES = 8
"""Least number of batches in an epoch, unless the batch size is set or at its least."""
_FLOOR = 0.1
"""Least scale of a position, relative to the median of all."""


class BlocksSettings(Group):
    """Settings of ``blocks``."""

    epochs: Annotated[Count, Unit("epochs")] = 10
    """Maximum number of epochs for each window of blocks."""
    learning_rate: Annotated[Positive, Unit("step of Adam")] = 2e-4
    """Initial learning rate of Adam, which decreases linearly to 0.

    Raise it if the error on calibration samples hardly falls.
    """
    batch: Annotated[Count | None, Unit("samples")] = None
    """Samples in a batch; by default about a thousand positions, and 4 samples at least."""
    window: Annotated[Count, Unit("blocks")] = 1
    """Number of consecutive blocks that are trained together; windows of 2 or more overlap.

    Larger windows lower the error on calibration samples; with few samples they overfit.
    """
    dense_inputs: bool = True
    """Whether a block's target is computed from the dense model's own hidden states, so that it
    also corrects the errors of the blocks before it."""
    patience: Annotated[int, Field(ge=1), Unit("epochs")] = 2
    """Epochs without a lower error on held-out samples after which a window is finished."""


class Blocks(Method):
    """Train each block to reproduce the dense block's output, given the pruned blocks before it.

    Block reconstruction with global propagation and, for a ``window`` of several blocks,
    cross-block reconstruction (arXiv 2406.15524). A block is a module of the model's longest
    chain: a layer of a transformer, or the modules of a ``Sequential`` from one masked layer to
    the next. Masked weights, biases and parameters of normalisation are trained by Adam.

    The error of a position is divided by the mean square of the dense output there, since a few
    huge activations would determine the mean squared error otherwise. The state with the lowest
    error on held-out samples is kept in each window, which may be the initial one.
    """

    name = "blocks"
    Settings = BlocksSettings
    settings: BlocksSettings

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._names: list[str] = []
        self._blocks: list[Block] = []
        self._batch = self._state_bytes = 0

    def check(self, subject: Subject) -> None:
        """Find the blocks, and refuse fewer samples than a batch."""
        one = subject.samples[:1].to(subject.device)
        self._names, self._blocks = find_blocks(subject.model, subject.layers, one)
        outside = [
            layer.name
            for layer in subject.layers
            if not any(is_inside(layer.name, name) for name in self._names)
        ]
        if outside:
            log.info("outside of the chain of blocks and not trained: %s", ", ".join(outside))
        states = HiddenStates.of(subject.model, self._names, self._blocks, [one]).states[0]
        self._state_bytes = states.nbytes
        places = states.numel() // states.shape[_channels(states)]
        most = min(_MOST, len(subject.samples) // _BATCHES)
        self._batch = max(_LEAST, min(most, _POSITIONS // max(1, places)))
        if self.settings.batch is not None:
            self._batch = self.settings.batch
        if len(subject.samples) < self._batch:
            raise DataError(
                f"{len(subject.samples)} calibration samples are fewer than the batch of "
                f"{self._batch}; give more samples, or set batch={len(subject.samples)}"
            )

    def memory(self, subject: Subject) -> int:
        """Bytes of the cached hidden states, and of Adam's state for the largest window."""
        count = len(subject.samples) + len(subject.heldout)
        sizes = [
            sum(x.size for x in subject.layers if is_inside(x.name, name)) for name in self._names
        ]
        window = max(sum(sizes[i : i + self.settings.window]) for i in range(len(sizes)))
        return 4 * count * self._state_bytes + 5 * 4 * window

    def steps(self, subject: Subject) -> Iterator[Step]:
        """Train a window in each step."""
        assert subject.dense is not None
        # Fixed batches, since other arguments of the blocks (masks) are those of a whole batch.
        batch = min(self._batch, subject.plan.batch_size)
        parts: list[Samples] = []
        first = 0
        for samples in (subject.samples, subject.heldout):
            first = len(parts)
            parts += [
                samples[i : i + batch].to(subject.device) for i in range(0, len(samples), batch)
            ]
        names, blocks = self._names, self._blocks
        own = HiddenStates.of(subject.model, names, blocks, parts)
        dense = HiddenStates.of(subject.dense, names, blocks, parts)
        for last in range(self.done, len(blocks)):
            start = max(0, last - self.settings.window + 1)
            own.advance(start)
            if self.settings.dense_inputs:
                dense.advance(last)
                targets = _outputs(dense, last, last, dense.states)
            else:
                targets = _outputs(dense, start, last, own.states)
            window = Window(self.settings, subject, own, start, last, targets, parts, first)
            errors = window.train(subject.generator(last))
            yield Step(window.label, last + 1, len(blocks), *errors)


class Window:
    """Consecutive blocks that are trained together.

    Parameters
    ----------
    settings : BlocksSettings
    subject : Subject
    states : HiddenStates
        Of the pruned model, before the first block.
    start, last : int
        First and last block.
    targets : list of Tensor
        Outputs of the last block in the dense model, by part.
    parts : list of Samples
    heldout : int
        Index of the first part with held-out samples.
    """

    def __init__(
        self,
        settings: BlocksSettings,
        subject: Subject,
        states: HiddenStates,
        start: int,
        last: int,
        targets: list[Tensor],
        parts: Sequence[Samples],
        heldout: int,
    ) -> None:
        self.settings, self.states, self.start, self.last = settings, states, start, last
        self.calibration = range(heldout)
        self.heldout = range(heldout, len(parts))
        self.targets = targets
        self.counted = [counted_positions(part) for part in parts]
        floor = _FLOOR * float(torch.cat([_scales(t).flatten() for t in targets]).median())
        self.scales = [_scales(target).clamp(min=max(floor, 1e-30)) for target in targets]
        blocks = states.blocks
        inside = states.chain.names[blocks[start].first : blocks[last].last + 1]
        self.label = blocks[last].name
        if start < last:
            self.label = f"{blocks[start].name} … {self.label}"
        fixed = {
            f"{name}.{statistic}"
            for name in normalisations(subject.model)
            for statistic in ("running_mean", "running_var")
        }
        parameters = dict(subject.model.named_parameters())
        weights = {f"{x.name}.weight": x.kind.module.weight for x in subject.free_layers()}
        self.tensors = {
            name: weights[name] if name in weights else parameters[name]
            for name in subject.tensors
            if name not in fixed and any(is_inside(name, block) for block in inside)
        }
        self.layers = subject.layers

    def train(self, generator: torch.Generator) -> tuple[float, float]:
        """Train until the held-out error stops falling; return errors of the best state."""
        calibration, best = self.error(self.calibration), self.error(self.heldout)
        if not self.tensors:
            return calibration, best
        kept = [tensor.detach().clone() for tensor in self.tensors.values()]
        number = len(self.calibration)
        adam = MaskedAdam(
            self.tensors, self.layers, self.settings.learning_rate, self.settings.epochs * number
        )
        waiting = 0
        for _ in range(self.settings.epochs):
            total = 0.0
            for part in torch.randperm(number, generator=generator).tolist():
                with torch.enable_grad():
                    loss = self._error_of(part)
                total += float(loss.detach())
                adam.step(loss)
            error = self.error(self.heldout)
            waiting += 1
            if error < best:
                best, waiting = error, 0
                kept = [tensor.detach().clone() for tensor in self.tensors.values()]
            if waiting >= self.settings.patience or not math.isfinite(total):
                break
        with torch.no_grad():
            for tensor, value in zip(self.tensors.values(), kept, strict=True):
                tensor.copy_(value)
        return self.error(self.calibration), best

    @torch.no_grad()
    def error(self, parts: Sequence[int]) -> float:
        """Return the mean normalised error of some parts, weighted by their samples."""
        sizes = [len(self.targets[part]) for part in parts]
        errors = [float(self._error_of(part)) for part in parts]
        return sum(s * e for s, e in zip(sizes, errors, strict=True)) / max(1, sum(sizes))

    def _error_of(self, part: int) -> Tensor:
        found = self.states.run(part, self.start, self.last, self.states.states[part])
        target, scale = self.targets[part], self.scales[part]
        wide = torch.promote_types(found.dtype, torch.float32)
        axis = _channels(target)
        square = (found.to(wide) - target.to(wide)).square().mean(dim=axis, keepdim=True) / scale
        counted = self.counted[part]
        if counted is not None and axis == 2 and counted.shape == square.shape[:2]:
            square = square[counted]
        return square.mean()


@torch.no_grad()
def _outputs(states: HiddenStates, first: int, last: int, before: list[Tensor]) -> list[Tensor]:
    return [states.run(part, first, last, tensor) for part, tensor in enumerate(before)]


def _channels(states: Tensor) -> int:
    """Return the axis of channels: 1 for images, the last for sequences and vectors."""
    return 1 if states.ndim > 3 else states.ndim - 1


def _scales(target: Tensor) -> Tensor:
    """Return the mean square of each position, with one channel."""
    wide = target.to(torch.promote_types(target.dtype, torch.float32))
    return wide.square().mean(dim=_channels(target), keepdim=True)
