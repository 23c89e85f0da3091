"""The loss, and what pruning must know about it: how it averages, what it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs.config import Precision
from icbs.data.dispersion import dispersion
from icbs.data.losses import CausalLMLoss, ClassificationLoss, logits_of, widened
from icbs.data.pytree import call, tensors
from icbs.data.samples import IGNORED, Samples
from icbs.errors import DataError
from problems import IcbsError

Loss = Callable[[Any, Tensor], Tensor]
REMEDY = (
    "use a loss that averages over samples (reduction='mean', no class weights, no coupling "
    "between samples); over sequences of different lengths, one that averages each sequence first "
    "(icbs.CausalLMLoss); where samples differ in weight or length, reduction='sum' will do"
)
RANDOM = (
    "the model or the loss draws random numbers in evaluation mode too (dropout in a function, "
    "noise); switch that off"
)


class Objective:
    """A loss over a batch, made to mean "average over samples".

    Per-sample gradients come out of one backward pass only if the loss of a batch is the
    mean (or the sum) of its samples' losses; :meth:`check` measures which it is.
    """

    def __init__(self, loss: Loss, *, sums: bool = False) -> None:
        self.loss = loss
        self.sums = sums
        self.precision: Precision = "float32"
        """In which the model computes; see :meth:`run`."""
        self.noise = 1.0
        """Factor on the noise of targets drawn for the squared error; see :meth:`dispersion`."""

    def run(self, model: Callable[..., Any], inputs: Any) -> Any:
        """Call the model, in the precision that was asked for."""
        if self.precision == "float32":
            return call(model, inputs)
        found = tensors(inputs)
        device = found[0].device.type if found else "cpu"
        with torch.autocast(device, getattr(torch, self.precision)):
            return call(model, inputs)

    @classmethod
    def check(
        cls, loss: Loss, model: nn.Module, few: Samples, targets: Tensor, draws: bool = False
    ) -> Objective:
        """Try the loss on a few samples, together and one by one; check all ``targets``.

        Parameters
        ----------
        loss, model
        few : Samples
        targets : Tensor
            Of all samples.
        draws : bool
            Whether targets will be drawn from the model: try that as well.

        Raises
        ------
        DataError
            If a target is out of range, the loss is not finite, the loss of a batch is
            neither the mean nor the sum over its samples, or no target can be drawn.
        """
        itself = cls(loss)
        with torch.no_grad():
            outputs = _try_model(model, few.inputs)
            itself._check_labels(outputs, targets)
            together = itself._try(outputs, few.targets)
            if not (isinstance(together, Tensor) and together.ndim == 0):
                raise DataError(
                    "loss must return one number; set its reduction to 'mean' "
                    f"(it returned shape {tuple(getattr(together, 'shape', ()))})"
                )
            each = [itself._try(_try_model(model, s.inputs), s.targets) for s in _singles(few)]
        apart = torch.stack(each).double()
        whole = together.double()
        if not torch.isfinite(whole) or not torch.isfinite(apart).all():
            wrong = whole if not torch.isfinite(whole) else apart[~torch.isfinite(apart)][0]
            raise DataError(f"the loss of the dense model is {float(wrong)}; it must be finite")
        # In whatever unit the loss is, it is closer to the one than to the other.
        itself.sums = bool((whole - apart.sum()).abs() < (whole - apart.mean()).abs())
        expected = apart.sum() if itself.sums else apart.mean()
        half = any(t.is_floating_point() and t.element_size() < 4 for t in tensors(outputs))
        rounding = (2e-2 if half else 1e-3) * expected.abs().clamp(min=apart.abs().mean()) + 1e-5
        if (gap := (whole - expected).abs()) > rounding:
            itself._check_repeats(model, few, whole, gap)
            raise DataError(
                f"the loss of {len(few)} samples together is {float(whole):.6g}, the mean of "
                f"their losses {float(apart.mean()):.6g}: {REMEDY}"
            )
        if draws:
            itself.noise = itself._audible(outputs)
            itself.sample_targets(outputs, few.targets, torch.Generator().manual_seed(0))
        return itself

    def seen(self, outputs: Any) -> Any:
        """Return what the loss is given: torch's own losses know logits alone.

        Narrow floats are widened: in eight bits a small change of the loss is none.
        """
        found = logits_of(outputs) if self._plain else outputs
        return widened(found) if isinstance(found, Tensor) else found

    @property
    def _plain(self) -> bool:
        """Whether the loss is one of torch's own."""
        home = getattr(self.loss, "__module__", None)
        return isinstance(self.loss, nn.modules.loss._Loss) or home == F.__name__

    @property
    def ignored(self) -> int:
        """Label of what does not count."""
        return getattr(self.loss, "ignore_index", IGNORED)

    def _check_labels(self, outputs: Any, targets: Tensor) -> None:
        """Refuse class labels outside of the model's outputs, before an index fails inside."""
        known = isinstance(self.loss, CausalLMLoss | ClassificationLoss)
        found = logits_of(outputs) if known else self.seen(outputs)
        if targets.is_floating_point() or not isinstance(found, Tensor):
            return
        if found.ndim != targets.ndim + 1 or not (known or self._plain or found.ndim == 2):
            return
        if self._plain and found.ndim == 3 and found.shape[1] == targets.shape[1]:
            raise DataError(
                f"logits of shape (N, {found.shape[1]}, {found.shape[2]}) beside labels of shape "
                f"(N, {targets.shape[1]}) are those of a language model, whose loss is "
                "icbs.CausalLMLoss()"
            )
        labels = targets[targets != self.ignored]
        if not len(labels):
            return
        classes = found.shape[-1 if isinstance(self.loss, CausalLMLoss) else 1]
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise DataError(
                f"labels run from {low} to {high}, but the model has {classes} outputs: "
                f"labels must be 0 … {classes - 1}"
            )

    @torch.no_grad()
    def _check_repeats(self, model: nn.Module, few: Samples, loss: Tensor, gap: Tensor) -> None:
        """Refuse a random model where that may be what a gap between losses comes from."""
        again = [self._try(_try_model(model, few.inputs), few.targets) for _ in range(3)]
        farthest = max(again, key=lambda value: float((value - loss).abs()))
        if (farthest - loss).abs() > gap / 10:
            raise DataError(
                f"the loss of the same samples is {float(loss):.6g} and then "
                f"{float(farthest):.6g}: {RANDOM}"
            )

    def _try(self, outputs: Any, targets: Tensor) -> Tensor:
        """Compute the loss for a first time."""
        try:
            return self.loss(self.seen(outputs), targets)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, IcbsError):
                raise
            shape = getattr(self.seen(outputs), "shape", type(outputs).__name__)
            raise DataError(
                f"the loss can't take outputs of {tuple(shape)} and targets of "
                f"{tuple(targets.shape)}: {error}"
            ) from error

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Sum of the samples' losses."""
        value = self.loss(self.seen(outputs), targets)
        return value if self.sums else value * len(targets)

    def mean(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean of the samples' losses."""
        value = self.loss(self.seen(outputs), targets)
        return value / len(targets) if self.sums else value

    def sample_targets(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Draw targets from the model's own predictive distribution.

        Their gradients' covariance is the Fisher information (Kunstner et al. 2019,
        arXiv 1905.12558), which the data's labels only approximate. Cross-entropy
        predicts a categorical, binary cross-entropy a Bernoulli, and the squared error a
        normal distribution; any other loss may bring a method ``sample(outputs,
        generator)``.

        Raises
        ------
        DataError
            If the loss has no known distribution.
        """
        with torch.no_grad():
            drawn = self._sample(self.seen(outputs), generator)
        if drawn.shape == targets.shape and not targets.is_floating_point():
            drawn = drawn.masked_fill(targets == self.ignored, self.ignored)
        return drawn

    def _sample(self, outputs: Any, generator: torch.Generator) -> Tensor:
        if hasattr(self.loss, "sample"):
            return self.loss.sample(outputs, generator)
        if self._is(nn.CrossEntropyLoss, F.cross_entropy):
            classes = outputs.shape[1]
            logits = outputs.movedim(1, -1).reshape(-1, classes)
            drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)
            return drawn.to(outputs.device).view(outputs.movedim(1, -1).shape[:-1])
        if self._is(nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits):
            drawn = torch.bernoulli(outputs.sigmoid().cpu(), generator=generator)
            return drawn.to(outputs.device)
        if self._is(nn.MSELoss, F.mse_loss):
            noise = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
            return outputs + noise.to(outputs.device) * (self._spread(outputs) * self.noise)
        raise DataError(
            "curvature 'monte-carlo' must draw targets, and this loss has no known "
            "distribution: use curvature='empirical', or give the loss a method "
            "sample(outputs, generator)"
        )

    def _spread(self, outputs: Tensor) -> float:
        """Return the standard deviation that makes a likelihood of the squared error.

        ``‖o − y‖²/D`` is that of a normal distribution of variance D/2.
        """
        size = outputs[0].numel() if not self.sums else 1
        return (size / 2) ** 0.5

    def _audible(self, outputs: Any) -> float:
        """Find the factor, most often 1, that keeps noise on outputs above their rounding."""
        if not self._is(nn.MSELoss, F.mse_loss):
            return 1.0
        outputs = self.seen(outputs)
        least = float(outputs.abs().max()) * torch.finfo(outputs.dtype).eps ** 0.5
        return 2.0 ** max(0, math.ceil(math.log2(max(least, 1e-300) / self._spread(outputs))))

    def dispersion(self, mean: float, targets: Tensor, *, drawn: bool) -> float:
        """Estimate by what a Fisher is to be divided; see :func:`icbs.data.dispersion.dispersion`.

        Parameters
        ----------
        mean : float
            Mean loss of the samples of the Fisher.
        targets : Tensor
            Of these samples.
        drawn : bool
            Whether the Fisher's targets are drawn by :meth:`sample_targets`.
        """
        if drawn and self._is(nn.MSELoss, F.mse_loss):
            return self.noise**2
        return dispersion(self.loss, mean, targets, drawn=drawn)

    def _is(self, kind: type[nn.Module], function: Any) -> bool:
        return isinstance(self.loss, kind) or self.loss is function


def _singles(samples: Samples) -> list[Samples]:
    return [samples[i : i + 1] for i in range(len(samples))]


def _try_model(model: nn.Module, inputs: Any) -> Any:
    """Call the model for a first time.

    Raises
    ------
    DataError
        If it fails: inputs of another type than its weights, tokens beyond its vocabulary, …
    """
    try:
        return call(model, inputs)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        if isinstance(error, IcbsError):
            raise
        raise DataError(
            f"the model can't take the samples ({type(error).__name__}: {error}); check "
            "their shape, type and range"
        ) from error
