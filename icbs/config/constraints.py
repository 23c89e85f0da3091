"""Scope of the cardinality constraint: layer, output, input, or runs of weights (N:M)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icbs.errors import LayerError

if TYPE_CHECKING:  # Settings are read and explained without importing torch.
    from torch import Tensor

SCOPES = ("layer", "output", "input")


@dataclass(frozen=True)
class Pattern:
    """N:M: of every ``run`` consecutive weights of an output, ``keep`` are kept."""

    keep: int
    run: int

    def __str__(self) -> str:
        return f"{self.keep}:{self.run}"

    @property
    def density(self) -> float:
        """Share of the weights kept."""
        return self.keep / self.run

    def mask(self, scores: Tensor) -> Tensor:
        """Keep the best weights of each run.

        Parameters
        ----------
        scores : Tensor, shape (out, in), with ``in`` a multiple of the run
            Importance of each weight.

        Returns
        -------
        Tensor of bool, shape (out, in)
            True where kept.
        """
        import torch

        runs = scores.reshape(-1, self.run)
        # Stable sort: ties are broken in the same way on every device.
        best = runs.argsort(dim=1, descending=True, stable=True)[:, : self.keep]
        kept = torch.zeros(runs.shape, dtype=torch.bool, device=scores.device)
        return kept.scatter_(1, best, True).view(scores.shape)

    def check(self, widths: Mapping[str, int]) -> None:
        """Refuse layers whose number of inputs (by name) is not a multiple of the run.

        Raises
        ------
        LayerError
        """
        uneven = [f"{name!r} ({width})" for name, width in widths.items() if width % self.run]
        if uneven:
            raise LayerError(
                f"{self} needs a number of inputs that {self.run} divides; exclude these layers, "
                f"or choose another pattern: {', '.join(uneven)}"
            )


def parse_pattern(constraint: str) -> Pattern | None:
    """Parse ``"N:M"``; None for the name of a scope.

    Raises
    ------
    ValueError
        If it is neither a pattern nor a scope.
    """
    if constraint in SCOPES:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", constraint)
    if found is None:
        raise ValueError(f"must be one of {', '.join(SCOPES)}, or a pattern such as '2:4'")
    keep, run = int(found[1]), int(found[2])
    if not 0 < keep < run:
        raise ValueError(f"keeps {keep} of every {run}; it must keep some weights and prune some")
    return Pattern(keep, run)


def pattern_in(value: Any) -> Pattern | None:
    """Parse N:M from an unvalidated setting; None for anything else, including errors."""
    try:
        return parse_pattern(value)
    except (TypeError, ValueError):
        return None


def group_of(index: Tensor, width: int, constraint: str) -> Tensor:
    """Return the label of the layer, output, input or run of each flat index.

    Parameters
    ----------
    index : Tensor of int64, shape (n,)
        Flat indices into a layer.
    width : int
        Inputs of the layer; for N:M a multiple of M.
    constraint : str
        A scope or a pattern.
    """
    pattern = parse_pattern(constraint)
    if pattern is not None:
        return index // pattern.run
    if constraint == "layer":
        return index * 0
    return index // width if constraint == "output" else index % width
