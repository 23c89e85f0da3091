"""What iCBS is compared with: magnitude, Wanda, exchanges and SparseGPT, on the same samples."""

from icbs.baselines.exchange import exchange
from icbs.baselines.prune import Baseline, prune
from icbs.baselines.sparsegpt import sparsegpt

__all__ = ["Baseline", "exchange", "prune", "sparsegpt"]
