"""Errors of the pruning floor; all derive from :class:`problems.IcbsError`."""

from __future__ import annotations

from problems.errors import IcbsError


class ConfigError(IcbsError, ValueError):
    """A setting that does not exist, or a value that it can't take."""


class LayerError(IcbsError, ValueError):
    """Layers that can't be pruned as asked: no match, unsupported, shared, not finite."""


class DataError(IcbsError, ValueError):
    """Samples, targets or a loss that can't drive the pruning."""


class RunFolderError(IcbsError, RuntimeError):
    """A run folder that exists already, is damaged, or belongs to another model."""


class MemoryLimitError(IcbsError, MemoryError):
    """A run that can't keep within the memory it may use, found before it starts."""


class MissingPackageError(IcbsError, ImportError):
    """An optional package that is not installed; the message names the pip line."""


class ModelError(IcbsError, ValueError):
    """A model or tokenizer that can't be loaded, or can't be used as asked."""


class TrainingModeWarning(UserWarning):
    """The model was in training mode; it is pruned, and measured, in evaluation mode."""


class IgnoredSamplesWarning(UserWarning):
    """Samples whose labels all say that they don't count; they are left out."""


class BlockSizeWarning(UserWarning):
    """A layer has fewer movable weights than a block holds; its blocks are smaller."""


class NothingMovesWarning(UserWarning):
    """Whole passes in which no weight of any layer moves, though weights may."""
