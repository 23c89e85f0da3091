"""Pruning of neural networks by iCBS (iterative Combinatorial Brain Surgeon).

iCBS (arXiv 2411.17796) takes one block of weights after the other, builds a
cardinality-constrained QUBO from the loss's gradient and curvature on the block, solves it, and
accepts the solution if it lowers the loss on held-out samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from icbs import _renamed
from problems.lazy import attach

if TYPE_CHECKING:
    from icbs.blocks.block import Block
    from icbs.config import PrunerConfig
    from icbs.data.losses import CausalLMLoss, ClassificationLoss
    from icbs.density.result import SearchResult
    from icbs.density.search import search
    from icbs.density.steps import StepsResult, prune_in_steps
    from icbs.enumeration.optimum import TrueOptimum, true_optimum
    from icbs.errors import (
        BlockSizeWarning,
        ConfigError,
        DataError,
        DensityWarning,
        IgnoredSamplesWarning,
        LayerError,
        MemoryLimitError,
        MissingDataError,
        MissingPackageError,
        ModelError,
        NothingMovesWarning,
        RunFolderError,
        SlowPrecisionWarning,
        SoftTargetsWarning,
        SolverFailureError,
        TargetError,
        TrainingModeWarning,
        UncheckedFileWarning,
    )
    from icbs.export.compressed import load_compressed, save_compressed
    from icbs.export.masks import apply_masks, load_masks, save_masks
    from icbs.export.training import check_pattern, hold_masks, to_torch_pruning
    from icbs.pruner import Pruner, make_blocks
    from icbs.recovery.config import RecoveryConfig
    from icbs.recovery.recover import recover
    from icbs.recovery.result import RecoveryResult
    from icbs.run.result import Progress, Result
    from icbs.trajectory.recorder import Trajectory
    from problems import IcbsError

#: Public name → module that defines it, imported at first use of the name, so that the console
#: command starts without loading torch.
_HOME = {
    "Block": "icbs.blocks.block",
    "BlockSizeWarning": "icbs.errors",
    "CausalLMLoss": "icbs.data.losses",
    "ClassificationLoss": "icbs.data.losses",
    "ConfigError": "icbs.errors",
    "DataError": "icbs.errors",
    "DensityWarning": "icbs.errors",
    "IcbsError": "problems",
    "IgnoredSamplesWarning": "icbs.errors",
    "LayerError": "icbs.errors",
    "MemoryLimitError": "icbs.errors",
    "MissingDataError": "icbs.errors",
    "MissingPackageError": "icbs.errors",
    "ModelError": "icbs.errors",
    "NothingMovesWarning": "icbs.errors",
    "SlowPrecisionWarning": "icbs.errors",
    "SoftTargetsWarning": "icbs.errors",
    "Progress": "icbs.run.result",
    "Pruner": "icbs.pruner",
    "PrunerConfig": "icbs.config",
    "RecoveryConfig": "icbs.recovery.config",
    "RecoveryResult": "icbs.recovery.result",
    "Result": "icbs.run.result",
    "RunFolderError": "icbs.errors",
    "SearchResult": "icbs.density.result",
    "SolverFailureError": "icbs.errors",
    "StepsResult": "icbs.density.steps",
    "TargetError": "icbs.errors",
    "TrainingModeWarning": "icbs.errors",
    "Trajectory": "icbs.trajectory.recorder",
    "TrueOptimum": "icbs.enumeration.optimum",
    "UncheckedFileWarning": "icbs.errors",
    "apply_masks": "icbs.export.masks",
    "check_pattern": "icbs.export.training",
    "hold_masks": "icbs.export.training",
    "load_compressed": "icbs.export.compressed",
    "load_masks": "icbs.export.masks",
    "make_blocks": "icbs.pruner",
    "prune_in_steps": "icbs.density.steps",
    "recover": "icbs.recovery.recover",
    "save_compressed": "icbs.export.compressed",
    "save_masks": "icbs.export.masks",
    "search": "icbs.density.search",
    "to_torch_pruning": "icbs.export.training",
    "true_optimum": "icbs.enumeration.optimum",
}


_renamed.install()
_attribute, __dir__ = attach(globals(), _HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("icbs-pruning")
    return _attribute(name)


__all__ = [
    "Block",
    "BlockSizeWarning",
    "CausalLMLoss",
    "ClassificationLoss",
    "ConfigError",
    "DataError",
    "DensityWarning",
    "IcbsError",
    "IgnoredSamplesWarning",
    "LayerError",
    "MemoryLimitError",
    "MissingDataError",
    "MissingPackageError",
    "ModelError",
    "NothingMovesWarning",
    "Progress",
    "Pruner",
    "PrunerConfig",
    "RecoveryConfig",
    "RecoveryResult",
    "Result",
    "RunFolderError",
    "SearchResult",
    "SlowPrecisionWarning",
    "SoftTargetsWarning",
    "SolverFailureError",
    "StepsResult",
    "TargetError",
    "TrainingModeWarning",
    "Trajectory",
    "TrueOptimum",
    "UncheckedFileWarning",
    "apply_masks",
    "check_pattern",
    "hold_masks",
    "load_compressed",
    "load_masks",
    "make_blocks",
    "prune_in_steps",
    "recover",
    "save_compressed",
    "save_masks",
    "search",
    "to_torch_pruning",
    "true_optimum",
]
