"""Why it is solved: the pruner, model and data in, pruned model out.

iCBS (iterative Combinatorial Brain Surgeon, arXiv 2411.17796) walks over blocks of
weights, turns the loss's gradient and curvature on each into a cardinality-constrained
QUBO, solves it, and keeps the answer where it helps.
"""

from icbs.blocks.block import Block
from icbs.config import PrunerConfig
from icbs.data.losses import CausalLMLoss, ClassificationLoss
from icbs.errors import (
    BlockSizeWarning,
    ConfigError,
    DataError,
    IgnoredSamplesWarning,
    LayerError,
    MemoryLimitError,
    MissingPackageError,
    ModelError,
    NothingMovesWarning,
    RunFolderError,
    TrainingModeWarning,
)
from icbs.making import make_blocks
from icbs.pruner import Pruner
from icbs.result import Progress, Result
from icbs.saving.compressed import load_compressed, save_compressed
from icbs.saving.holding import check_pattern, hold_masks, to_torch_pruning
from icbs.saving.masks import apply_masks, load_masks, save_masks
from problems import IcbsError

__all__ = [
    "Block",
    "BlockSizeWarning",
    "CausalLMLoss",
    "ClassificationLoss",
    "ConfigError",
    "DataError",
    "IcbsError",
    "IgnoredSamplesWarning",
    "LayerError",
    "MemoryLimitError",
    "MissingPackageError",
    "ModelError",
    "NothingMovesWarning",
    "Progress",
    "Pruner",
    "PrunerConfig",
    "Result",
    "RunFolderError",
    "TrainingModeWarning",
    "apply_masks",
    "check_pattern",
    "hold_masks",
    "load_compressed",
    "load_masks",
    "make_blocks",
    "save_compressed",
    "save_masks",
    "to_torch_pruning",
]
