"""Dimensions of a model that can be made smaller, and the cut."""

from icbs.structure.cutting import cut
from icbs.structure.dimension import Dimension, Slice
from icbs.structure.find import find_dimensions
from icbs.structure.kept import load_kept, save_kept
from icbs.structure.saved import load_cut, save_cut

__all__ = [
    "Dimension",
    "Slice",
    "cut",
    "find_dimensions",
    "load_cut",
    "load_kept",
    "save_cut",
    "save_kept",
]
