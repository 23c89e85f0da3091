"""The user's loss as an average over samples, with checks and sampling of targets."""

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
from icbs.data.precision import warn_if_slow
from icbs.data.pytree import call, tensors
from icbs.data.samples import IGNORED, Samples
from icbs.errors import DataError, SoftTargetsWarning
from problems import IcbsError
from problems.warn import warn

Loss = Callable[[Any, Tensor], Tensor]
REMEDY = (
    "use a loss that averages over samples (reduction='mean', no class weights, no coupling "
    "between samples); for sequences of different lengths, one that averages each sequence first "
    "(icbs.CausalLMLoss); for samples of different weight or length, reduction='sum' works too"
)
RANDOM = (
    "the model or the loss draws random numbers in evaluation mode too (functional dropout, "
    "noise); switch that off"
)

_CROSS_ENTROPIES = (
    F.cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.binary_cross_entropy,
)


class Objective:
    """A loss over a batch, normalised to the average over samples.

    One backward pass gives per-sample gradients only if the loss of a batch is the mean or the
    sum of its samples' losses; :meth:`check` finds out which.
    """

    def __init__(self, loss: Loss, *, sums: bool = False) -> None:
        self.loss = loss
        self.sums = sums
        self.precision: Precision = "float32"
        """Precision of the forward pass; see :meth:`run` and :meth:`compute_in`."""
        self.noise = 1.0
        """Factor on the noise of targets drawn for the squared error; see :meth:`dispersion`."""

    def compute_in(self, precision: Precision, device: torch.device) -> None:
        """Set the precision, with a warning if a device is slow in it."""
        warn_if_slow(precision, device)
        self.precision = precision

    def run(self, model: Callable[..., Any], inputs: Any) -> Any:
        """Call the model in the chosen precision."""
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
        """Compare the loss of a few samples together and one by one; check all ``targets``.

        Parameters
        ----------
        loss, model
        few : Samples
        targets : Tensor
            Targets of all samples.
        draws : bool
            Whether targets will be drawn from the model; checked as well.

        Raises
        ------
        DataError
            If a target is out of range, the loss is not finite, the loss of a batch is
            neither the mean nor the sum over its samples, or targets can't be drawn.
        """
        objective = cls(loss)
        with torch.no_grad():
            outputs = _try_model(model, few.inputs)
            objective._check_labels(outputs, targets)
            together = objective._try(outputs, few.targets)
            if not (isinstance(together, Tensor) and together.ndim == 0):
                raise DataError(
                    "loss must return one number; set its reduction to 'mean' "
                    f"(it returned shape {tuple(getattr(together, 'shape', ()))})"
                )
            each = [objective._try(_try_model(model, s.inputs), s.targets) for s in _singles(few)]
        singles = torch.stack(each).double()
        whole = together.double()
        if not torch.isfinite(whole) or not torch.isfinite(singles).all():
            wrong = whole if not torch.isfinite(whole) else singles[~torch.isfinite(singles)][0]
            raise DataError(f"the loss of the dense model is {float(wrong)}; it must be finite")
        objective.sums = bool((whole - singles.sum()).abs() < (whole - singles.mean()).abs())
        expected = singles.sum() if objective.sums else singles.mean()
        half = any(t.is_floating_point() and t.element_size() < 4 for t in tensors(outputs))
        scale = expected.abs().clamp(min=singles.abs().mean())
        tolerance = (2e-2 if half else 1e-3) * scale + 1e-5
        if (gap := (whole - expected).abs()) > tolerance:
            objective._check_repeats(model, few, whole, gap)
            raise DataError(
                f"the loss of {len(few)} samples together is {float(whole):.6g}, the mean of "
                f"their losses {float(singles.mean()):.6g}: {REMEDY}"
            )
        if draws:
            objective.noise = objective._noise_factor(outputs)
            objective.sample_targets(outputs, few.targets, torch.Generator().manual_seed(0))
        return objective

    def loss_input(self, outputs: Any) -> Any:
        """Return the part of a model's outputs for the loss: logits for torch's own losses.

        Half precision is widened, since small changes of the loss could round to 0.
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
        """Label that the loss ignores."""
        return getattr(self.loss, "ignore_index", IGNORED)

    def _check_labels(self, outputs: Any, targets: Tensor) -> None:
        """Refuse class labels outside of the model's outputs, before an index fails inside."""
        known = isinstance(self.loss, CausalLMLoss | ClassificationLoss)
        found = logits_of(outputs) if known else self.loss_input(outputs)
        if targets.is_floating_point() or not isinstance(found, Tensor):
            return
        if found.ndim != targets.ndim + 1 or not (known or self._plain or found.ndim == 2):
            return
        if self._plain and found.ndim == 3 and found.shape[1] == targets.shape[1]:
            raise DataError(
                f"logits of shape (N, {found.shape[1]}, {found.shape[2]}) and labels of shape "
                f"(N, {targets.shape[1]}) are those of a language model; use the loss "
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
        """Refuse a random model or loss if that may be the cause of a gap between losses."""
        again = [self._try(_try_model(model, few.inputs), few.targets) for _ in range(3)]
        farthest = max(again, key=lambda value: float((value - loss).abs()))
        if (farthest - loss).abs() > gap / 10:
            raise DataError(
                f"the loss of the same samples is {float(loss):.6g} and then "
                f"{float(farthest):.6g}: {RANDOM}"
            )

    def _try(self, outputs: Any, targets: Tensor) -> Tensor:
        """Compute the loss, with an error that names the shapes."""
        try:
            return self.loss(self.loss_input(outputs), targets)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, IcbsError):
                raise
            shape = getattr(self.loss_input(outputs), "shape", type(outputs).__name__)
            raise DataError(
                f"the loss can't take outputs of {tuple(shape)} and targets of "
                f"{tuple(targets.shape)}: {error}"
            ) from error

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the sum of the samples' losses."""
        value = self.loss(self.loss_input(outputs), targets)
        return value if self.sums else value * len(targets)

    def mean(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the mean of the samples' losses."""
        value = self.loss(self.loss_input(outputs), targets)
        return value / len(targets) if self.sums else value

    def sample_targets(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Draw targets from the model's predictive distribution.

        Their gradients' covariance is the Fisher information (Kunstner et al. 2019,
        arXiv 1905.12558), which the data's labels only approximate. Cross-entropy implies a
        categorical, binary cross-entropy a Bernoulli, and the squared error a normal
        distribution; any other loss may have a method ``sample(outputs, generator)``.

        Raises
        ------
        DataError
            If the loss has no known distribution.
        """
        with torch.no_grad():
            drawn = self._sample(self.loss_input(outputs), generator)
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
        """Return the standard deviation of the normal distribution behind the squared error.

        ``‖o − y‖²/D`` is the negative log-likelihood for a variance of D/2, up to a constant.
        """
        size = outputs[0].numel() if not self.sums else 1
        return (size / 2) ** 0.5

    def _noise_factor(self, outputs: Any) -> float:
        """Return the factor, usually 1, that keeps noise on outputs above their rounding error."""
        if not self._is(nn.MSELoss, F.mse_loss):
            return 1.0
        outputs = self.loss_input(outputs)
        least = float(outputs.abs().max()) * torch.finfo(outputs.dtype).eps ** 0.5
        return 2.0 ** max(0, math.ceil(math.log2(max(least, 1e-300) / self._spread(outputs))))

    def dispersion(self, mean: float, targets: Tensor, *, drawn: bool) -> float:
        """Estimate the divisor of a Fisher matrix; see :func:`icbs.data.dispersion.dispersion`.

        Parameters
        ----------
        mean : float
            Mean loss of the samples of the Fisher.
        targets : Tensor
            Targets of these samples.
        drawn : bool
            Whether the Fisher's targets are drawn by :meth:`sample_targets`.
        """
        if drawn and self._is(nn.MSELoss, F.mse_loss):
            return self.noise**2
        return dispersion(self.loss, mean, targets, drawn=drawn)

    def warn_of_soft_targets(self, targets: Tensor) -> None:
        """Warn of an empirical Fisher of probabilities, such as the dense model's outputs.

        The gradient of a sample is then that of an expectation over labels, which vanishes where
        the model agrees with the targets; it is no longer a draw whose second moment is a Hessian.
        """
        if self.has_soft_targets(targets):
            warn(
                "curvature='empirical' needs labels, and the targets are probabilities: its "
                "Fisher vanishes where the model agrees with them; use curvature='monte-carlo'",
                SoftTargetsWarning,
            )

    def has_soft_targets(self, targets: Tensor) -> bool:
        """Whether the loss is a cross-entropy and its targets are probabilities between 0 and 1."""
        kinds = ClassificationLoss | nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | nn.BCELoss
        cross = isinstance(self.loss, kinds) or self.loss in _CROSS_ENTROPIES
        soft = targets.is_floating_point() and ((targets > 0) & (targets < 1)).any()
        return cross and bool(soft)

    def averaged(self, targets: Tensor) -> Tensor:
        """Return the number of targets that the loss of each sample is averaged over, float64.

        The second moment of the gradients of an average over m targets, drawn independently, is
        1/m of its Hessian. It is 1 for sums and for single targets, for the squared error, whose
        variance accounts for it, and for losses without a known distribution.

        Parameters
        ----------
        targets : Tensor, shape (N, …)

        Returns
        -------
        Tensor, shape (N,)
        """
        counted = None
        if isinstance(self.loss, CausalLMLoss):  # no logits predict the first token
            counted = targets[:, 1:] != IGNORED
        elif self._is(nn.CrossEntropyLoss, F.cross_entropy) and not targets.is_floating_point():
            counted = targets != self.ignored
        elif self._is(nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits):
            counted = torch.ones_like(targets, dtype=torch.bool)
        if counted is None or self.sums:
            return torch.ones(len(targets), dtype=torch.float64)
        return counted.reshape(len(targets), -1).sum(dim=1).clamp(min=1).double().cpu()

    def _is(self, kind: type[nn.Module], function: Any) -> bool:
        return isinstance(self.loss, kind) or self.loss is function


def _singles(samples: Samples) -> list[Samples]:
    return [samples[i : i + 1] for i in range(len(samples))]


def _try_model(model: nn.Module, inputs: Any) -> Any:
    """Call the model on a few samples.

    Raises
    ------
    DataError
        If the call fails: wrong type of inputs, tokens outside the vocabulary, …
    """
    try:
        return call(model, inputs)
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        if isinstance(error, IcbsError):
            raise
        raise DataError(
            f"the model can't process the samples ({type(error).__name__}: {error}); check "
            "their shape, type and range"
        ) from error
