"""Errors and warnings of ``icbs``; errors derive from :class:`problems.IcbsError`."""

from __future__ import annotations

from typing import Any

from problems.errors import IcbsError
from solvers.errors import SolverError


class ConfigError(IcbsError, ValueError):
    """An unknown setting, or a value that a setting does not allow."""


class LayerError(IcbsError, ValueError):
    """Layers that can't be pruned: not found, unsupported, shared, not finite."""


class DataError(IcbsError, ValueError):
    """Samples, targets or a loss that can't be used for pruning."""


class MissingDataError(DataError):
    """Data that is not on this machine; the message names the command that fetches it."""


class RunFolderError(IcbsError, RuntimeError):
    """A run folder or a file of one that is in use, damaged, of another run or not writable.

    Attributes
    ----------
    result : icbs.Result or None
        Result of a finished run whose files could not be written. The model has its masks.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class MemoryLimitError(IcbsError, MemoryError):
    """A run that can't fit its memory limit; raised before the first pass."""


class SolverFailureError(SolverError, RuntimeError):
    """A run whose solver failed on all blocks of the first passes; quotes the first failure."""


class MissingPackageError(IcbsError, ImportError):
    """An optional package that is not installed; the message names the pip line."""


class ModelError(IcbsError, ValueError):
    """A model or tokenizer that can't be loaded, or can't be used as asked."""


class TargetError(IcbsError, ValueError):
    """A target that the dense model misses, or that no density of a search reaches."""


class TrainingModeWarning(UserWarning):
    """The model is in training mode but pruned and measured in evaluation mode."""


class IgnoredSamplesWarning(UserWarning):
    """Samples with only ignored labels (-100) were dropped."""


class UncheckedFileWarning(UserWarning):
    """A file of an earlier format without a digest; damage may go unnoticed."""


class BlockSizeWarning(UserWarning):
    """A layer has fewer movable weights than a block holds; its blocks are smaller."""


class DensityWarning(UserWarning):
    """The density does not cover all weights, or counts weights that are 0 already."""


class SoftTargetsWarning(UserWarning):
    """The empirical Fisher is computed from targets that are probabilities."""


class SlowPrecisionWarning(UserWarning):
    """A precision in which the processor is slower than in float32."""


class NothingMovesWarning(UserWarning):
    """Passes in which no weight of any layer moved, although some could."""
