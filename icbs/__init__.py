"""Why it is solved: the pruner, model and data in, pruned model out.

iCBS (iterative Combinatorial Brain Surgeon, arXiv 2411.17796) walks over blocks of
weights, turns the loss's gradient and curvature on each into a cardinality-constrained
QUBO, solves it, and keeps the answer where it helps.
"""

from icbs.block import Block
from icbs.blocks import make_blocks
from icbs.config import PrunerConfig
from icbs.errors import (
    BlockSizeWarning,
    ConfigError,
    DataError,
    LayerError,
    RunFolderError,
    TrainingModeWarning,
)
from icbs.masks import apply_masks, load_masks, save_masks
from icbs.pruner import Pruner
from icbs.result import Progress, Result
from problems import IcbsError

__all__ = [
    "Block",
    "BlockSizeWarning",
    "ConfigError",
    "DataError",
    "IcbsError",
    "LayerError",
    "Progress",
    "Pruner",
    "PrunerConfig",
    "Result",
    "RunFolderError",
    "TrainingModeWarning",
    "apply_masks",
    "load_masks",
    "make_blocks",
    "save_masks",
]
