"""Changes of the weights of several layers, and gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Direction:
    """A change of the weights, or a gradient, by layer name."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    """Shape (out, in)."""
    biases: dict[str, Tensor] = field(default_factory=dict)
    """Shape (out,); of layers whose bias takes part."""

    def scaled(self, factor: float) -> Direction:
        """Return the direction times a number."""
        return Direction(
            {name: value * factor for name, value in self.weights.items()},
            {name: value * factor for name, value in self.biases.items()},
        )

    def add_(self, other: Direction) -> Direction:
        """Add a direction with the same entries in place."""
        for name, value in other.weights.items():
            self.weights[name] += value
        for name, value in other.biases.items():
            self.biases[name] += value
        return self

    def dot(self, other: Direction) -> float:
        """Return the inner product with a direction with the same entries."""
        pairs = [(self.weights[n], other.weights[n]) for n in self.weights]
        pairs += [(self.biases[n], other.biases[n]) for n in self.biases]
        return sum(float((a.double() * b.double()).sum()) for a, b in pairs)
