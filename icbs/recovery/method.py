"""Base class of the recovery methods, and the steps that they consist of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError
from torch import Tensor

from icbs.config.groups import Group
from icbs.config.messages import explain
from icbs.errors import ConfigError

if TYPE_CHECKING:
    from icbs.recovery.subject import Subject


@dataclass(frozen=True)
class Step:
    """A part of a recovery, after which the model is usable and its masks hold."""

    label: str
    """Layer, block, epoch or iteration."""
    done: int
    """Number of steps done, with this one."""
    total: int
    """Number of steps of the method, if it does not stop early."""
    calibration_error: float = float("nan")
    """Error that the method minimises, on the calibration samples; NaN if it has none."""
    heldout_error: float = float("nan")
    """The same on held-out samples."""
    judged: bool = True
    """Whether the loss is measured after this step. Only judged states can be the result."""


class Method(ABC):
    """A recovery method: new values of the kept weights, step by step.

    A new method is one class, and a row in ``icbs.plugins.RECOVERIES``, an entry point of the
    group ``icbs.recoveries``, or a call of ``RECOVERIES.register``.

    Parameters
    ----------
    settings : Group
        An instance of :attr:`Settings`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Group]] = Group
    """Settings of the method."""
    needs_dense: ClassVar[bool] = True
    """Whether the method needs the dense model."""
    starts_corrected: ClassVar[bool] = True
    """Whether the statistics of batch normalisation are corrected before the first step."""
    in_auto: ClassVar[bool] = True
    """Whether ``auto`` tries the method."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.done = 0
        """Number of steps done, which a resumed recovery restores."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Method:
        """Create the method from its settings by name.

        Raises
        ------
        ConfigError
            For an unknown setting or a value out of range.
        """
        try:
            return cls(cls.Settings(**options))
        except ValidationError as error:
            raise ConfigError(f"method {cls.name}: {explain(error, cls.Settings)}") from error

    def check(self, subject: Subject) -> None:  # noqa: B027 - optional
        """Refuse a subject that the method can't recover, before any work.

        Raises
        ------
        ConfigError, LayerError, DataError
            With the remedy; ``auto`` skips the method then.
        """

    def memory(self, subject: Subject) -> int:
        """Return the bytes that the method needs in addition to activations and one snapshot."""
        return 0

    @abstractmethod
    def steps(self, subject: Subject) -> Iterator[Step]:
        """Change the model step by step, from the step after :attr:`done` on.

        Between two steps the recovery may measure losses, correct statistics, write a checkpoint
        or stop. The steps must depend only on the settings, the subject (with its model's current
        weights), :attr:`done` and the restored state, so that a resumed recovery is
        bit-identical.

        Parameters
        ----------
        subject : Subject
            Only its ``tensors`` may be changed, and pruned weights must stay 0.
        """

    def state(self) -> dict[str, Tensor]:
        """Return tensors of the state between two steps, other than the model's."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027 - optional
        """Restore what :meth:`state` returned, before :meth:`steps`."""
