"""What iCBS is compared with: magnitude, Wanda and SparseGPT, on the same samples."""

from icbs.baselines.prune import Baseline, prune
from icbs.baselines.sparsegpt import sparsegpt

__all__ = ["Baseline", "prune", "sparsegpt"]
