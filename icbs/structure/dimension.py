"""Dimensions of a model that can be cut: heads, neurons, channels, blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

ROLES = ("readers", "writers", "between")
"""Roles of modules in a dimension: names of its lists of slices."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Rows or columns of one module that belong to the groups of a dimension."""

    module: str
    """Name of the module."""
    index: Tensor
    """Channels of each group, int64, shape (groups, channels of a group)."""


@dataclass(frozen=True, eq=False)
class Dimension:
    """A dimension of the model, divided into groups that are pruned or kept as a whole.

    A group's gate multiplies its values where they are read: closing it sets the columns of all
    readers to zero. Removing it removes these columns, the rows of the writers, and the channels
    of modules between them.

    Examples
    --------
    The hidden neurons of ``Sequential(Linear(8, 32), ReLU(), Linear(32, 4))`` are a dimension of
    32 groups, written by ``"0"`` (rows) and read by ``"2"`` (columns). The heads of attention
    are written by the projections of queries, keys and values and read by that of the output;
    with grouped-query attention a group is a pair of keys and values with all its queries.
    """

    name: str
    """Name for users, such as ``encoder.layer.0 heads``."""
    kind: str
    """``heads``, ``neurons``, ``channels`` or ``blocks``."""
    groups: int
    """Number of groups."""
    readers: tuple[Slice, ...]
    """Modules whose inputs are the dimension (indices of input channels)."""
    writers: tuple[Slice, ...] = ()
    """Modules whose outputs are the dimension (indices of output channels)."""
    between: tuple[Slice, ...] = ()
    """Modules with an entry per channel: batch normalisation, depthwise convolutions."""
    floor: int = 1
    """Least number of kept groups; 0 where the whole dimension may vanish (a residual branch)."""
