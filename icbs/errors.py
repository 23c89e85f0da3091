"""Errors of the pruning floor; all derive from :class:`problems.IcbsError`."""

from __future__ import annotations

from typing import Any

from problems.errors import IcbsError
from solvers.errors import SolverError


class ConfigError(IcbsError, ValueError):
    """A setting that does not exist, or a value that it can't take."""


class LayerError(IcbsError, ValueError):
    """Layers that can't be pruned as asked: no match, unsupported, shared, not finite."""


class DataError(IcbsError, ValueError):
    """Samples, targets or a loss that can't drive the pruning."""


class MissingDataError(DataError):
    """Data that is not on this machine; the message names the command that fetches it."""


class RunFolderError(IcbsError, RuntimeError):
    """A run folder, or a file of one, that can't be used: in use, damaged, foreign, not writable.

    Attributes
    ----------
    result : icbs.Result or None
        Where a run came to its end and only its results could not be written: what it came to.
        The model has these masks.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class MemoryLimitError(IcbsError, MemoryError):
    """A run that can't keep within the memory it may use, found before it starts."""


class SolverFailureError(SolverError, RuntimeError):
    """A run whose solver answered no block of its first passes; the first failure is quoted."""


class MissingPackageError(IcbsError, ImportError):
    """An optional package that is not installed; the message names the pip line."""


class ModelError(IcbsError, ValueError):
    """A model or tokenizer that can't be loaded, or can't be used as asked."""


class TrainingModeWarning(UserWarning):
    """The model was in training mode; it is pruned, and measured, in evaluation mode."""


class IgnoredSamplesWarning(UserWarning):
    """Samples whose labels all say that they don't count; they are left out."""


class UncheckedFileWarning(UserWarning):
    """A file of an earlier format, without a digest; damage to it may go unseen."""


class BlockSizeWarning(UserWarning):
    """A layer has fewer movable weights than a block holds; its blocks are smaller."""


class DensityWarning(UserWarning):
    """The density holds for less, or says less, than it may seem to."""


class NothingMovesWarning(UserWarning):
    """Whole passes in which no weight of any layer moves, though weights may."""
