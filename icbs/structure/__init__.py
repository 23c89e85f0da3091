"""Dimensions of a model that can be made smaller, and the cut."""

from icbs.structure.dimension import Dimension, Slice
from icbs.structure.find import find_dimensions

__all__ = ["Dimension", "Slice", "find_dimensions"]
