"""Small models, exactly: the loss of every mask, and how close a quadratic model comes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from problems.lazy import attach

if TYPE_CHECKING:
    from icbs.enumeration.compare import compare_with_optimum
    from icbs.enumeration.comparison import Comparison, Stage
    from icbs.enumeration.mask_set import MaskSet
    from icbs.enumeration.optimum import TrueOptimum, true_optimum

__all__ = ["Comparison", "MaskSet", "Stage", "TrueOptimum", "compare_with_optimum", "true_optimum"]

_HOME = {
    "Comparison": "icbs.enumeration.comparison",
    "MaskSet": "icbs.enumeration.mask_set",
    "Stage": "icbs.enumeration.comparison",
    "TrueOptimum": "icbs.enumeration.optimum",
    "compare_with_optimum": "icbs.enumeration.compare",
    "true_optimum": "icbs.enumeration.optimum",
}
__getattr__, __dir__ = attach(globals(), _HOME)
