"""Layer-wise pruning without gradients: magnitude, Wanda, weight exchange and SparseGPT."""

from icbs.layerwise.pruning import LayerwiseResult, prune_layerwise
from icbs.layerwise.sparsegpt import sparsegpt
from icbs.layerwise.weight_exchange import exchange_weights

__all__ = ["LayerwiseResult", "exchange_weights", "prune_layerwise", "sparsegpt"]

# Names in version 0.1.
Baseline, exchange, prune = LayerwiseResult, exchange_weights, prune_layerwise
