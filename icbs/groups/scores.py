"""Scores of the importance of groups, from one pass over the model with all groups open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from icbs.curvature.passes import Pass
from icbs.groups.grouping import Grouping
from icbs.model.gates import Gates

if TYPE_CHECKING:
    from icbs.run.context import RunContext

Float = npt.NDArray[np.float64]


@dataclass
class GroupInformation:
    """Inputs of a score of groups."""

    grouping: Grouping
    context: RunContext
    pass_info: Pass
    """Gradients and curvature of all gates, which are open."""
    generator: torch.Generator


GroupScore = Callable[[GroupInformation], Float]
"""Importance of each group, shape (groups,); comparable between layers."""


def fisher(information: GroupInformation) -> Float:
    """Diagonal of the curvature, ``Σ_s A_sg² / N``: the mask search of Kwon et al. 2022."""
    gates = information.grouping.gates
    diagonal = np.zeros(len(gates))
    for model in information.pass_info.models(gates):
        diagonal += model.weight / model.dispersion * model.diagonal
    return diagonal


def magnitude(information: GroupInformation) -> Float:
    """Norm ``‖w_g‖₂`` of the weights that read the group."""
    gates = information.grouping.gates
    squares: Float = gates.total([part.weights.double().square() for part in gates.parts])
    return np.sqrt(squares)


def gate_gradient(pass_info: Pass, gates: Gates) -> Float:
    """Mean gradient of the loss with respect to each gate, ``Σ w ∘ ḡ``, shape (n,)."""
    means = pass_info.gradient(gates)
    pairs = zip(means, gates.parts, strict=True)
    return gates.total([mean.double() * part.weights.double() for mean, part in pairs])


def gradient(information: GroupInformation) -> Float:
    """``|Σ w ∘ ḡ|``: magnitude of the first-order change of the loss."""
    return np.abs(gate_gradient(information.pass_info, information.grouping.gates))


def taylor(information: GroupInformation) -> Float:
    """``-Σ w ∘ ḡ``: first-order increase of the loss if the group is pruned, with its sign."""
    return -gate_gradient(information.pass_info, information.grouping.gates)


def random(information: GroupInformation) -> Float:
    """Uniform in [0, 1)."""
    count, generator = information.grouping.count, information.generator
    drawn: Float = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    return drawn
