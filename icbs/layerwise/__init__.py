"""Layer-wise pruning without gradients: magnitude, Wanda, weight exchange, SparseGPT and ALPS."""

from icbs.layerwise.alps import alps
from icbs.layerwise.compensated_exchange import exchange_compensated
from icbs.layerwise.pruning import LayerwiseResult, prune_layerwise
from icbs.layerwise.sparsegpt import sparsegpt
from icbs.layerwise.weight_exchange import exchange_weights
from problems.lazy import attach

__all__ = [
    "LayerwiseResult",
    "alps",
    "exchange_compensated",
    "exchange_weights",
    "prune_layerwise",
    "sparsegpt",
]

#: Names in version 0.1.
_RENAMED = {
    "Baseline": "icbs.layerwise.pruning.LayerwiseResult",
    "exchange": "icbs.layerwise.weight_exchange.exchange_weights",
    "prune": "icbs.layerwise.pruning.prune_layerwise",
}
__getattr__, __dir__ = attach(globals(), {}, _RENAMED)
