"""What iCBS is compared with: magnitude, Wanda, exchanges and SparseGPT, on the same samples."""

from icbs.layerwise.exchange import exchange
from icbs.layerwise.prune import Baseline, prune
from icbs.layerwise.sparsegpt import sparsegpt

__all__ = ["Baseline", "exchange", "prune", "sparsegpt"]
